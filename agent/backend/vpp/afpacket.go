package vpp

import (
	"fmt"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// afPacket shares a kernel link through a packet socket: the kernel gets a copy
// of every frame.
type afPacket struct{}

func (afPacket) group() binapi.Group { return binapi.GroupAFPacket }
func (afPacket) devType() string     { return "af-packet" }

func (afPacket) plan(a *applier, name string, want dataplane.Interface) (p plan, fatal, err error) {
	if want.Role == dataplane.RoleUplink {
		if h, ok := a.view.anyOn(name); ok && linkExists(h.tag.ifindex) && !sameQueues(h.tag.rx, want.Rx) {
			return p, nil, fmt.Errorf("%w: rx queues and rings of uplink %q: VPP cannot make its af_packet interface anew without taking the host's link down: restart VPP",
				dataplane.ErrUnsupported, name)
		}
	}
	return a.planHostLink(name, want)
}

func (afPacket) recognise(i binapi.Interface, name string) bool { return i.Name == "host-"+name }

func (afPacket) attach(a *applier, p plan) (i binapi.Interface, fatal, err error) {
	fatal, err = a.do(binapi.AFPacketCreate(binapi.AFPacket{
		Link: p.name, MAC: binapi.MAC(p.mac),
		Queues: uint16(p.want.Rx.Queues), Ring: p.want.Rx.Ring, TxRing: p.want.Rx.TxRing,
	}, &i.Index))
	i.MAC = binapi.MAC(p.mac)
	return i, fatal, err
}

func (afPacket) configure(a *applier, h held, p plan) (fatal, err error) { return a.settle(h, p) }

func (afPacket) intact(_ *Backend, h held) bool {
	link, err := findLink(h.tag.name)
	return err == nil && link.intact(h)
}

func (afPacket) stale(h held, p plan) bool { return !sameQueues(h.tag.rx, p.want.Rx) }

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
		if uerr := bringUp(h.tag.name, h.tag.ifindex); err == nil {
			err = uerr
		}
	}
	return fatal, err
}

// park turns an interface on an uplink off and keeps it for the next time.
func (afPacket) park(a *applier, h held) (fatal, err error) {
	h.tag = tag{role: roleParked, name: h.tag.name, ifindex: h.tag.ifindex, rx: h.tag.rx}
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
