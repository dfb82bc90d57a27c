package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// Supervisor keeps one VPP running.
type Supervisor struct {
	Path      string
	Conf      startup.Config
	CoreDumps bool
	// HugePages tells what is free now. It is asked at each start, which then
	// uses huge pages if they suffice. Nil: as Conf says.
	HugePages func() startup.HugePages
	// Require names message groups that VPP must have when it is ready.
	Require []binapi.Group
	// Grace between SIGTERM and SIGKILL, and the bound on a start. Defaults
	// 5 s and 30 s.
	Grace        time.Duration
	StartTimeout time.Duration
	// Before is called ahead of each start of VPP: what VPP takes over is made
	// ready for it. Its error counts as a start that failed. After is called
	// once VPP has ended, each time that Before had succeeded. Both may be nil.
	Before func() error
	After  func()
	// Ready is called each time the API answers.
	Ready func(pid int, version string)
	Log   logrus.FieldLogger
}

// Bounds of the wait before a restart. It doubles with each death, and begins
// anew once VPP has been up for settled.
const (
	firstWait = 100 * time.Millisecond
	mostWait  = 10 * time.Second
	settled   = 30 * time.Second
)

// Run starts VPP and restarts it when it dies, until ctx ends; then it stops
// VPP and returns nil. A VPP that does not come up the first time is an error:
// waiting would not help whoever made the mistake.
func (s *Supervisor) Run(ctx context.Context) error {
	if s.Grace <= 0 {
		s.Grace = 5 * time.Second
	}
	if s.StartTimeout <= 0 {
		s.StartTimeout = 30 * time.Second
	}
	unlock, err := Lock(s.Conf)
	if err != nil {
		return err
	}
	defer unlock()
	wait, smallPages, wasUp := firstWait, false, false
	for {
		begin := time.Now()
		conf := s.confNow(smallPages)
		up, err := s.once(ctx, conf)
		if ctx.Err() != nil {
			return nil
		}
		var death *DeathError
		if smallPages = !up && conf.HugePages && errors.As(err, &death); smallPages {
			// Others may have taken them since they were counted.
			s.Log.WithError(err).Warn("VPP does not come up with huge pages; it is started again with pages of 4 KiB")
			continue
		}
		if !up && !wasUp {
			return err
		}
		wasUp = true
		if up && time.Since(begin) > settled {
			wait = firstWait
		}
		s.Log.WithError(err).WithField("restart in", wait).Error("VPP is down")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, mostWait)
	}
}

// confNow is the configuration for the next start. Huge pages come and go, so
// it is made anew for each; smallPages: without them, whatever is free.
func (s *Supervisor) confNow(smallPages bool) startup.Config {
	conf := s.Conf
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

// once is one life of VPP; up tells whether it ever was ready.
func (s *Supervisor) once(ctx context.Context, conf startup.Config) (up bool, err error) {
	if s.Before != nil {
		if err := s.Before(); err != nil {
			return false, err
		}
	}
	if s.After != nil {
		defer s.After()
	}
	p, err := Start(s.Path, conf, s.CoreDumps)
	if err != nil {
		return false, err
	}
	defer p.Stop(s.Grace)
	s.Log.WithFields(logrus.Fields{"pid": p.PID(), "vpp": s.Path}).Info("VPP started")
	sctx, cancel := context.WithTimeout(ctx, s.StartTimeout)
	version, err := p.WaitReady(sctx, s.Require...)
	late := ctx.Err() == nil && sctx.Err() != nil
	cancel()
	if err != nil {
		var death *DeathError
		if late && !errors.As(err, &death) {
			err = fmt.Errorf("VPP's API did not answer within %s: %w", s.StartTimeout, err)
		}
		return false, err
	}
	if s.Conf.Workers == 0 {
		if err := p.Unpin(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.Log.WithError(err).Warn("VPP stays on the CPU it chose")
		}
	}
	s.Log.WithFields(logrus.Fields{"pid": p.PID(), "version": version, "socket": s.Conf.APISocket()}).Info("VPP is ready")
	if s.Ready != nil {
		s.Ready(p.PID(), version)
	}
	select {
	case <-ctx.Done():
		return true, nil
	case <-p.Done():
		return true, p.Death()
	}
}
