package vpp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// DriverDPDK: VPP drives the NIC itself, and the host has a veth behind VPP.
// vpp-manager gives VPP the NIC and joins the two.
const DriverDPDK = "dpdk"

// dedicated is a NIC of VPP's own. The host's frames pass VPP in layer 2, as
// through a wire; overlay packets are taken out of it on arrival (see overlay),
// and VPP's own leave by the NIC's interface in layer 3.
type dedicated struct{}

func (dedicated) group() binapi.Group { return binapi.GroupDPDK }
func (dedicated) devType() string     { return binapi.DevTypeDPDK }

// recognise: the manager marks the interface as one that waits for the agent;
// one without any mark is found by attach.
func (dedicated) recognise(binapi.Interface, string) bool { return false }

func (dedicated) plan(a *applier, name string, want dataplane.Interface) (p plan, fatal, err error) {
	if want.Role != dataplane.RoleUplink {
		return p, nil, fmt.Errorf("%w: role %q with driver %s", dataplane.ErrUnsupported, want.Role, DriverDPDK)
	}
	if _, err := a.wireOf(name); err != nil {
		return p, nil, err
	}
	return a.planHostLink(name, want)
}

// wireOf is what the manager told about an uplink. One that it has not given to
// VPP, or not yet, is dataplane.ErrNotReady.
func (b *Backend) wireOf(link string) (binapi.Wire, error) {
	m, err := node.ReadManager(filepath.Dir(b.opts.Socket))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return binapi.Wire{}, fmt.Errorf("link %q: %w", link, err)
	}
	for _, u := range m.Uplinks {
		if u.Link == link && u.Driver == DriverDPDK {
			return binapi.Wire{NIC: u.Interface, HostLink: u.HostLink}, nil
		}
	}
	return binapi.Wire{}, fmt.Errorf("%w: VPP does not have link %q for itself; start vpp-manager with --uplink %s=%s", dataplane.ErrNotReady, link, link, DriverDPDK)
}

// attach finds the NIC: it is there from VPP's start on.
func (dedicated) attach(a *applier, p plan) (i binapi.Interface, fatal, err error) {
	w, err := a.wireOf(p.name)
	if err != nil {
		return i, nil, err
	}
	for _, o := range a.view.others {
		if o.Name != w.NIC {
			continue
		}
		if o.Tag != "" {
			return i, nil, fmt.Errorf("VPP's interface %s has the tag %q of somebody else; remove it in VPP", o.Name, o.Tag)
		}
		return o, nil, nil
	}
	return i, nil, fmt.Errorf("%w: VPP has no interface %s: its log tells why the device was not taken", dataplane.ErrNotReady, w.NIC)
}

func (dedicated) configure(a *applier, h held, p plan) (fatal, err error) {
	w, err := a.wireOf(p.name)
	if err != nil {
		return nil, err
	}
	if _, err := binapi.EnsureWire(a.ctx, a.c, w); errors.Is(err, binapi.ErrDisconnected) {
		return err, nil
	} else if err != nil {
		return nil, err
	}
	return a.settle(h, p)
}

// intact: beside the link itself the wire is whole, and the overlay's packets
// are taken out of it.
func (dedicated) intact(b *Backend, h held) bool {
	if link, err := findLink(h.tag.name); err != nil || !link.intact(h) {
		return false
	}
	w, err := b.wireOf(h.tag.name)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := b.connect(ctx)
	if err != nil {
		return false
	}
	var interfaces []binapi.Interface
	var bridges []binapi.Bridge
	if do(ctx, c, binapi.Interfaces(&interfaces), binapi.Bridges(&bridges)) != nil || !w.State(interfaces, bridges).Whole() {
		return false
	}
	v := newView(interfaces)
	var to *fallback
	if f, ok := b.wantedFallback(v, interfaces); ok {
		to = &f
	}
	if d, err := compareFallback(ctx, c, to); err != nil || !d.none() {
		return false
	}
	o := overlay{b: b, c: c}
	have, err := o.read(ctx)
	if err != nil {
		return false
	}
	want, err := o.wanted(ctx, v)
	return err == nil && len(want) == len(have) && !slices.ContainsFunc(want, func(k binapi.Taking) bool { return !slices.Contains(have, k) })
}

func (dedicated) stale(held, plan) bool { return false }

// remove leaves the NIC to the host: the wire stays, and the interface waits
// for the next time.
func (dedicated) remove(a *applier, h held) (fatal, err error) {
	h.tag = tag{role: roleParked, name: h.tag.name, ifindex: h.tag.ifindex}
	fatal, err = a.do(binapi.InterfaceSetTake(h.Index, binapi.NoClassifyTable), binapi.InterfaceSetTag(h.Index, h.tag.String()))
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
