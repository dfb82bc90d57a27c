package vpp

import (
	"fmt"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// hostLink is what the drivers have in common that share a kernel link: the
// host's uplink, or the host's end of a pod's veth.

// planHostLink finds the link and, where it is a pod's, brings it into line. An
// uplink belongs to the host, and is followed.
func (a *applier) planHostLink(name string, want dataplane.Interface) (p plan, fatal, err error) {
	link, err := findLink(name)
	if err != nil {
		return p, nil, fmt.Errorf("%w: link %q: %w", dataplane.ErrNotReady, name, err)
	}
	switch {
	case want.Role == dataplane.RolePod:
		if fatal, err := a.ensureLoopback(); fatal != nil || err != nil {
			return p, fatal, err
		}
		if link, err = preparePodLink(link, want, a.opts.PodDriver == DriverAFPacket); err != nil {
			return p, nil, fmt.Errorf("link %q: %w", name, err)
		}
	case !link.up:
		return p, nil, fmt.Errorf("%w: link %q is down", dataplane.ErrNotReady, name)
	case !want.MAC.IsZero() && want.MAC != link.mac:
		// VPP would change the host's own address with it.
		return p, nil, fmt.Errorf("%w: MAC %s: link %q has %s, and its address is the host's to choose", dataplane.ErrUnsupported, want.MAC, name, link.mac)
	}
	p = plan{name: name, want: want, link: link, mac: want.MAC, mtu: want.MTU}
	p.tag = tag{role: string(want.Role), name: name, ifindex: link.index}
	if p.mac.IsZero() {
		p.mac, p.tag = link.mac, p.tag.with(flagMACAsIs, true)
	}
	if p.mtu == 0 {
		p.mtu, p.tag = uint16(min(link.mtu, 65535)), p.tag.with(flagMTUAsIs, true)
	}
	return p, nil, nil
}

// linkIntact: the link is the one that VPP took, and both ends of it agree.
func linkIntact(h held) bool {
	link, err := findLink(h.tag.name)
	if err != nil || link.index != h.tag.ifindex || !link.up {
		return false
	}
	mac, mtu := link.mac == dataplane.MAC(h.MAC), link.mtu == int(h.MTU)
	if h.tag.role == string(dataplane.RoleUplink) {
		return (mac || !h.tag.has(flagMACAsIs)) && (mtu || !h.tag.has(flagMTUAsIs))
	}
	return mac && mtu
}
