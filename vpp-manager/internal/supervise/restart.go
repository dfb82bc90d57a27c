package supervise

import (
	"context"
	"errors"
	"time"

	"github.com/sidewinder-net/sidewinder/api/node"
)

// Sentinel errors of Restart.
var (
	// ErrRestarting: another restart is under way.
	ErrRestarting = errors.New("a restart is under way")
	// ErrEnding: vpp-manager ends, or has not begun.
	ErrEnding = errors.New("vpp-manager does not run")
)

// request for a planned restart; answered once.
type request struct {
	began  time.Time
	report Report
	answer chan error
}

// control is what other goroutines reach of a Supervisor that runs.
type control struct {
	requests chan *request
	busy     chan struct{} // holds one while a restart is under way
	ended    chan struct{}
	journal  *journal
}

// shared makes what Run and its callers share.
func (s *Supervisor) shared() *control {
	s.once.Do(func() {
		s.control = &control{
			requests: make(chan *request, 1), busy: make(chan struct{}, 1), ended: make(chan struct{}),
			journal: &journal{dir: s.Conf.RunDir, log: s.Log},
		}
	})
	return s.control
}

// Restart drains VPP, stops it, and starts it again, from wherever it is found
// now. A VPP that is down is started at once; one that was given up is given
// another chance. It returns when the new one is ready, or has failed; when ctx
// ends first the restart goes on.
func (s *Supervisor) Restart(ctx context.Context) (Report, error) {
	c := s.shared()
	select {
	case c.busy <- struct{}{}:
	default:
		return Report{}, ErrRestarting
	}
	// With room for the answer: nobody may be there to take it.
	r := &request{began: time.Now(), answer: make(chan error, 1)}
	c.requests <- r // the one place is free, since nobody else is busy
	select {
	case err := <-r.answer:
		return r.report, err
	case <-c.ended:
		return Report{}, ErrEnding
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
}

// Status is what the manager's file says.
func (s *Supervisor) Status() node.Manager { return s.shared().journal.get() }

// done answers a request, if there is one.
func (c *control) done(r *request, err error) {
	if r == nil {
		return
	}
	<-c.busy
	r.answer <- err
}
