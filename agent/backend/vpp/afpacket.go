package vpp

import (
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// afPacket shares a kernel link through a packet socket: the kernel gets a copy
// of every frame.
type afPacket struct{}

func (afPacket) group() binapi.Group { return binapi.GroupAFPacket }
func (afPacket) devType() string     { return "af-packet" }

func (afPacket) plan(a *applier, name string, want dataplane.Interface) (p plan, fatal, err error) {
	return a.planHostLink(name, want)
}

func (afPacket) recognise(i binapi.Interface, name string) bool { return i.Name == "host-"+name }

func (afPacket) attach(a *applier, p plan) (i binapi.Interface, fatal, err error) {
	fatal, err = a.do(binapi.AFPacketCreate(p.name, binapi.MAC(p.mac), &i.Index))
	i.MAC = binapi.MAC(p.mac)
	return i, fatal, err
}

func (afPacket) configure(a *applier, h held, p plan) (fatal, err error) { return a.settle(h, p) }
func (afPacket) intact(_ *Backend, h held) bool                          { return linkIntact(h) }
func (afPacket) stale(held, plan) bool                                   { return false }

// remove takes VPP off the link. With its interface VPP takes the kernel's link
// down: a pod's is brought up again at once, as the kernel may carry the pod's
// packets; an uplink's is never removed, but parked.
func (p afPacket) remove(a *applier, h held) (fatal, err error) {
	if h.tag.role != string(dataplane.RolePod) && linkExists(h.tag.ifindex) {
		return p.park(a, h)
	}
	pod := h.tag.role == string(dataplane.RolePod)
	if fatal := a.c.Do(a.ctx, binapi.InterfaceSetUnnumbered(h.Index, binapi.NoInterface)); fatal != nil {
		return fatal, nil
	}
	fatal, err = a.do(binapi.AFPacketDelete(h.tag.name))
	if fatal == nil && err == nil {
		a.forget(h)
	}
	if pod {
		// Also where no answer came: VPP may have done it.
		if rerr := restorePodLink(h.tag.name, h.tag.ifindex); err == nil {
			err = rerr
		}
	}
	return fatal, err
}

// park turns an interface on an uplink off and keeps it for the next time.
func (afPacket) park(a *applier, h held) (fatal, err error) {
	h.tag = tag{role: roleParked, name: h.tag.name, ifindex: h.tag.ifindex}
	fatal, err = a.do(binapi.InterfaceSetTag(h.Index, h.tag.String()))
	if fatal != nil || err != nil {
		return fatal, err
	}
	if fatal := a.c.Do(a.ctx, binapi.InterfaceDisableIP6(h.Index)); fatal != nil {
		return fatal, nil
	}
	a.forget(h)
	a.view.parked[h.tag.name] = h
	return nil, nil
}
