package supervise

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/traffic"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/watchdog"
)

// Traffic turns packets away from VPP, see package traffic.
type Traffic interface {
	// Hold all links in the kernel, at once.
	Hold() (links, changed int, err error)
	// Drain holds them and waits until VPP has sent on what it had received.
	Drain(ctx context.Context, rx traffic.Counter) (traffic.Report, error)
	// Guard turns the links when this process dies, before its end is known
	// here; until ctx ends.
	Guard(ctx context.Context, pid int)
}

// Supervisor keeps one VPP running. Its fields are not changed once Run was
// called.
type Supervisor struct {
	// Path of VPP's executable, and its configuration.
	Path string
	Conf startup.Config
	// Next, if not nil, is asked for both before each start: VPP may have been
	// upgraded, and the machine changed. The run directory stays that of Conf.
	Next func() (path string, conf startup.Config, err error)
	// HugePages tells what is free now. It is asked at each start, which then
	// uses huge pages if they suffice. Nil: as Conf says.
	HugePages func() startup.HugePages
	// Require names message groups that VPP must have when it is ready.
	Require []binapi.Group
	// Grace between SIGTERM and SIGKILL, and the bound on a start. Defaults
	// 5 s and 30 s.
	Grace        time.Duration
	StartTimeout time.Duration
	// Watch finds a VPP that hangs. Nil: nobody looks.
	Watch *watchdog.Limits
	// Traffic goes to the kernel before VPP is stopped. Nil: it does not.
	Traffic Traffic
	// After MaxDeaths within DeathWindow VPP stays down until somebody asks for
	// a restart. 0 deaths: it never does.
	MaxDeaths   int
	DeathWindow time.Duration
	// Uplinks tells the NICs that VPP has for itself. May be nil.
	Uplinks func() []node.DedicatedUplink
	// Before is called ahead of each start of VPP: what VPP takes over is made
	// ready for it. Its error counts as a start that failed. After is called
	// once VPP has ended, each time that Before had succeeded. Both may be nil.
	Before func() error
	After  func()
	// Owner is called once the run directory is this process's own, before the
	// first start; its error ends the run. Disown is called at the end of a run
	// that had called Owner, while the run directory is still this process's own:
	// no other one begins before that. Both may be nil.
	Owner  func() error
	Disown func() error
	// Connect is called when the API answers, before VPP counts as ready. Its
	// error ends this VPP as one that did not come up. May be nil.
	Connect func(context.Context) error
	// Ready is called each time that VPP is ready.
	Ready func(pid int, version string)
	Log   logrus.FieldLogger

	once    sync.Once
	control *control
}

// Bounds of the wait before a restart. It doubles with each death, and begins
// anew once VPP has been up for settled.
const (
	firstWait = 100 * time.Millisecond
	mostWait  = 10 * time.Second
	settled   = 30 * time.Second
)

// Run starts VPP and restarts it when it dies or hangs, until ctx ends; then it
// drains and stops VPP and returns nil. A VPP that does not come up the first
// time is an error: waiting would not help whoever made the mistake. It is
// called once.
func (s *Supervisor) Run(ctx context.Context) error {
	if s.Grace <= 0 {
		s.Grace = 5 * time.Second
	}
	if s.StartTimeout <= 0 {
		s.StartTimeout = 30 * time.Second
	}
	c := s.shared()
	defer close(c.ended)
	unlock, err := Lock(s.Conf)
	if err != nil {
		return err
	}
	defer unlock()
	if s.Owner != nil {
		if err := s.Owner(); err != nil {
			return errors.Join(err, s.disown())
		}
	}
	err = s.keep(ctx, c)
	c.journal.set(node.StateStopped, func(m *node.Manager) {
		m.PID, m.Uplinks = 0, nil
		if err != nil {
			m.LastDeath, m.LastDeathAt = err.Error(), time.Now()
		}
	})
	return errors.Join(err, s.disown())
}

func (s *Supervisor) disown() error {
	if s.Disown == nil {
		return nil
	}
	return s.Disown()
}

// keep is one life of VPP after the other.
func (s *Supervisor) keep(ctx context.Context, c *control) error {
	var (
		wait             = firstWait
		deaths           []time.Time
		smallPages, once bool
		asked            *request
	)
	for {
		begin := time.Now()
		end := s.life(ctx, asked, smallPages)
		once = once || end.up
		if ctx.Err() != nil {
			c.done(end.asked, ErrEnding)
			return nil
		}
		if end.planned {
			asked, smallPages = end.asked, false
			continue
		}
		var death *DeathError
		if smallPages = !end.up && end.hugePages && errors.As(end.err, &death); smallPages {
			// Others may have taken them since they were counted.
			s.Log.WithError(end.err).Warn("VPP does not come up with huge pages; it is started again with pages of 4 KiB")
			asked = end.asked
			continue
		}
		if !once {
			return end.err
		}
		c.done(end.asked, end.err)
		if end.up && time.Since(begin) > settled {
			wait = firstWait
		}
		deaths = append(recent(deaths, time.Now().Add(-s.DeathWindow)), time.Now())
		giveUp := s.MaxDeaths > 0 && len(deaths) >= s.MaxDeaths
		if asked = s.rest(ctx, c, end.err, wait, giveUp); ctx.Err() != nil {
			c.done(asked, ErrEnding)
			return nil
		}
		wait = min(2*wait, mostWait)
		if asked != nil {
			wait, deaths = firstWait, nil
		}
	}
}

// rest records a death and waits for the next start: for some time, or until
// somebody asks for it.
func (s *Supervisor) rest(ctx context.Context, c *control, err error, wait time.Duration, giveUp bool) *request {
	state, next := node.StateWaiting, time.Now().Add(wait)
	log := s.Log.WithError(err)
	var after <-chan time.Time
	if giveUp {
		state, next = node.StateGivenUp, time.Time{}
		log.Errorf("VPP is down: it died %d times within %s and is not started again; the kernel carries the traffic. Mend it, then: vpp-manager restart --run-dir %s",
			s.MaxDeaths, s.DeathWindow, s.Conf.RunDir)
	} else {
		log.WithField("restart in", wait).Error("VPP is down")
		t := time.NewTimer(wait)
		defer t.Stop()
		after = t.C
	}
	c.journal.set(state, func(m *node.Manager) {
		m.PID, m.NextStart = 0, next
		if giveUp {
			m.Uplinks = nil // they are given back
		}
		m.Deaths++
		m.LastDeath, m.LastDeathAt = err.Error(), time.Now()
	})
	select {
	case <-ctx.Done():
	case <-after:
	case r := <-c.requests:
		return r
	}
	return nil
}

// recent keeps the times after begin.
func recent(times []time.Time, begin time.Time) []time.Time {
	var out []time.Time
	for _, t := range times {
		if t.After(begin) {
			out = append(out, t)
		}
	}
	return out
}

// next is what the next start uses. Huge pages come and go, so they are counted
// for each; smallPages: without them, whatever is free.
func (s *Supervisor) next(smallPages bool) (string, startup.Config, error) {
	path, conf := s.Path, s.Conf
	if s.Next != nil {
		var err error
		if path, conf, err = s.Next(); err != nil {
			return "", startup.Config{}, err
		}
		if conf.RunDir != s.Conf.RunDir {
			return "", startup.Config{}, fmt.Errorf("run directory: %s became %s while vpp-manager runs; start it anew", s.Conf.RunDir, conf.RunDir)
		}
	}
	return path, s.pages(conf, smallPages), nil
}

func (s *Supervisor) pages(conf startup.Config, smallPages bool) startup.Config {
	switch {
	case smallPages:
		conf.HugePages = false
	case s.HugePages != nil:
		h := s.HugePages()
		conf.HugePages = conf.FitsHugePages(h)
		s.Log.WithFields(logrus.Fields{"use": conf.HugePages, "free": h.Free, "size": h.Size, "nodes": h.Nodes}).Debug("Huge pages")
	}
	return conf
}
