package linux

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// everything is a state with all that the backend can hold.
func everything(t *testing.T, podMAC dataplane.MAC) dataplane.State {
	t.Helper()
	s := dataplane.New()
	s.Settings[dataplane.SettingEncapSource] = "fd00::1"
	ownSource(t, s)
	s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	s.Interfaces["up0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	s.Interfaces["pod0"] = dataplane.Interface{Role: dataplane.RolePod, MTU: 1460, MAC: podMAC}
	s.Addresses[dataplane.AddressKey{Interface: "lo", Prefix: prefix("169.254.1.1/32")}] = dataplane.Address{}
	s.Addresses[dataplane.AddressKey{Interface: "lo", Prefix: prefix("fd00:99::1/128")}] = dataplane.Address{}
	for _, ip := range []string{"10.1.0.2", "fd00:1::2"} {
		s.Neighbours[dataplane.NeighbourKey{Interface: "pod0", IP: addr(ip)}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 0, 9}}
	}
	via := func(dev, gw string, w uint8) dataplane.NextHop {
		return dataplane.NextHop{Interface: dev, Gateway: addr(gw), Weight: w}
	}
	route := func(table uint32, p string, hops ...dataplane.NextHop) {
		dataplane.SortNextHops(hops)
		s.Routes[dataplane.RouteKey{Table: table, Prefix: prefix(p)}] = dataplane.Route{NextHops: hops}
	}
	route(0, "10.1.0.2/32", dataplane.NextHop{Interface: "pod0", Weight: 1})
	route(0, "fd00:1::2/128", dataplane.NextHop{Interface: "pod0", Weight: 1})
	route(0, "10.1.0.0/24")
	route(0, "fd00:1::/64")
	route(0, "fcbb:bb00:2::/48", via("up0", "fe80::2", 1))
	route(0, "fcbb:bb00:3::/48", via("up0", "fe80::2", 3), via("up0", "fe80::3", 1))
	route(0, "10.9.0.0/24", via("up0", "192.0.2.2", 1), via("up0", "192.0.2.3", 200))
	route(0, "10.10.0.0/24", via("up0", "fe80::2", 1))
	route(0, "10.11.0.0/24", via("up0", "fe80::2", 1), via("up0", "192.0.2.3", 2))
	route(1000, "10.12.0.0/24", via("up0", "192.0.2.3", 1))
	route(1000, "::/0", via("up0", "fe80::2", 1))
	sid := func(p string, b dataplane.Behaviour, table uint32) {
		s.LocalSIDs[dataplane.LocalSIDKey{SID: prefix(p)}] = dataplane.LocalSID{Behaviour: b, Table: table}
	}
	sid("fcbb:bb00:1::/48", dataplane.BehaviourUN, 0)
	sid("fcbb:bb00:1:e004::/128", dataplane.BehaviourDT4, 0)
	sid("fcbb:bb00:1:e006::/128", dataplane.BehaviourDT6, 0)
	sid("fcbb:bb00:1:e106::/128", dataplane.BehaviourDT6, 1000)
	sid("fcbb:bb00:1:e000::/128", dataplane.BehaviourEnd, 0)
	bsid := func(a string) dataplane.PolicyKey { return dataplane.PolicyKey{BSID: addr(a)} }
	s.Policies[bsid("fcbb:bb00:1:eb51::4")] = policy(list(1, "fcbb:bb00:2:e004::"))
	s.Policies[bsid("fcbb:bb00:1:eb51::6")] = policy(
		list(1, "fcbb:bb00:2:e006::"), list(7, "fcbb:bb00:3::", "fcbb:bb00:2:e006::"))
	s.Policies[bsid("fcbb:bb00:1:eb51::7")] = policy(list(1_000_000, "fcbb:bb00:2:e006::"), list(1, "fcbb:bb00:4:e006::"))
	steer := func(table uint32, p, to string) {
		s.Steerings[dataplane.SteeringKey{Table: table, Prefix: prefix(p)}] = dataplane.Steering{BSID: addr(to)}
	}
	steer(0, "10.2.0.0/24", "fcbb:bb00:1:eb51::4")
	steer(0, "fd00:2::/64", "fcbb:bb00:1:eb51::6")
	steer(0, "fd00:2::5/128", "fcbb:bb00:1:eb51::6")
	steer(1000, "10.3.0.0/24", "fcbb:bb00:1:eb51::7")
	return s
}

// oneNode is a namespace with an uplink and the host's end of a pod's veth.
func oneNode(t *testing.T) (*space, dataplane.MAC) {
	t.Helper()
	node := newSpace(t)
	veth(t, node, "up0", node, "far0", 1500)
	veth(t, node, "pod0", node, "inside0", 1500)
	node.addr("up0", "192.0.2.1/24")
	node.addr("up0", "fd00::1/64")
	return node, dataplane.MAC(node.link("pod0").Attrs().HardwareAddr)
}

func TestEverythingComesAndGoes(t *testing.T) {
	node, mac := oneNode(t)
	b := node.backend("up0")
	have, err := b.Dump(testContext(t))
	require.NoError(t, err)
	require.Empty(t, have.Text(), "a fresh namespace holds nothing of ours")

	want := everything(t, mac)
	reach(t, b, want)
	t.Run("again", func(t *testing.T) {
		var all []dataplane.Change
		for k, v := range want.All() {
			all = append(all, dataplane.Change{Op: dataplane.OpAdd, Key: k, New: v})
		}
		dataplane.Order(all)
		require.NoError(t, b.Apply(testContext(t), all))
		reach(t, b, want)
	})
	t.Run("nothing", func(t *testing.T) {
		reach(t, b, dataplane.New())
		require.NoError(t, b.conn.dumpNexthops(func(n nexthop) { t.Errorf("nexthop %d is left behind", n.id) }, nil))
	})
}

// TestOnePrefixTwoKinds: a route and a steering of one prefix do not share a
// place, so either can follow the other, and a deletion takes only its own.
func TestOnePrefixTwoKinds(t *testing.T) {
	node, mac := oneNode(t)
	b := node.backend("up0")
	want := everything(t, mac)
	reach(t, b, want)
	for _, p := range []string{"10.2.0.0/24", "fd00:2::/64", "fd00:2::5/128"} {
		r, s := dataplane.RouteKey{Prefix: prefix(p)}, dataplane.SteeringKey{Prefix: prefix(p)}
		steering := want.Steerings[s]
		delete(want.Steerings, s)
		want.Routes[r] = dataplane.Route{}
		reach(t, b, want)
		want.Steerings[s] = steering
		delete(want.Routes, r)
		reach(t, b, want)
		want.Routes[r] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: "pod0", Weight: 1}}}
		reach(t, b, want)
	}
}
