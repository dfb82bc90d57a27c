package traffic

import (
	"context"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/xdp"
)

const (
	// guardEvery is how often the links are looked at when no event tells of a
	// change: a program that is put on a link as a BPF link sends none.
	guardEvery = time.Second
	// guardPause lets a burst of events pass: 110 pods come at once.
	guardPause = 20 * time.Millisecond
)

// Guard turns all links to the kernel when the process dies, or this one, with
// which VPP dies: in that moment (see xdp.Guard), until ctx ends. Where the kernel
// cannot do that, links lead to the dead process until its sockets are closed; the
// log says so.
func (l *Links) Guard(ctx context.Context, pid int) {
	var guards []*xdp.Guard
	for _, p := range []int{pid, os.Getpid()} {
		g, err := xdp.NewGuard(p)
		if err != nil {
			l.Log.WithError(err).Warn("When VPP is killed the kernel takes over only when VPP's memory is freed: some tens of packets later")
			break
		}
		defer g.Close()
		guards = append(guards, g)
	}
	if len(guards) == 0 {
		return
	}
	updates := make(chan netlink.LinkUpdate, 256)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		l.Log.WithError(err).Debug("Link events")
		updates = nil
	}
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	said := ""
	for {
		if err := cover(guards); err != nil && err.Error() != said {
			said = err.Error()
			l.Log.WithError(err).Warn("Some links stay with VPP for some time when it is killed")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case _, ok := <-updates:
			if !ok {
				updates = nil
			}
			if !pause(ctx, guardPause) {
				return
			}
			for drained := updates == nil; !drained; {
				select {
				case _, ok := <-updates:
					drained = !ok
				default:
					drained = true
				}
			}
		}
	}
}

func cover(guards []*xdp.Guard) error {
	shims, err := xdp.FindAll()
	for _, g := range guards {
		if cerr := g.Cover(shims); err == nil {
			err = cerr
		}
	}
	for _, s := range shims {
		_ = s.Close()
	}
	return err
}
