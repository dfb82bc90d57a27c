package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/traffic"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/watchdog"
)

// HangError says how a VPP hung. It was killed for that.
type HangError struct{ Verdict watchdog.Verdict }

func (e *HangError) Error() string { return "VPP hung: " + string(e.Verdict) + "; it was killed" }

// end of one life of VPP.
type end struct {
	// up: it was ready once.
	up bool
	// planned: somebody asked for this end.
	planned bool
	// asked is the restart that is not answered yet.
	asked *request
	// hugePages were used.
	hugePages bool
	// err says how it ended, unless that was planned.
	err error
}

// life is one life of VPP. asked is the restart that it answers when VPP is
// ready, or nil.
func (s *Supervisor) life(ctx context.Context, asked *request, smallPages bool) end {
	journal := s.shared().journal
	e := end{asked: asked}
	begin := time.Now()
	path, conf, err := s.next(smallPages)
	if err != nil {
		e.err = err
		return e
	}
	e.hugePages = conf.HugePages
	journal.set(node.StateStarting, func(m *node.Manager) { m.PID = 0 })
	if s.Before != nil {
		if e.err = s.Before(); e.err != nil {
			return e
		}
	}
	if s.After != nil {
		defer s.After()
	}
	p, err := Start(path, conf)
	if err != nil {
		e.err = err
		return e
	}
	defer func() {
		if !e.up {
			p.Stop(min(s.Grace, startGrace))
			return
		}
		p.Stop(s.Grace)
	}()
	journal.set(node.StateStarting, func(m *node.Manager) {
		m.PID = p.PID()
		m.Starts++
		if s.Uplinks != nil {
			m.Uplinks = s.Uplinks()
		}
	})
	s.Log.WithFields(logrus.Fields{"pid": p.PID(), "vpp": path}).Info("VPP started")
	version, err := s.waitReady(ctx, p)
	if err != nil {
		e.err = err
		return e
	}
	if !conf.Pinned() {
		if err := p.Unpin(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.Log.WithError(err).Warn("VPP stays on the CPU it chose")
		}
	}
	if s.Connect != nil {
		if err := s.Connect(ctx); err != nil {
			e.err = fmt.Errorf("VPP answers, and is of no use: %w", err)
			select {
			case <-p.Done():
				e.err = p.Death() // that is why
			case <-time.After(deathNotice):
			}
			return e
		}
	}
	e.up = true
	journal.set(node.StateReady, func(m *node.Manager) { m.PID, m.VPPVersion = p.PID(), version })
	s.Log.WithFields(logrus.Fields{"pid": p.PID(), "version": version, "socket": conf.APISocket()}).Info("VPP is ready")
	if s.Ready != nil {
		s.Ready(p.PID(), version)
	}
	if asked != nil {
		asked.report.PID, asked.report.Version = p.PID(), version
		asked.report.StartMillis = time.Since(begin).Milliseconds()
		s.shared().done(asked, nil)
		e.asked = nil
	}
	s.ready(ctx, p, &e)
	return e
}

// waitReady waits for the API.
func (s *Supervisor) waitReady(ctx context.Context, p *Process) (string, error) {
	sctx, cancel := context.WithTimeout(ctx, s.StartTimeout)
	defer cancel()
	version, err := p.WaitReady(sctx, s.Require...)
	if err == nil {
		return version, nil
	}
	var death *DeathError
	if ctx.Err() == nil && sctx.Err() != nil && !errors.As(err, &death) {
		err = fmt.Errorf("VPP's API did not answer within %s: %w", s.StartTimeout, err)
	}
	return "", err
}

// ready looks after a VPP that is ready until it ends, or is ended.
func (s *Supervisor) ready(ctx context.Context, p *Process, e *end) {
	if s.Traffic != nil {
		gctx, cancel := context.WithCancel(context.Background())
		guarded := make(chan struct{})
		defer func() { cancel(); <-guarded }()
		go func() {
			defer close(guarded)
			s.Traffic.Guard(gctx, p.PID())
		}()
	}
	verdict := make(chan watchdog.Verdict, 1)
	if s.Watch != nil {
		wctx, cancel := context.WithCancel(context.Background())
		watched := make(chan struct{})
		defer func() { cancel(); <-watched }()
		go func() {
			defer close(watched)
			v := watchdog.Run(wctx, watchdog.Options{
				PID: p.PID(), APISocket: p.conf.APISocket(), StatsSocket: p.conf.StatsSocket(), Limits: *s.Watch, Log: s.Log,
			})
			if v != "" {
				verdict <- v
			}
		}()
	}
	select {
	case <-p.Done():
		e.err = p.Death()
	case v := <-verdict:
		e.err = s.kill(ctx, p, v)
	case <-ctx.Done():
		s.drain(p, &Report{}) // VPP is stopped by the caller
		e.planned = true
	case r := <-s.shared().requests:
		e.planned, e.asked = true, r
		m := s.Status()
		r.report.OldPID, r.report.OldVersion = m.PID, m.VPPVersion
		s.drain(p, &r.report)
		begin := time.Now()
		p.Stop(s.Grace)
		r.report.StopMillis = time.Since(begin).Milliseconds()
	}
}

// kill ends a VPP that hangs, the traffic first. One that turns out to have
// crashed is left to end by itself.
func (s *Supervisor) kill(ctx context.Context, p *Process, v watchdog.Verdict) error {
	err := &HangError{Verdict: v}
	log := s.Log.WithFields(logrus.Fields{"pid": p.PID(), "verdict": string(v)})
	if s.Traffic != nil {
		begin := time.Now()
		links, _, err := s.Traffic.Hold()
		log = log.WithFields(logrus.Fields{"links": links, "took": time.Since(begin)})
		if err != nil {
			log = log.WithError(err)
		}
	}
	dumps := dumpsCore(p.PID())
	if dumps {
		log.Error("VPP has crashed and dumps core; its traffic goes to the kernel")
	} else {
		log.Error("VPP hangs; its traffic goes to the kernel, and it is killed")
		p.Kill()
	}
	// One in uninterruptible sleep ends when the kernel lets it; till then
	// there cannot be another.
	s.shared().journal.set(node.StateWaiting, func(m *node.Manager) {
		m.LastDeath, m.LastDeathAt = err.Error(), time.Now()
		if dumps {
			m.LastDeath = "VPP has crashed and dumps core"
		}
	})
	if dumps {
		select {
		case <-p.Done():
		case <-ctx.Done():
		case <-time.After(dumpTimeout):
		}
		p.Kill()
	}
	<-p.Done()
	if p.crashed() {
		return p.Death()
	}
	return err
}

// drain turns the traffic to the kernel while VPP lives on.
func (s *Supervisor) drain(p *Process, r *Report) {
	s.shared().journal.set(node.StateDraining, nil)
	if s.Traffic == nil {
		return
	}
	// Bounded by itself, and worth its time when this program is to end.
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var rx traffic.Counter
	octx, ocancel := context.WithTimeout(ctx, openTimeout)
	stats, err := binapi.OpenStats(octx, p.conf.StatsSocket())
	ocancel()
	if err == nil {
		defer stats.Close()
		rx = func() (uint64, error) { n, _, err := stats.Packets(); return n, err }
	}
	done, err := s.Traffic.Drain(ctx, rx)
	r.Links, r.Quiet, r.DrainMillis = done.Links, done.Quiet, done.Took.Milliseconds()
	log := s.Log.WithFields(logrus.Fields{"links": done.Links, "quiet": done.Quiet, "took": done.Took})
	if err != nil {
		r.DrainError = err.Error()
		log.WithError(err).Warn("VPP is stopped; some of its traffic could not be turned to the kernel")
		return
	}
	log.Info("VPP is drained: its traffic goes to the kernel")
}

const (
	// startGrace is the most between SIGTERM and SIGKILL for a VPP that has not
	// come up: it does not heed the first before its main loop, and there is
	// nothing yet that it could leave in disorder.
	startGrace = 200 * time.Millisecond
	// deathNotice is how long after a connection the death of its VPP may show.
	deathNotice  = 100 * time.Millisecond
	drainTimeout = 5 * time.Second
	openTimeout  = 200 * time.Millisecond
)
