package vpp

import (
	"fmt"
	"strings"
	"time"

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
	v := dataplane.Interface{Role: dataplane.InterfaceRole(h.tag.role), MTU: uint16(h.MTU), MAC: dataplane.MAC(h.MAC)}
	link, err := findLink(h.tag.name)
	switch {
	case err != nil || link.index != h.tag.ifindex || !h.AdminUp || !link.up,
		v.Role == dataplane.RoleUplink && h.tag.has(flagMACAsIs) && link.mac != v.MAC,
		v.Role == dataplane.RoleUplink && h.tag.has(flagMTUAsIs) && link.mtu != int(h.MTU),
		v.Role == dataplane.RolePod && (link.mac != v.MAC || link.mtu != int(h.MTU)):
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
		var fatal, err error
		if ch.Op == dataplane.OpDelete {
			fatal, err = a.removeInterface(name)
		} else {
			fatal, err = a.setInterface(name, ch.New.(dataplane.Interface))
		}
		if fatal != nil {
			return fatal
		}
		a.fail(ch, err)
	}
	return nil
}

func (a *applier) driver(role dataplane.InterfaceRole) string {
	if role == dataplane.RoleUplink {
		return a.opts.UplinkDriver
	}
	return a.opts.PodDriver
}

// setInterface makes VPP use a link, or brings an interface that does into line.
func (a *applier) setInterface(name string, want dataplane.Interface) (fatal, err error) {
	if want.Role != dataplane.RoleUplink && want.Role != dataplane.RolePod {
		return nil, fmt.Errorf("%w: role %q", dataplane.ErrUnsupported, want.Role)
	}
	link, err := findLink(name)
	if err != nil {
		return nil, fmt.Errorf("%w: link %q: %w", dataplane.ErrNotReady, name, err)
	}
	switch {
	case want.Role == dataplane.RolePod:
		if fatal, err := a.ensureLoopback(); fatal != nil || err != nil {
			return fatal, err
		}
		if link, err = preparePodLink(link, want, a.opts.PodDriver == DriverAFPacket); err != nil {
			return nil, fmt.Errorf("link %q: %w", name, err)
		}
	case !link.up:
		return nil, fmt.Errorf("%w: link %q is down", dataplane.ErrNotReady, name)
	case !want.MAC.IsZero() && want.MAC != link.mac:
		// VPP would change the host's own address with it.
		return nil, fmt.Errorf("%w: MAC %s: link %q has %s, and its address is the host's to choose", dataplane.ErrUnsupported, want.MAC, name, link.mac)
	}
	mac, mtu := want.MAC, want.MTU
	t := tag{role: string(want.Role), name: name, ifindex: link.index}
	if mac.IsZero() {
		mac, t = link.mac, t.with(flagMACAsIs, true)
	}
	if mtu == 0 {
		mtu, t = uint16(min(link.mtu, 65535)), t.with(flagMTUAsIs, true)
	}

	if p, ok := a.view.parked[name]; ok {
		// It is set up anew below, whatever it was.
		a.view.byName[name], a.view.byIndex[p.Index] = p, name
		delete(a.view.parked, name)
	}
	h, ok := a.view.byName[name]
	if ok && h.tag.role == roleParked && h.tag.ifindex == link.index && t.role == string(dataplane.RoleUplink) {
		h.tag.role = t.role
	}
	if ok && (h.tag.ifindex != link.index || h.tag.role != t.role) {
		if fatal, err := a.removeInterface(name); fatal != nil || err != nil {
			return fatal, err
		}
		ok = false
	}
	if !ok {
		if fatal, err := a.createInterface(link, t, mac); fatal != nil || err != nil {
			return fatal, err
		}
		h = a.view.byName[name]
	}
	fatal, err = a.configure(h, t, mac, mtu)
	if fatal == nil && err == nil {
		h.tag = t
		a.view.byName[name] = h
	}
	return fatal, err
}

// createInterface makes the interface and tags it at once: from then on a
// fresh instance finds it, however far this one gets.
func (a *applier) createInterface(link linkInfo, t tag, mac dataplane.MAC) (fatal, err error) {
	driver := a.driver(dataplane.InterfaceRole(t.role))
	index, err := a.halfMade(driver, link.name)
	if err != nil {
		return nil, err
	}
	if index == binapi.NoInterface {
		if fatal, err := a.attach(driver, link.name, mac, &index); fatal != nil || err != nil {
			return fatal, err
		}
	}
	if fatal, err := a.do(binapi.InterfaceSetTag(index, t.String())); fatal != nil || err != nil {
		return fatal, err
	}
	h := held{binapi.Interface{Index: index, DevType: devType(driver)}, t}
	if driver == DriverAFPacket {
		h.MAC = binapi.MAC(mac)
	}
	a.view.byName[link.name], a.view.byIndex[index] = h, link.name
	return nil, nil
}

// attach makes VPP's interface on a link. The kernel frees the queue of a closed
// AF_XDP socket a moment after it is closed, so a link that VPP has just left
// is tried a few times.
func (a *applier) attach(driver, link string, mac dataplane.MAC, out *binapi.Index) (fatal, err error) {
	if driver == DriverAFPacket {
		return a.do(binapi.AFPacketCreate(link, binapi.MAC(mac), out))
	}
	const tries, pause = 10, 20 * time.Millisecond
	for i := 1; ; i++ {
		fatal, err = a.do(binapi.AFXDPCreate(link, out))
		if fatal != nil || binapi.Retval(err) != binapi.RetvalXDPSocket || i == tries {
			return fatal, err
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err(), nil
		case <-time.After(pause):
		}
	}
}

// VPP's names of the drivers.
const (
	devAFPacket = "af-packet"
	devAFXDP    = "AF_XDP interface"
)

func devType(driver string) string {
	if driver == DriverAFPacket {
		return devAFPacket
	}
	return devAFXDP
}

// halfMade finds an interface on the link that was created and never tagged nor
// brought up: an instance ended in between. One that is up is somebody else's,
// and is left alone.
func (a *applier) halfMade(driver, link string) (binapi.Index, error) {
	for _, i := range a.view.others {
		packet := i.DevType == devAFPacket && i.Name == "host-"+link
		xdp := i.DevType == devAFXDP && strings.HasPrefix(i.Name, link+"/")
		switch {
		case !packet && !xdp:
		case i.AdminUp || i.Tag != "" || packet != (driver == DriverAFPacket):
			return 0, fmt.Errorf("VPP's interface %s uses the link already and was not made by this program; remove it in VPP", i.Name)
		default:
			return i.Index, nil
		}
	}
	return binapi.NoInterface, nil
}

// configure brings everything about an interface to what is wanted. All of it
// can be repeated. IPv6 comes before up, and the suppression of router
// advertisements right with it: VPP would send them at once.
func (a *applier) configure(h held, t tag, mac dataplane.MAC, mtu uint16) (fatal, err error) {
	calls := []*binapi.Call{binapi.InterfaceSetMTU(h.Index, uint32(mtu))}
	if dataplane.MAC(h.MAC) != mac {
		calls = append(calls, binapi.InterfaceSetMAC(h.Index, binapi.MAC(mac)))
	}
	if t.role == string(dataplane.RolePod) {
		calls = append(calls, binapi.InterfaceSetUnnumbered(h.Index, a.view.lo.Index))
	}
	ip6 := binapi.InterfaceEnableIP6(h.Index)
	calls = append(calls, ip6, binapi.InterfaceSuppressRA(h.Index))
	interrupt := binapi.InterfaceSetInterrupt(h.Index)
	calls = append(calls, interrupt, binapi.InterfaceSetUp(h.Index, true), binapi.InterfaceSetTag(h.Index, t.String()))
	if fatal := a.c.Do(a.ctx, calls...); fatal != nil {
		return fatal, nil
	}
	for _, call := range calls {
		switch {
		case call.Err == nil:
		case call == interrupt:
			// Polling works as well; it costs a core.
			a.log.WithError(call.Err).WithField("interface", t.name).Warn("VPP polls this interface: interrupt mode was refused")
		case call == ip6 && binapi.Retval(call.Err) == binapi.RetvalValueExists:
			// On already.
		default:
			return nil, call.Err
		}
	}
	return nil, nil
}

// removeInterface takes VPP off a link. The link stays as it is.
func (a *applier) removeInterface(name string) (fatal, err error) {
	h, ok := a.view.byName[name]
	if !ok {
		return nil, nil
	}
	pod := h.tag.role == string(dataplane.RolePod)
	packet := h.DevType == devAFPacket
	var calls []*binapi.Call
	switch {
	case packet && !pod && linkExists(h.tag.ifindex):
		h.tag = tag{role: roleParked, name: name, ifindex: h.tag.ifindex}
		calls = append(calls, binapi.InterfaceSetTag(h.Index, h.tag.String()), binapi.InterfaceDisableIP6(h.Index))
	case packet:
		calls = append(calls, binapi.InterfaceSetUnnumbered(h.Index, binapi.NoInterface), binapi.AFPacketDelete(name))
	default:
		calls = append(calls, binapi.InterfaceSetUp(h.Index, false), binapi.InterfaceSetUnnumbered(h.Index, binapi.NoInterface), binapi.AFXDPDelete(h.Index))
	}
	if fatal := a.c.Do(a.ctx, calls...); fatal != nil {
		return fatal, nil
	}
	if err := calls[len(calls)-1].Err; err != nil && h.tag.role != roleParked {
		return nil, err
	}
	delete(a.view.byName, name)
	delete(a.view.byIndex, h.Index)
	if h.tag.role == roleParked {
		a.view.parked[name] = h
		return nil, calls[0].Err
	}
	if pod && packet {
		return nil, restorePodLink(name, h.tag.ifindex)
	}
	return nil, nil
}
