package fabric

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Announce routes a locator to its node in every router, as an IGP would that
// redistributes it. Announcing what is announced already changes nothing.
func (f *Fabric) Announce(node int, locator netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.nodes[node]; !ok {
		return fmt.Errorf("locator %s: node %d is not in the fabric", locator, node)
	}
	if owner, ok := f.locators[locator]; ok && owner == node {
		return nil
	}
	f.locators[locator] = node
	errs := []error{
		f.viaGateway(TorName(node), locator, torNodePort, NodeAddr(node)),
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

// Announced are the locators in the routers' tables, with their nodes.
func (f *Fabric) Announced() map[netip.Prefix]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[netip.Prefix]int, len(f.locators))
	for p, n := range f.locators {
		out[p] = n
	}
	return out
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
		route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{LinkIndex: link.Attrs().Index, Gw: spine.AsSlice()})
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
	route := &netlink.Route{Dst: ipNet(prefix), LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice(), Protocol: unix.RTPROT_STATIC}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("%s: route %s: %w", nsName, prefix, err)
	}
	return nil
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
