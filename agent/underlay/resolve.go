// Package underlay asks the kernel for the way to other nodes. It follows what
// the kernel knows, whoever told it (an IGP, BGP, static routes, router
// advertisements), and changes nothing there except asking for neighbours.
package underlay

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Target is a node to be reached.
type Target struct {
	// Locator of the node, a /48.
	Locator netip.Prefix
	// Address is the node's own address, used where nobody routes the locator.
	Address netip.Addr
}

// kernelRoute is a unicast IPv6 route of somebody else's in the main table. A
// next hop without gateway is on the link.
type kernelRoute struct {
	prefix   netip.Prefix
	metric   int
	nextHops []dataplane.NextHop
}

// resolve finds the way to each target, by longest match:
//
//   - a route to the locator itself, unless it is the default route: the
//     underlay routes locators, so its next hops are taken, all of them;
//   - else the node's address where it is on a shared link;
//   - else the next hops of the route to the node's address.
//
// Next hops over other interfaces than the uplinks do not count. A target
// without a way is not in the result.
func resolve(targets []Target, routes []kernelRoute, uplinks map[string]cluster.Uplink) map[netip.Prefix]cluster.UnderlayRoute {
	var table bart.Table[kernelRoute]
	for _, r := range routes {
		r.nextHops = slices.DeleteFunc(slices.Clone(r.nextHops), func(nh dataplane.NextHop) bool {
			_, ok := uplinks[nh.Interface]
			return !ok
		})
		if old, ok := table.Get(r.prefix); len(r.nextHops) > 0 && (!ok || r.metric < old.metric) {
			table.Insert(r.prefix, r)
		}
	}
	out := make(map[netip.Prefix]cluster.UnderlayRoute, len(targets))
	for _, t := range targets {
		if r, ok := table.Lookup(t.Locator.Addr()); ok && r.prefix.Bits() > 0 && onLinkNone(r) {
			out[t.Locator] = cluster.UnderlayRoute{NextHops: sorted(r.nextHops), InKernel: true}
			continue
		}
		r, ok := table.Lookup(t.Address)
		if !ok {
			continue
		}
		hops := slices.Clone(r.nextHops)
		for i := range hops {
			if !hops[i].Gateway.IsValid() {
				hops[i].Gateway = t.Address
			}
		}
		out[t.Locator] = cluster.UnderlayRoute{NextHops: sorted(hops)}
	}
	return out
}

// onLinkNone: a locator that lies on a link by itself names no next hop.
func onLinkNone(r kernelRoute) bool {
	return !slices.ContainsFunc(r.nextHops, func(nh dataplane.NextHop) bool { return !nh.Gateway.IsValid() })
}

func sorted(hops []dataplane.NextHop) []dataplane.NextHop {
	out := slices.Clone(hops)
	dataplane.SortNextHops(out)
	return slices.Compact(out)
}
