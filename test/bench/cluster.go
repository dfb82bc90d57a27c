// Package bench holds the benchmarks: pure code as Go benchmarks, and a program
// (cmd/sidewinder-bench) that programs whole clusters into dataplanes.
package bench

import (
	"net/netip"
	"strconv"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// Block is the SID block of the made-up clusters.
var Block = netip.MustParsePrefix("fcbb:bb00::/32")

// Cluster is a snapshot as node 1 of a cluster sees it, with one IPv4 and one
// IPv6 prefix on each node, pods here, and all traffic going through gateway on
// uplink. At most 57,343 nodes.
func Cluster(nodes, pods int, uplink string, gateway netip.Addr) cluster.Snapshot {
	self := v1alpha1.Locator(Block, 1)
	s := cluster.Snapshot{
		Self:      cluster.Self{Name: "node1", Block: Block, Locator: self, EncapSource: address("fd53:77::", 1), SIDs: publish.SIDs(self)},
		Nodes:     map[string]cluster.Node{},
		SRv6Nodes: map[string]cluster.SRv6Node{},
		Pools: map[string]cluster.Pool{
			"v4": {Name: "v4", CIDR: netip.MustParsePrefix("10.0.0.0/8")},
			"v6": {Name: "v6", CIDR: netip.MustParsePrefix("fd10::/16")},
		},
		Pods:      map[string]cluster.Pod{},
		Endpoints: map[string]cluster.Endpoint{},
		Underlay: cluster.Underlay{
			Uplinks: map[string]cluster.Uplink{uplink: {Name: uplink, MTU: 1500}},
			Routes:  map[netip.Prefix]cluster.UnderlayRoute{},
			Neighbours: map[dataplane.NeighbourKey]dataplane.MAC{
				{Interface: uplink, IP: gateway}: {2, 0, 0, 0, 9, 9},
			},
		},
	}
	hop := []dataplane.NextHop{{Interface: uplink, Gateway: gateway, Weight: 1}}
	for id := 1; id <= nodes; id++ {
		name := "node" + strconv.Itoa(id)
		locator := v1alpha1.Locator(Block, uint16(id))
		src := address("fd53:77::", id)
		prefixes := []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(id >> 8), byte(id), 0}), 24),
			netip.PrefixFrom(prefix64(id), 64),
		}
		s.Nodes[name] = cluster.Node{Name: name, Addresses: []netip.Addr{src}, PodCIDRs: prefixes}
		s.SRv6Nodes[name] = cluster.SRv6Node{Name: name, EncapSource: src, Locator: locator, SIDs: publish.SIDs(locator), Prefixes: prefixes}
		if id > 1 {
			s.Underlay.Routes[locator] = cluster.UnderlayRoute{NextHops: hop}
		}
	}
	for i := 1; i <= pods; i++ {
		id := "c" + strconv.Itoa(i) + "/eth0"
		s.Endpoints[id] = cluster.Endpoint{
			ID: id, Namespace: "default", Name: "pod" + strconv.Itoa(i), HostInterface: "sw" + strconv.Itoa(i), MTU: 1460, WholeChecksums: true,
			HostMAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}, PodMAC: dataplane.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)},
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})},
		}
	}
	return s
}

// address is base with n in the last 16 bits.
func address(base string, n int) netip.Addr {
	a := netip.MustParseAddr(base).As16()
	a[14], a[15] = byte(n>>8), byte(n)
	return netip.AddrFrom16(a)
}

// prefix64 is fd10:n::.
func prefix64(n int) netip.Addr {
	a := netip.MustParseAddr("fd10::").As16()
	a[2], a[3] = byte(n>>8), byte(n)
	return netip.AddrFrom16(a)
}
