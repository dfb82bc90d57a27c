package vpp

import (
	"fmt"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// driver is how VPP has one kind of interface. It keeps no state: what it made
// is read back from VPP (the interface, its tag) and from the kernel.
//
// In the pairs (fatal, err) fatal is about the connection to VPP, and ends the
// whole Apply; err is this interface's alone.
type driver interface {
	// group of VPP's messages that it needs.
	group() binapi.Group
	// devType is VPP's name of the driver, in its list of interfaces. No two
	// drivers have the same.
	devType() string
	// plan checks what is wanted, brings the kernel's side into line, and says
	// how VPP's interface is to be. dataplane.ErrNotReady where something that
	// it needs is not there yet.
	plan(a *applier, name string, want dataplane.Interface) (p plan, fatal, err error)
	// recognise: this is what attach makes by this name. It is asked about
	// interfaces without a tag: the one who made it may have ended before it
	// was tagged.
	recognise(i binapi.Interface, name string) bool
	// attach makes the interface. It is tagged right afterwards.
	attach(a *applier, p plan) (i binapi.Interface, fatal, err error)
	// configure brings an interface that is there to what is planned, the tag
	// included (see applier.settle). All of it can be repeated.
	configure(a *applier, h held, p plan) (fatal, err error)
	// intact: VPP and the kernel have the interface as configure left it. One
	// that is not is reported with an MTU of needsRepair, and set up again.
	intact(b *Backend, h held) bool
	// stale: the interface cannot be brought to what is planned, and has to be
	// made anew.
	stale(h held, p plan) bool
	// remove takes VPP off the interface. What it leaves in VPP is out of the
	// view, or parked there.
	remove(a *applier, h held) (fatal, err error)
}

// plan is how an interface is to be in VPP.
type plan struct {
	name string
	want dataplane.Interface
	// link is the kernel's; zero for a driver that needs none.
	link linkInfo
	// mac and mtu, with what want leaves as it is filled in.
	mac dataplane.MAC
	mtu uint16
	tag tag
}

// drivers that there are, by the name that Options and the configuration use.
func drivers() map[string]driver {
	return map[string]driver{
		DriverAFPacket: afPacket{},
		DriverAFXDP:    afXDP{},
		DriverDPDK:     dedicated{},
	}
}

// driverNames of each role that has a choice.
func driverNames(role dataplane.InterfaceRole) []string {
	switch role {
	case dataplane.RoleUplink:
		return []string{DriverAFXDP, DriverAFPacket, DriverDPDK}
	case dataplane.RolePod:
		return []string{DriverAFXDP, DriverAFPacket}
	}
	return nil
}

// driverFor is the driver that interfaces of a role are made with.
func (b *Backend) driverFor(role dataplane.InterfaceRole) (driver, error) {
	name := ""
	switch role {
	case dataplane.RoleUplink:
		name = b.opts.UplinkDriver
	case dataplane.RolePod:
		name = b.opts.PodDriver
	}
	if d, ok := drivers()[name]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("%w: role %q", dataplane.ErrUnsupported, role)
}

// driverOf is the driver that an interface in VPP was made with: it need not be
// the one that is configured now.
func driverOf(i binapi.Interface) (driver, bool) {
	for _, d := range drivers() {
		if d.devType() == i.DevType {
			return d, true
		}
	}
	return nil, false
}
