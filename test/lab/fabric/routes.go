package fabric

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Announcement is where a locator leads.
type Announcement struct {
	Node int
	// Via is the node's address that its ToR sends to.
	Via netip.Addr
}

// Via is the address that a node's ToR sends to for a locator, given the address
// that the node published: that one where it is on the link between the two, else
// the link's own.
func Via(node int, published netip.Addr) netip.Addr {
	if NodePrefix(node).Contains(published) && published != TorAddr(node) {
		return published
	}
	return NodeAddr(node)
}

// Announce routes a locator to its node in every router, as an IGP would that
// redistributes it; from the node's ToR by way of the address that the node
// published (Via). Announcing what is announced already changes nothing.
func (f *Fabric) Announce(node int, locator netip.Prefix, published netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.nodes[node]; !ok {
		return fmt.Errorf("locator %s: node %d is not in the fabric", locator, node)
	}
	a := Announcement{Node: node, Via: Via(node, published)}
	if f.locators[locator] == a {
		return nil
	}
	f.locators[locator] = a
	errs := []error{
		f.viaGateway(TorName(node), locator, torNodePort, a.Via),
		f.routeSpines(node, locator),
	}
	for from := range f.nodes {
		if from != node {
			errs = append(errs, f.routeFrom(from, node, locator))
		}
	}
	return errors.Join(errs...)
}

// Withdraw removes a locator's routes.
func (f *Fabric) Withdraw(locator netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.withdraw(locator)
}

func (f *Fabric) withdraw(locator netip.Prefix) error {
	delete(f.locators, locator)
	return f.unroute(locator)
}

// Announced are the locators in the routers' tables.
func (f *Fabric) Announced() map[netip.Prefix]Announcement {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.locators)
}

// routeFrom routes a prefix of node `to` at the ToR of node `from`: over all
// spines alike, or out of the node's own port when both are the same.
func (f *Fabric) routeFrom(from, to int, prefix netip.Prefix) error {
	if from == to {
		return f.viaGateway(TorName(to), prefix, torNodePort, NodeAddr(to))
	}
	h := f.handles[TorName(from)]
	route := &netlink.Route{Dst: ipNet(prefix), Protocol: unix.RTPROT_STATIC}
	for k := 1; k <= f.paths; k++ {
		link, err := h.LinkByName(torPort(k))
		if err != nil {
			return fmt.Errorf("%s: route %s: port %s: %w", TorName(from), prefix, torPort(k), err)
		}
		_, spine := linkAddrs(from, k)
		hop := &netlink.NexthopInfo{LinkIndex: link.Attrs().Index}
		hop.Gw, hop.Via = gatewayFor(prefix, spine)
		route.MultiPath = append(route.MultiPath, hop)
	}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("%s: route %s: %w", TorName(from), prefix, err)
	}
	return nil
}

// routeSpines routes a prefix of a node at every spine.
func (f *Fabric) routeSpines(node int, prefix netip.Prefix) error {
	var errs []error
	for k := 1; k <= f.paths; k++ {
		tor, _ := linkAddrs(node, k)
		errs = append(errs, f.viaGateway(SpineName(k), prefix, SpinePort(node), tor))
	}
	return errors.Join(errs...)
}

func (f *Fabric) viaGateway(nsName string, prefix netip.Prefix, port string, gateway netip.Addr) error {
	h := f.handles[nsName]
	link, err := h.LinkByName(port)
	if err != nil {
		return fmt.Errorf("%s: route %s: port %s: %w", nsName, prefix, port, err)
	}
	route := &netlink.Route{Dst: ipNet(prefix), LinkIndex: link.Attrs().Index, Protocol: unix.RTPROT_STATIC}
	route.Gw, route.Via = gatewayFor(prefix, gateway)
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("%s: route %s: %w", nsName, prefix, err)
	}
	return nil
}

// gatewayFor is an IPv6 next hop as a route of the prefix's family takes it.
func gatewayFor(prefix netip.Prefix, gateway netip.Addr) (net.IP, netlink.Destination) {
	if prefix.Addr().Is4() {
		return nil, &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: gateway.AsSlice()}
	}
	return gateway.AsSlice(), nil
}

// unroute removes a prefix's routes from every router; the connected route of a
// node's own ToR goes with its link.
func (f *Fabric) unroute(prefix netip.Prefix) error {
	var errs []error
	names := f.Spines()
	for node := range f.nodes {
		names = append(names, TorName(node))
	}
	for _, name := range names {
		h := f.handles[name]
		if h == nil {
			continue
		}
		err := h.RouteDel(&netlink.Route{Dst: ipNet(prefix), Protocol: unix.RTPROT_STATIC})
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("%s: remove route %s: %w", name, prefix, err))
		}
	}
	return errors.Join(errs...)
}
