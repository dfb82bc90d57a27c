package plugin

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// plan is what a pod's interface is to hold: derived from the IPAM plugin's
// answer by ADD, and from ADD's own answer by CHECK, in the same way.
type plan struct {
	ips []netip.Addr
	// routes all lead to the gateway of their family. The first ones are the
	// default routes.
	routes []route
}

// route is one way out of the pod.
type route struct {
	dst netip.Prefix
	// mtu and advMSS in bytes, 0: the interface's.
	mtu, advMSS int
	// metric 0 is the kernel's default.
	metric int
	// table 0 is the main table.
	table int
}

func (p plan) has4() bool { return slices.ContainsFunc(p.ips, netip.Addr.Is4) }
func (p plan) has6() bool { return slices.ContainsFunc(p.ips, netip.Addr.Is6) }

// gateway is the next hop of every route of the destination's family.
func gateway(dst netip.Addr) netip.Addr {
	if dst.Is4() {
		return api.GatewayIPv4
	}
	return api.GatewayIPv6
}

var (
	default4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	default6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// planFrom reads addresses and routes. Prefix lengths and gateways of the IPAM
// plugin do not count: a pod shares no link with anyone but its host, so every
// address is a host address and every route leads to the one gateway. Both ways
// of answering thus come to the same: host-local's subnet prefixes with gateway
// and routes, and calico-ipam's /32 and /128 with neither.
func planFrom(ips []*current.IPConfig, routes []*types.Route) (plan, error) {
	var p plan
	for i, ipc := range ips {
		field := fmt.Sprintf("ips[%d]", i)
		if ipc == nil {
			return plan{}, fmt.Errorf("%s: is empty", field)
		}
		a, ok := netip.AddrFromSlice(ipc.Address.IP)
		if !ok {
			return plan{}, fmt.Errorf("%s: %v is not an IP address", field, ipc.Address.IP)
		}
		a = a.Unmap()
		if slices.Contains(p.ips, a) {
			return plan{}, fmt.Errorf("%s: %s is given twice", field, a)
		}
		p.ips = append(p.ips, a)
	}
	if len(p.ips) == 0 {
		return plan{}, fmt.Errorf("ips: no address was given")
	}
	var defaults, others []route
	if p.has4() {
		defaults = append(defaults, route{dst: default4})
	}
	if p.has6() {
		defaults = append(defaults, route{dst: default6})
	}
	for i, r := range routes {
		field := fmt.Sprintf("routes[%d]", i)
		if r == nil {
			return plan{}, fmt.Errorf("%s: is empty", field)
		}
		dst, err := prefixFrom(r.Dst)
		if err != nil {
			return plan{}, fmt.Errorf("%s.dst: %w", field, err)
		}
		n := route{dst: dst, mtu: r.MTU, advMSS: r.AdvMSS, metric: r.Priority}
		if r.Table != nil && *r.Table != mainTable {
			n.table = *r.Table
		}
		isDefault := dst.Bits() == 0 && n.table == 0
		if (dst.Addr().Is4() && !p.has4()) || (dst.Addr().Is6() && !p.has6()) {
			if isDefault { // As in a configuration made for both families.
				continue
			}
			return plan{}, fmt.Errorf("%s.dst: %s has no use: the pod has no address of that family", field, dst)
		}
		if isDefault {
			i := slices.IndexFunc(defaults, func(d route) bool { return d.dst == dst })
			defaults[i] = n
			continue
		}
		if !slices.ContainsFunc(others, func(o route) bool { return o.dst == n.dst && o.table == n.table && o.metric == n.metric }) {
			others = append(others, n)
		}
	}
	p.routes = slices.Concat(defaults, others)
	return p, nil
}

const mainTable = 254

func prefixFrom(n net.IPNet) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("%v is not a prefix", n.String())
	}
	if a = a.Unmap(); a.Is4() && bits == 128 {
		ones -= 96
	}
	p, err := a.Prefix(ones)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s: %w", n.String(), err)
	}
	return p, nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func hostNet(a netip.Addr) net.IPNet { return ipNet(netip.PrefixFrom(a, a.BitLen())) }

// result is ADD's answer.
func (p plan) result(host, pod *current.Interface, dns types.DNS) *current.Result {
	res := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{host, pod},
		DNS:        dns,
	}
	for _, ip := range p.ips {
		res.IPs = append(res.IPs, &current.IPConfig{
			Interface: current.Int(1), Address: hostNet(ip), Gateway: gateway(ip).AsSlice(),
		})
	}
	for _, r := range p.routes {
		out := &types.Route{Dst: ipNet(r.dst), GW: gateway(r.dst.Addr()).AsSlice(), MTU: r.mtu, AdvMSS: r.advMSS, Priority: r.metric}
		if r.table != 0 {
			out.Table = &r.table
		}
		res.Routes = append(res.Routes, out)
	}
	return res
}
