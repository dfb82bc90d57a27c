package vpp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A guard is a blackhole route in the kernel for this node's locator. Where VPP
// shares the uplink through a packet socket, the kernel sees each SRv6 packet
// too, and a host that forwards would send it back to the fabric, which sends
// it here again.

func guardRoute(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Type:     unix.RTN_BLACKHOLE,
		Protocol: protocol,
		Priority: metric,
		Table:    unix.RT_TABLE_MAIN,
	}
}

func addGuard(p netip.Prefix) error {
	err := netlink.RouteReplace(guardRoute(p))
	if err != nil {
		return fmt.Errorf("kernel blackhole route %s (guards VPP's uN): %w", p, err)
	}
	return nil
}

func delGuard(p netip.Prefix) error {
	err := netlink.RouteDel(guardRoute(p))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kernel blackhole route %s (guards VPP's uN): %w", p, err)
	}
	return nil
}

// listGuards finds the guards, whoever's instance made them.
func listGuards() ([]netip.Prefix, error) {
	filter := &netlink.Route{Type: unix.RTN_BLACKHOLE, Protocol: protocol, Table: unix.RT_TABLE_MAIN}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, filter,
		netlink.RT_FILTER_TYPE|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("kernel routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || r.Priority != metric {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if ok {
			out = append(out, netip.PrefixFrom(a, bits))
		}
	}
	return out, nil
}
