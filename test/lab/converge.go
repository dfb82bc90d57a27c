package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
)

const pollInterval = 50 * time.Millisecond

// poll calls check until it gives nil. When the context ends first, or a process
// of the lab does, the error says what was waited for.
func (l *Lab) poll(ctx context.Context, check func(context.Context) error) error {
	return l.pollEvery(ctx, pollInterval, check)
}

func (l *Lab) pollEvery(ctx context.Context, interval time.Duration, check func(context.Context) error) error {
	var last error
	for {
		for _, n := range l.Nodes() {
			if err := n.alive(); err != nil {
				return err
			}
		}
		// A call that the deadline cuts short tells less than the one before.
		if err := check(ctx); err == nil {
			return nil
		} else if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("waited too long: %w", last)
		case <-time.After(interval):
		}
	}
}

// ReadyTimeout and ConvergeTimeout bound the waiting where the caller's context
// has no earlier deadline.
const (
	ReadyTimeout    = 30 * time.Second
	ConvergeTimeout = 60 * time.Second
)

func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ReadyTimeout)
	defer cancel()
	err := n.lab.poll(ctx, func(ctx context.Context) error {
		cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return n.client.Ready(cctx)
	})
	if err != nil {
		return fmt.Errorf("agent of %s: not ready: %w; its log is %s", n.Name, err, n.logPath("agent"))
	}
	return nil
}

// WaitConverged waits until every agent's dataplane holds what it wants, and
// that is one policy for each other node and family, with the prefixes of its
// Node object steered into it, the routers know every locator, and VPP carries
// the traffic of every node on which it runs.
func (l *Lab) WaitConverged(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ConvergeTimeout)
	defer cancel()
	return l.poll(ctx, func(ctx context.Context) error {
		nodes := l.Nodes()
		want, err := l.steeredPrefixes(nodes)
		if err != nil {
			return err
		}
		announced := l.fabric.Announced()
		for _, n := range nodes {
			cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			s, err := n.Status(cctx)
			cancel()
			if err != nil {
				return fmt.Errorf("status of %s: %w", n.Name, err)
			}
			if err := errors.Join(converged(s, n, want), active(s, n)); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if err := routed(s, n, announced); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
		}
		if have := len(announced); have != len(nodes) {
			return fmt.Errorf("routers know %d locators of %d nodes", have, len(nodes))
		}
		return nil
	})
}

// converged says what is missing in a node's status.
func converged(s status.Status, self *Node, want map[*Node][]string) error {
	switch {
	case !s.Ready:
		return fmt.Errorf("not ready: %s", s.Reason)
	case !s.Source.Synced:
		return fmt.Errorf("source not synced %v", s.Source.Errors)
	case s.Locator == "":
		return errors.New("no locator")
	}
	if policies := 2 * (len(want) - 1); len(s.Policies) != policies {
		why := ""
		if len(s.Problems) > 0 {
			why = "; " + s.Problems[0].String()
		}
		return fmt.Errorf("%d of %d policies%s", len(s.Policies), policies, why)
	}
	for other, prefixes := range want {
		if other == self {
			continue
		}
		for _, cidr := range prefixes {
			if !steered(s.Policies, cidr) {
				return fmt.Errorf("no policy for %s of %s", cidr, other.Name)
			}
		}
	}
	if self.Dataplane != config.DataplaneVPP {
		return held(s.Reconcile)
	}
	// The kernel is ready at any time, VPP where it runs.
	if s.Standby == nil {
		return errors.New("the status does not tell of the kernel beside VPP")
	}
	if err := held(*s.Standby); err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if !self.RunsVPP() {
		return nil
	}
	return held(s.Reconcile)
}

// held says what a dataplane does not hold as wanted.
func held(r status.Reconcile) error {
	switch {
	case r.Error != "":
		return fmt.Errorf("dataplane: %s", r.Error)
	case len(r.Failing) > 0:
		f := r.Failing[0]
		return fmt.Errorf("%d objects fail, the first: %s: %s", len(r.Failing), f.Key, f.Reason)
	}
	for _, u := range r.Unsupported {
		// A setting that a dataplane cannot hold is known and does no harm; a
		// route or a policy would.
		if !strings.HasPrefix(u.Key, "setting/") {
			return fmt.Errorf("%s is not supported: %s", u.Key, u.Reason)
		}
	}
	if !r.InSync {
		return errors.New("not in sync")
	}
	return nil
}

func steered(policies []status.Policy, prefix string) bool {
	return slices.ContainsFunc(policies, func(p status.Policy) bool {
		return slices.Contains(p.Prefixes, prefix)
	})
}

// routed says what the routers do not know yet of a node's locator: where it is,
// or by which of the node's addresses.
func routed(s status.Status, n *Node, announced map[netip.Prefix]fabric.Announcement) error {
	locator, err := netip.ParsePrefix(s.Locator)
	if err != nil {
		return fmt.Errorf("locator: %w", err)
	}
	source, err := netip.ParseAddr(s.EncapSource)
	if err != nil {
		return fmt.Errorf("encapsulation source: %w", err)
	}
	want := fabric.Announcement{Node: n.ID, Via: fabric.Via(n.ID, source)}
	if have := announced[locator]; have != want {
		return fmt.Errorf("routers do not know locator %s by way of %s yet", locator, want.Via)
	}
	return nil
}
