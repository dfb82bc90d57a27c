package compile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/compile"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

var block = netip.MustParsePrefix("fcbb:bb00::/32")

func prefixes(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// two is a cluster of this node, a, and one other, b, with one pod here.
func two() cluster.Snapshot {
	la, lb := v1alpha1.Locator(block, 1), v1alpha1.Locator(block, 2)
	return cluster.Snapshot{
		Self: cluster.Self{Name: "a", Block: block, Locator: la, EncapSource: netip.MustParseAddr("fd53::a"), SIDs: publish.SIDs(la)},
		Nodes: map[string]cluster.Node{
			"a": {Name: "a", PodCIDRs: prefixes("10.244.1.0/24", "fd10:244:1::/64")},
			"b": {Name: "b", PodCIDRs: prefixes("10.244.2.0/24", "fd10:244:2::/64")},
		},
		SRv6Nodes: map[string]cluster.SRv6Node{
			"a": {Name: "a", EncapSource: netip.MustParseAddr("fd53::a"), Locator: la, SIDs: publish.SIDs(la), Prefixes: prefixes("10.244.1.0/24", "fd10:244:1::/64")},
			"b": {Name: "b", EncapSource: netip.MustParseAddr("fd53::b"), Locator: lb, SIDs: publish.SIDs(lb), Prefixes: prefixes("10.244.2.0/24", "fd10:244:2::/64")},
		},
		Pools: map[string]cluster.Pool{
			"v4": {Name: "v4", CIDR: netip.MustParsePrefix("10.244.0.0/16")},
			"v6": {Name: "v6", CIDR: netip.MustParsePrefix("fd10:244::/32")},
		},
		Pods: map[string]cluster.Pod{},
		Endpoints: map[string]cluster.Endpoint{"c1/eth0": {
			ID: "c1/eth0", Namespace: "default", Name: "web", HostInterface: "swc1", MTU: 1460, WholeChecksums: true,
			HostMAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}, PodMAC: dataplane.MAC{2, 0, 0, 0, 0, 1},
			IPs: []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd10:244:1::5")},
		}},
		Underlay: cluster.Underlay{
			Uplinks: map[string]cluster.Uplink{"up0": {Name: "up0", MTU: 1500}},
			Routes: map[netip.Prefix]cluster.UnderlayRoute{lb: {
				NextHops: []dataplane.NextHop{{Interface: "up0", Gateway: netip.MustParseAddr("fe80::1"), Weight: 1}},
			}},
			Neighbours: map[dataplane.NeighbourKey]dataplane.MAC{
				{Interface: "up0", IP: netip.MustParseAddr("fe80::1")}: {2, 0, 0, 0, 9, 9},
			},
		},
	}
}

const twoText = `address/lo/169.254.1.1/32
interface/swc1 = pod mtu 1460 mac ee:ee:ee:ee:ee:ee
interface/up0 = uplink mtu 0 mac 00:00:00:00:00:00
localsid/fcbb:bb00:1::/48 = uN table 0
localsid/fcbb:bb00:1:e004::/128 = End.DT4 table 0
localsid/fcbb:bb00:1:e006::/128 = End.DT6 table 0
neighbour/swc1/10.244.1.5 = 02:00:00:00:00:01
neighbour/swc1/fd10:244:1::5 = 02:00:00:00:00:01
neighbour/up0/fe80::1 = 02:00:00:00:09:09
policy/fcbb:bb00:1:eb51:2::4 = [fcbb:bb00:2:e004::]
policy/fcbb:bb00:1:eb51:2::6 = [fcbb:bb00:2:e006::]
route/10.244.1.0/24 = drop
route/10.244.1.5/32 = dev swc1
route/fcbb:bb00:2::/48 = via fe80::1 dev up0
route/fd10:244:1::/64 = drop
route/fd10:244:1::5/128 = dev swc1
setting/encap-hop-limit = 64
setting/encap-source = fd53::a
setting/flow-hash = dst,flowlabel,proto,src
setting/flow-label = inner-hash
steering/10.244.2.0/24 = bsid fcbb:bb00:1:eb51:2::4
steering/fd10:244:2::/64 = bsid fcbb:bb00:1:eb51:2::6`

func TestTwoNodes(t *testing.T) {
	res := compile.Compile(two(), compile.Target{})
	require.Equal(t, twoText, res.State.Text())
	require.Empty(t, res.Problems)
	require.Len(t, res.Policies, 2)
	require.Equal(t, "b", res.Policies[0].Endpoint)
}

func TestTheKernelResolvesItsOwnNeighbours(t *testing.T) {
	s := compile.Compile(two(), compile.Target{Kernel: true}).State
	require.NotContains(t, s.Text(), "neighbour/up0")
	require.Contains(t, s.Text(), "route/fcbb:bb00:2::/48")
}

func TestTheKernelKeepsTheUnderlaysOwnRoute(t *testing.T) {
	in := two()
	lb := v1alpha1.Locator(block, 2)
	u := in.Underlay.Routes[lb]
	u.InKernel = true
	in.Underlay.Routes[lb] = u
	require.NotContains(t, compile.Compile(in, compile.Target{Kernel: true}).State.Text(), "route/fcbb:bb00:2::/48")
	require.Contains(t, compile.Compile(in, compile.Target{}).State.Text(), "route/fcbb:bb00:2::/48")
}

// TestChangesOnPeers: whatever a peer does, this node ends up as if it had never
// been otherwise.
func TestChangesOnPeers(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*cluster.Snapshot)
		gone    []string // none of these may be left
		there   []string
		problem string
	}{
		"node object deleted": {
			change: func(s *cluster.Snapshot) { delete(s.Nodes, "b") },
			gone:   []string{"fcbb:bb00:2:", "eb51", "10.244.2.", "fe80::1"},
		},
		"facts deleted": {
			change: func(s *cluster.Snapshot) { delete(s.SRv6Nodes, "b") },
			gone:   []string{"fcbb:bb00:2:", "eb51", "10.244.2."},
		},
		"moved to another locator": {
			change: func(s *cluster.Snapshot) {
				n, l := s.SRv6Nodes["b"], v1alpha1.Locator(block, 7)
				n.Locator, n.SIDs = l, publish.SIDs(l)
				s.SRv6Nodes["b"] = n
				s.Underlay.Routes[l] = s.Underlay.Routes[v1alpha1.Locator(block, 2)]
			},
			gone:  []string{"fcbb:bb00:2:", "eb51:2:"},
			there: []string{"steering/10.244.2.0/24 = bsid fcbb:bb00:1:eb51:7::4"},
		},
		"prefixes changed": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Prefixes = prefixes("10.244.3.0/24")
				s.SRv6Nodes["b"] = n
			},
			gone:  []string{"10.244.2.0", "fd10:244:2::"},
			there: []string{"steering/10.244.3.0/24"},
		},
		"a pod with a borrowed address": {
			change: func(s *cluster.Snapshot) {
				s.Pods["x/y"] = cluster.Pod{Namespace: "x", Name: "y", Node: "b", IPs: []netip.Addr{netip.MustParseAddr("10.244.77.1"), netip.MustParseAddr("10.244.2.9")}}
			},
			there: []string{"steering/10.244.77.1/32 = bsid fcbb:bb00:1:eb51:2::4"},
			gone:  []string{"10.244.2.9"},
		},
		"pods that need no entry": {
			change: func(s *cluster.Snapshot) {
				ip := []netip.Addr{netip.MustParseAddr("10.244.77.1")}
				s.Pods["x/host"] = cluster.Pod{Node: "b", IPs: ip, HostNetwork: true}
				s.Pods["x/done"] = cluster.Pod{Node: "b", IPs: ip, Finished: true}
				s.Pods["x/here"] = cluster.Pod{Node: "a", IPs: ip}
				s.Pods["x/lost"] = cluster.Pod{Node: "gone", IPs: ip}
			},
			gone: []string{"10.244.77.1"},
		},
		"no way to the node": {
			change:  func(s *cluster.Snapshot) { s.Underlay.Routes = nil },
			gone:    []string{"route/fcbb:bb00:2::/48"},
			there:   []string{"steering/10.244.2.0/24"}, // dropped, not leaked
			problem: "SRv6Node/b: spec.encapSource: no route to fd53::b nor to locator fcbb:bb00:2::/48: traffic to its pods is dropped (route the node's address or its locator in the underlay)",
		},
		"a prefix of ours claimed": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Prefixes = prefixes("10.244.1.0/24")
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"steering/10.244.1.0/24"},
			problem: "SRv6Node/b: spec.prefixes: 10.244.1.0/24 belongs to node a by its Node object (start the node's agent, which publishes anew, or remove its SRv6Node)",
		},
		"a part of a prefix of ours published": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Prefixes = prefixes("10.244.1.0/28")
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"steering/10.244.1.0"},
			problem: "SRv6Node/b: spec.prefixes: 10.244.1.0/28 belongs to node a by its Node object (start the node's agent, which publishes anew, or remove its SRv6Node)",
		},
		"a prefix that moved to a node while its old one is silent": {
			change: func(s *cluster.Snapshot) {
				l := v1alpha1.Locator(block, 3)
				moved := prefixes("10.244.2.0/24")
				s.Nodes["b"] = cluster.Node{Name: "b"}
				s.Nodes["c"] = cluster.Node{Name: "c", PodCIDRs: moved}
				s.SRv6Nodes["c"] = cluster.SRv6Node{Name: "c", EncapSource: netip.MustParseAddr("fd53::c"), Locator: l, SIDs: publish.SIDs(l), Prefixes: moved}
				s.Underlay.Routes[l] = s.Underlay.Routes[v1alpha1.Locator(block, 2)]
			},
			there:   []string{"steering/10.244.2.0/24 = bsid fcbb:bb00:1:eb51:3::4"},
			problem: "SRv6Node/b: spec.prefixes: 10.244.2.0/24 belongs to node c by its Node object (start the node's agent, which publishes anew, or remove its SRv6Node)",
		},
		"an address that moved to another node": {
			change: func(s *cluster.Snapshot) {
				s.Nodes["c"] = cluster.Node{Name: "c", Addresses: []netip.Addr{netip.MustParseAddr("fd53::b")}}
			},
			gone:    []string{"route/fcbb:bb00:2::/48"},
			problem: "SRv6Node/b: spec.encapSource: fd53::b is now an address of node c: no route to locator fcbb:bb00:2::/48 (start the node's agent, which publishes anew, or remove its SRv6Node)",
		},
		"a prefix over the underlay": {
			change: func(s *cluster.Snapshot) {
				s.Pools = nil
				n := s.SRv6Nodes["b"]
				n.Prefixes = prefixes("fd53::/64")
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"steering/fd53"},
			problem: "SRv6Node/b: spec.prefixes: fd53::/64 contains fd53::a, an address of the underlay (use pod prefixes apart from the underlay's)",
		},
		"a prefix of this node over the underlay": {
			change: func(s *cluster.Snapshot) {
				s.Nodes["a"] = cluster.Node{Name: "a", PodCIDRs: prefixes("fd53::/64")}
			},
			gone:    []string{"route/fd53"},
			problem: "Node/a: spec.podCIDRs: fd53::/64 contains fd53::a, an address of the underlay (use pod prefixes apart from the underlay's)",
		},
		"a stale Pod object with the address of a pod here": {
			change: func(s *cluster.Snapshot) {
				s.Pods["default/web"] = cluster.Pod{Node: "b", IPs: []netip.Addr{netip.MustParseAddr("10.244.1.5")}}
			},
			there:   []string{"route/10.244.1.5/32 = dev swc1"},
			gone:    []string{"steering/10.244.1.5"},
			problem: "SRv6Node/b: spec.prefixes: 10.244.1.5 is the address of pod default/web on this node (remove the Pod object that is out of date)",
		},
		"a pod on a peer with an address borrowed from us": {
			change: func(s *cluster.Snapshot) {
				s.Pods["default/far"] = cluster.Pod{Node: "b", IPs: []netip.Addr{netip.MustParseAddr("10.244.1.77")}}
			},
			there: []string{"steering/10.244.1.77/32 = bsid fcbb:bb00:1:eb51:2::4"},
		},
		"a prefix in no pool": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Prefixes = prefixes("192.0.2.0/24")
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"192.0.2.0"},
			problem: "SRv6Node/b: spec.prefixes: 192.0.2.0/24 lies in no IPPool (make an IPPool that contains it)",
		},
		"the SID block as a pod prefix": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Prefixes = prefixes("fcbb:bb00:2::/48")
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"steering/fcbb"},
			problem: "SRv6Node/b: spec.prefixes: fcbb:bb00:2::/48 overlaps the SID block fcbb:bb00::/32 (use pod prefixes outside the SID block)",
		},
		"our locator claimed": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Locator = s.Self.Locator
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"eb51"},
			problem: "SRv6Node/b: spec.locator: fcbb:bb00:1::/48 is also held by node a (remove the SRv6Locator of one of them and restart its agent)",
		},
		"two peers with one locator, and the later one has the claim": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Name, n.EncapSource, n.Prefixes = "c", netip.MustParseAddr("fd53::c"), prefixes("10.244.3.0/24")
				s.SRv6Nodes["c"], s.Nodes["c"] = n, cluster.Node{Name: "c"}
				s.Locators = map[netip.Prefix]string{n.Locator: "c"}
			},
			there:   []string{"steering/10.244.3.0/24"},
			gone:    []string{"steering/10.244.2.0/24"},
			problem: "SRv6Node/b: spec.locator: fcbb:bb00:2::/48 is claimed, and published, by node c (restart the node's agent, which takes another)",
		},
		"a locator of another block": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.Locator = netip.MustParsePrefix("fcbb:cc00:2::/48")
				s.SRv6Nodes["b"] = n
			},
			gone:    []string{"eb51", "cc00"},
			problem: "SRv6Node/b: spec.locator: fcbb:cc00:2::/48 is not a /48 within this cluster's block fcbb:bb00::/32 (give all nodes the same block)",
		},
		"no SID for a family": {
			change: func(s *cluster.Snapshot) {
				n := s.SRv6Nodes["b"]
				n.SIDs = n.SIDs[:2]
				s.SRv6Nodes["b"] = n
			},
			there:   []string{"steering/10.244.2.0/24"},
			gone:    []string{"fd10:244:2::"},
			problem: "SRv6Node/b: spec.sids: has no End.DT6 SID, so its IPv6 prefixes cannot be reached (upgrade the node's agent)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := two()
			c.change(&in)
			res := compile.Compile(in, compile.Target{})
			for _, g := range c.gone {
				require.NotContains(t, res.State.Text(), g)
			}
			for _, g := range c.there {
				require.Contains(t, res.State.Text(), g)
			}
			if c.problem == "" {
				require.Empty(t, res.Problems)
				return
			}
			require.Len(t, res.Problems, 1)
			require.Equal(t, c.problem, res.Problems[0].String())
		})
	}
}

func TestEverythingMayBeClaimedByNobody(t *testing.T) {
	in := two()
	in.Pools = nil
	n := in.SRv6Nodes["b"]
	n.Prefixes = prefixes("0.0.0.0/0", "::/0", "10.0.0.0/24")
	in.SRv6Nodes["b"] = n
	res := compile.Compile(in, compile.Target{})
	require.NotContains(t, res.State.Text(), "steering/0.0.0.0/0")
	require.NotContains(t, res.State.Text(), "steering/::/0")
	require.Contains(t, res.State.Text(), "steering/10.0.0.0/24", "without pools other prefixes are not checked")
	require.Len(t, res.Problems, 2)
}

func TestTwoPodsWithOneAddress(t *testing.T) {
	in := two()
	e := in.Endpoints["c1/eth0"]
	e.ID, e.Name, e.HostInterface = "c2/eth0", "second", "swc2"
	in.Endpoints[e.ID] = e
	res := compile.Compile(in, compile.Target{})
	require.Contains(t, res.State.Text(), "route/10.244.1.5/32 = dev swc1")
	require.Len(t, res.Problems, 2)
	require.Equal(t, "pod default/second: ips: address 10.244.1.5 is also held by pod default/web on this node (delete one of the two pods)", res.Problems[0].String())
}

// TestBSID: no two keys share a binding SID, and it is the same at every call.
func TestBSID(t *testing.T) {
	self := v1alpha1.Locator(block, 1)
	require.Equal(t, "fcbb:bb00:1:eb51:2:0:7:4", compile.BSID(self, v1alpha1.Locator(block, 2), 7, 4).String())
	seen := map[netip.Addr]bool{}
	for id := uint16(1); id < 300; id++ {
		for colour := range uint32(5) {
			for _, family := range []uint16{4, 6} {
				b := compile.BSID(self, v1alpha1.Locator(block, id), colour<<20, family)
				require.False(t, seen[b])
				require.True(t, self.Contains(b))
				seen[b] = true
			}
		}
	}
}
