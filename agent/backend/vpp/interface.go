package vpp

import (
	"fmt"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// loName is the state's name of the loopback.
const loName = "lo"

// needsRepair is the MTU that an interface is reported with when VPP does not
// hold it as it was made: it is nobody's wish, so the interface is set up again.
const needsRepair = 1

// interfaceValue reads an interface back, as it was asked for.
func (b *Backend) interfaceValue(h held) dataplane.Interface {
	v := dataplane.Interface{Role: dataplane.InterfaceRole(h.tag.role), MTU: uint16(h.MTU), MAC: dataplane.MAC(h.MAC), Rx: h.tag.rx}
	b.noteLink(h.tag.name, v.Role)
	d, ok := driverOf(h.Interface)
	if wanted, err := b.driverFor(v.Role); !ok || err != nil || d != wanted || !h.AdminUp || !h.receivesAs() || !d.intact(b, h) {
		v.MTU = needsRepair
		return v
	}
	if h.tag.has(flagMACAsIs) {
		v.MAC = dataplane.MAC{}
	}
	if h.tag.has(flagMTUAsIs) {
		v.MTU = 0
	}
	return v
}

// interfaces sets up or removes interfaces one after the other: each takes
// several steps that build on one another.
func (a *applier) interfaces(changes []dataplane.Change) error {
	for _, ch := range changes {
		name := string(ch.Key.(dataplane.InterfaceKey))
		want, _ := ch.New.(dataplane.Interface)
		var fatal, err error
		switch {
		case ch.Op == dataplane.OpDelete && a.view.memifs.has(name):
			fatal, err = a.removeMemif(name)
		case ch.Op == dataplane.OpDelete:
			fatal, err = a.removeInterface(name)
		case want.Role == dataplane.RoleMemif:
			fatal, err = a.setMemif(name, want)
		default:
			fatal, err = a.setInterface(name, want)
		}
		if fatal != nil {
			return fatal
		}
		a.fail(ch, err)
	}
	return a.followVeths(changes)
}

// setInterface makes VPP have an interface, or brings one that it has into line.
func (a *applier) setInterface(name string, want dataplane.Interface) (fatal, err error) {
	d, err := a.driverFor(want.Role)
	if err != nil {
		return nil, err
	}
	if err := checkRx(want.Rx); err != nil {
		return nil, err
	}
	p, fatal, err := d.plan(a, name, want)
	if fatal != nil || err != nil {
		return fatal, err
	}
	p.tag.rx = want.Rx
	if parked, ok := a.view.parked[name]; ok {
		// It is set up anew below, whatever it was.
		a.view.byName[name], a.view.byIndex[parked.Index] = parked, name
		delete(a.view.parked, name)
	}
	h, ok := a.view.byName[name]
	if ok && h.tag.role == roleParked && p.tag.role == string(dataplane.RoleUplink) {
		h.tag.role = p.tag.role
	}
	var back carried
	old := h.Index
	if ok && (h.tag.ifindex != p.tag.ifindex || h.tag.role != p.tag.role || h.DevType != d.devType() || d.stale(h, p)) {
		if back, fatal = a.takeOff(old); fatal != nil {
			return fatal, nil
		}
		if fatal, err := a.removeInterface(name); fatal != nil || err != nil {
			return fatal, err
		}
		ok = false
	}
	if !ok {
		if h, fatal, err = a.createInterface(d, p); fatal != nil || err != nil {
			return fatal, err
		}
	}
	fatal, err = d.configure(a, h, p)
	if fatal == nil && err == nil {
		h.tag = p.tag
		a.view.byName[name] = h
		a.noteLink(name, want.Role)
		return a.putBack(back, old, h.Index)
	}
	return fatal, err
}

// createInterface makes the interface and tags it at once: from then on a
// fresh instance finds it, however far this one gets.
func (a *applier) createInterface(d driver, p plan) (h held, fatal, err error) {
	i, err := a.halfMade(d, p.name)
	if err != nil {
		return held{}, nil, err
	}
	if i.Index == binapi.NoInterface {
		if i, fatal, err = d.attach(a, p); fatal != nil || err != nil {
			return held{}, fatal, err
		}
		i.DevType = d.devType()
	}
	if fatal, err := a.do(binapi.InterfaceSetTag(i.Index, p.tag.String())); fatal != nil || err != nil {
		return held{}, fatal, err
	}
	h = held{Interface: i, tag: p.tag}
	a.view.byName[p.name], a.view.byIndex[i.Index] = h, p.name
	return h, nil, nil
}

// halfMade finds an interface that was created by this name and never tagged nor
// brought up: an instance ended in between. One that is up is somebody else's,
// and is left alone.
func (a *applier) halfMade(d driver, name string) (binapi.Interface, error) {
	for _, i := range a.view.others {
		of, ok := driverOf(i)
		switch {
		case !ok || !of.recognise(i, name):
		case i.AdminUp || i.Tag != "" || of != d:
			return i, fmt.Errorf("VPP's interface %s uses the link already and was not made by this program; remove it in VPP", i.Name)
		default:
			return i, nil
		}
	}
	return binapi.Interface{Index: binapi.NoInterface}, nil
}

// settle is what every interface needs, and more calls of its driver's before it
// comes up. IPv6 comes before up, and the suppression of router advertisements
// right with it: VPP would send them at once.
func (a *applier) settle(h held, p plan, more ...*binapi.Call) (fatal, err error) {
	calls := []*binapi.Call{binapi.InterfaceSetMTU(h.Index, uint32(p.mtu))}
	if dataplane.MAC(h.MAC) != p.mac && !p.mac.IsZero() {
		calls = append(calls, binapi.InterfaceSetMAC(h.Index, binapi.MAC(p.mac)))
	}
	if p.want.Role != dataplane.RoleUplink {
		calls = append(calls, binapi.InterfaceSetUnnumbered(h.Index, a.view.lo.Index))
	}
	ip6 := binapi.InterfaceEnableIP6(h.Index)
	calls = append(calls, ip6, binapi.InterfaceSuppressRA(h.Index))
	calls = append(calls, more...)
	rx := binapi.InterfaceSetRxMode(h.Index, rxModes()[p.want.Rx.Mode])
	calls = append(calls, rx, binapi.InterfaceSetUp(h.Index, true), binapi.InterfaceSetTag(h.Index, p.tag.String()))
	if fatal := a.c.Do(a.ctx, calls...); fatal != nil {
		return fatal, nil
	}
	var refused error
	for _, call := range calls {
		switch {
		case call.Err == nil:
		case call == rx:
			refused = call.Err
		case call == ip6 && binapi.Retval(call.Err) == binapi.RetvalValueExists:
			// On already.
		default:
			return nil, call.Err
		}
	}
	if refused != nil {
		return a.withoutRxMode(h, p, refused)
	}
	return nil, nil
}

// removeInterface takes VPP off an interface.
func (a *applier) removeInterface(name string) (fatal, err error) {
	h, ok := a.view.byName[name]
	if !ok {
		return nil, nil
	}
	d, ok := driverOf(h.Interface)
	if !ok {
		return nil, fmt.Errorf("%w: VPP's interface %s has driver %q, which this program does not know; remove it in VPP", dataplane.ErrUnsupported, h.Name, h.DevType)
	}
	return d.remove(a, h)
}

// forget takes an interface out of the view: it is gone from VPP.
func (a *applier) forget(h held) {
	delete(a.view.byName, h.tag.name)
	delete(a.view.byIndex, h.Index)
	a.links.forget(h.tag.ifindex)
}
