// Package traffic turns a node's packets away from VPP to the kernel: at once
// when VPP hangs, and without losing any before VPP is stopped by plan.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/xdp"
)

// Shim is what is needed of an xdp.Shim.
type Shim interface {
	LinkName() string
	Mode() (xdp.Mode, error)
	SetMode(xdp.Mode) error
	Close() error
}

// Counter tells how many packets VPP has received so far.
type Counter func() (rx uint64, err error)

// Report says what a drain came to.
type Report struct {
	// Links whose shim was turned to the kernel.
	Links int
	// Quiet: no more packets came to VPP at the end of it.
	Quiet bool
	// Took is how long it lasted.
	Took time.Duration
}

// Bounds of a drain.
type Bounds struct {
	// Hold bounds the time until all shims are held.
	Hold time.Duration
	// Pause between two looks at the shims.
	Pause time.Duration
	// Least is the time that VPP gets for what lies in its rings, counted from
	// when the last shim was held; Most bounds it while packets still come: of
	// links that have no shim VPP gets copies for ever.
	Least, Most time.Duration
	// Still is how long VPP must receive nothing to count as quiet.
	Still time.Duration
}

// DefaultBounds are right for rings of thousands of packets.
func DefaultBounds() Bounds {
	return Bounds{
		Hold: time.Second, Pause: 20 * time.Millisecond,
		Least: 100 * time.Millisecond, Most: 500 * time.Millisecond, Still: 50 * time.Millisecond,
	}
}

// Links are those of this network namespace that carry the shim.
type Links struct {
	Find   func() ([]Shim, error)
	Bounds Bounds
	Log    logrus.FieldLogger
}

// ForHost finds the shims of this process's network namespace.
func ForHost(log logrus.FieldLogger) *Links {
	return &Links{Bounds: DefaultBounds(), Log: log, Find: func() ([]Shim, error) {
		found, err := xdp.FindAll()
		shims := make([]Shim, len(found))
		for i, s := range found {
			shims[i] = s
		}
		return shims, err
	}}
}

// Hold turns all links to the kernel, and keeps the agent from turning them
// back. It goes on after an error; n is how many are held, changed how many of
// these were not before.
func (l *Links) Hold() (n, changed int, err error) {
	shims, err := l.Find()
	errs := []error{err}
	for _, s := range shims {
		mode, err := s.Mode()
		if err == nil && mode != xdp.ModeHeld {
			if err = s.SetMode(xdp.ModeHeld); err == nil {
				changed++
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: XDP shim: %w", s.LinkName(), err))
		} else {
			n++
		}
		_ = s.Close()
	}
	return n, changed, errors.Join(errs...)
}

// Drain holds all links, sees to it that they stay held, and waits until VPP
// has sent on what it had received. rx may be nil. An error says that a link
// may still lead to VPP.
func (l *Links) Drain(ctx context.Context, rx Counter) (Report, error) {
	begin := time.Now()
	var r Report
	var err error
	// The agent may have been about to switch a link to VPP: two looks in a
	// row must find nothing to do.
	for calm := 0; calm < 2; {
		var changed int
		r.Links, changed, err = l.Hold()
		if err == nil && changed == 0 {
			calm++
		} else {
			calm = 0
		}
		if calm == 2 {
			break
		}
		if time.Since(begin) >= l.Bounds.Hold || !pause(ctx, l.Bounds.Pause) {
			if err == nil {
				err = fmt.Errorf("links keep being switched to VPP: %d changed at the last look", changed)
			}
			break
		}
	}
	r.Quiet = l.settle(ctx, rx)
	r.Took = time.Since(begin)
	return r, err
}

// settle waits until VPP receives nothing any more.
func (l *Links) settle(ctx context.Context, rx Counter) (quiet bool) {
	if rx == nil {
		pause(ctx, l.Bounds.Least)
		return false
	}
	const step = 10 * time.Millisecond
	begin := time.Now()
	last, since := uint64(0), begin
	for pause(ctx, step) {
		n, err := rx()
		if err != nil || n != last {
			last, since = n, time.Now()
		}
		switch spent := time.Since(begin); {
		case spent >= l.Bounds.Least && err == nil && time.Since(since) >= l.Bounds.Still:
			return true
		case spent >= l.Bounds.Most, err != nil && spent >= l.Bounds.Least:
			return false
		}
	}
	return false
}

// pause waits, and reports whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
