package vpp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// afXDP has a kernel link through AF_XDP sockets. With Options.Shim VPP puts the
// XDP shim on the link, and gets what that gives it; the kernel gets the rest.
//
// The tag's detail is the number of the program that VPP put on the link: an
// interface whose link has another one, or none, gets no packets any more.
type afXDP struct{}

func (afXDP) group() binapi.Group { return binapi.GroupAFXDP }
func (afXDP) devType() string     { return "AF_XDP interface" }

func (afXDP) plan(a *applier, name string, want dataplane.Interface) (p plan, fatal, err error) {
	if p, fatal, err = a.planHostLink(name, want); fatal != nil || err != nil {
		return p, fatal, err
	}
	return p, nil, a.checkProgram(p.link, want.Role, a.view.byName[name].tag.detail)
}

func (afXDP) recognise(i binapi.Interface, name string) bool {
	return strings.HasPrefix(i.Name, name+"/")
}

// defaultProgram is the one that VPP has attached where it was given none
// (libxdp's), and that stays behind when VPP dies.
const defaultProgram = `"xsk_def_prog"`

// checkProgram refuses a link with an XDP program of somebody else's: VPP takes
// off whichever is there. ours is the number of one that is known; what a VPP
// left behind, on a link that is all ours, is no obstacle.
func (a *applier) checkProgram(link linkInfo, role dataplane.InterfaceRole, ours string) error {
	if a.opts.Shim == "" || link.program == 0 || programOf(link) == ours {
		return nil
	}
	shim, err := xdp.Find(link.index)
	switch {
	case err == nil:
		return shim.Close()
	case errors.Is(err, xdp.ErrNoShim):
		return nil // taken off since
	case !errors.Is(err, xdp.ErrForeignProgram):
		return err
	case role == dataplane.RolePod && strings.Contains(err.Error(), defaultProgram):
		return nil
	}
	return fmt.Errorf("%w: %w; VPP would put its own in that place: take it off (ip link set dev %s xdp off) or, for an uplink, name another or use af_packet",
		dataplane.ErrUnsupported, err, link.name)
}

// attach makes VPP's interface on a link. The kernel frees the queue of a closed
// AF_XDP socket a moment after it is closed, so a link that VPP has just left
// is tried a few times.
func (afXDP) attach(a *applier, p plan) (i binapi.Interface, fatal, err error) {
	x := binapi.AFXDP{
		Link: p.name, Program: a.opts.Shim,
		Queues: uint16(p.want.Rx.Queues), Ring: p.want.Rx.Ring, TxRing: p.want.Rx.TxRing,
	}
	if p.want.Role == dataplane.RoleUplink {
		if x.Queues == 0 {
			x.Queues = binapi.AFXDPAllQueues
		}
	} else {
		// There are many pods: see binapi.BuffersPerAFXDPQueue.
		x.Ring, x.TxRing = orDefault(x.Ring, binapi.AFXDPPodRing), orDefault(x.TxRing, binapi.AFXDPPodRing)
	}
	if a.opts.Shim != "" {
		// Its folder is VPP's, and may have gone with VPP.
		if err := xdp.WriteObject(a.opts.Shim); err != nil {
			return i, nil, err
		}
	}
	a.stall()
	const tries, pause = 10, 20 * time.Millisecond
	for n := 1; ; n++ {
		call, err := binapi.AFXDPCreate(x, &i.Index)
		if err != nil {
			return i, nil, err
		}
		fatal, err = a.do(call)
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

func orDefault(n, otherwise uint16) uint16 {
	if n == 0 {
		return otherwise
	}
	return n
}

func (afXDP) configure(a *applier, h held, p plan) (fatal, err error) {
	link, err := findLink(p.name)
	if err != nil {
		return nil, fmt.Errorf("%w: link %q: %w", dataplane.ErrNotReady, p.name, err)
	}
	if link.program == 0 {
		return nil, fmt.Errorf("%w: link %q has no XDP program, though VPP put one on it", dataplane.ErrNotReady, p.name)
	}
	p.tag.detail = programOf(link)
	return a.settle(h, p)
}

// programOf is short: the kernel's numbers go on to 32 bits, and a tag has little
// room.
func programOf(l linkInfo) string { return strconv.FormatUint(uint64(l.program), 36) }

func (afXDP) intact(_ *Backend, h held) bool {
	link, err := findLink(h.tag.name)
	return err == nil && link.intact(h) && programOf(link) == h.tag.detail
}

func (afXDP) stale(h held, p plan) bool {
	return !sameQueues(h.tag.rx, p.want.Rx) || p.link.program == 0 || programOf(p.link) != h.tag.detail
}

// remove takes VPP off the link, which stays as it is.
func (afXDP) remove(a *applier, h held) (fatal, err error) {
	if link, err := findLink(h.tag.name); err == nil && link.index == h.tag.ifindex {
		if err := a.checkProgram(link, dataplane.InterfaceRole(h.tag.role), h.tag.detail); err != nil {
			return nil, err
		}
	}
	a.stall()
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
