package vpp

import (
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// afXDP has a kernel link through AF_XDP sockets.
type afXDP struct{}

func (afXDP) group() binapi.Group { return binapi.GroupAFXDP }
func (afXDP) devType() string     { return "AF_XDP interface" }

func (afXDP) plan(a *applier, name string, want dataplane.Interface) (p plan, fatal, err error) {
	return a.planHostLink(name, want)
}

func (afXDP) recognise(i binapi.Interface, name string) bool {
	return strings.HasPrefix(i.Name, name+"/")
}

// attach makes VPP's interface on a link. The kernel frees the queue of a closed
// AF_XDP socket a moment after it is closed, so a link that VPP has just left
// is tried a few times.
func (afXDP) attach(a *applier, p plan) (i binapi.Interface, fatal, err error) {
	const tries, pause = 10, 20 * time.Millisecond
	for n := 1; ; n++ {
		fatal, err = a.do(binapi.AFXDPCreate(p.name, &i.Index))
		if fatal != nil || binapi.Retval(err) != binapi.RetvalXDPSocket || n == tries {
			return i, fatal, err
		}
		select {
		case <-a.ctx.Done():
			return i, a.ctx.Err(), nil
		case <-time.After(pause):
		}
	}
}

func (afXDP) configure(a *applier, h held, p plan) (fatal, err error) { return a.settle(h, p) }
func (afXDP) intact(_ *Backend, h held) bool                          { return linkIntact(h) }
func (afXDP) stale(h held, p plan) bool                               { return !sameQueues(h.tag.rx, p.want.Rx) }

// remove takes VPP off the link, which stays as it is.
func (afXDP) remove(a *applier, h held) (fatal, err error) {
	fatal = a.c.Do(a.ctx, binapi.InterfaceSetUp(h.Index, false), binapi.InterfaceSetUnnumbered(h.Index, binapi.NoInterface))
	if fatal != nil {
		return fatal, nil
	}
	if fatal, err := a.do(binapi.AFXDPDelete(h.Index)); fatal != nil || err != nil {
		return fatal, err
	}
	a.forget(h)
	return nil, nil
}
