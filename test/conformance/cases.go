package conformance

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

func startsEmpty(t *testing.T, s *suite) {
	require.Empty(t, s.dump(t).Text())
}

func addThenDump(t *testing.T, s *suite) {
	want := s.Sample()
	s.apply(t, want)
	s.requireState(t, want)
}

func reapply(t *testing.T, s *suite) {
	want := s.Sample()
	s.apply(t, want)
	// The same additions once more, although everything is there.
	s.applyOrdered(t, dataplane.Diff(want, dataplane.New()))
	s.requireState(t, want)
	for _, c := range dataplane.Diff(want, s.dump(t)) {
		sk, ok := c.Key.(dataplane.SettingKey)
		require.True(t, ok && slices.Contains(s.unsupported, sk), "still to do: %s %s", c.Op, c.Key)
	}
}

func changeEveryKind(t *testing.T, s *suite) {
	want := s.Sample()
	s.apply(t, want)

	want = want.Clone()
	want.Settings[dataplane.SettingEncapSource] = "fd53:77::99"
	want.Settings[dataplane.SettingEncapHopLimit] = "200"
	pod := dataplane.InterfaceKey(s.Pods[0])
	itf := want.Interfaces[pod]
	itf.MTU, itf.MAC = 1400, dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0x01}
	want.Interfaces[pod] = itf
	want.Neighbours[dataplane.NeighbourKey{Interface: s.Pods[0], IP: nth("10.244.1.0", 10)}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 0, 0x77}}
	// A pod's address moves to the other interface.
	moved := dataplane.RouteKey{Prefix: pfx("10.244.1.10/32")}
	want.Routes[moved] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: s.Pods[1], Weight: 1}}}
	moved6 := dataplane.RouteKey{Prefix: pfx("fd10:244:1::a/128")}
	want.Routes[moved6] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: s.Pods[1], Weight: 1}}}
	// Dropping turns into forwarding and the other way round.
	want.Routes[dataplane.RouteKey{Prefix: pfx("10.244.9.0/24")}] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: s.Pods[1], Weight: 1}}}
	want.Routes[dataplane.RouteKey{Prefix: remoteLocator(4)}] = dataplane.Route{}
	// Two next hops, then (below) one again.
	second := s.Gateway.Next()
	two := []dataplane.NextHop{{Interface: s.Uplink, Gateway: s.Gateway, Weight: 1}, {Interface: s.Uplink, Gateway: second, Weight: 1}}
	dataplane.SortNextHops(two)
	want.Neighbours[dataplane.NeighbourKey{Interface: s.Uplink, IP: second}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 1, 2}}
	want.Routes[dataplane.RouteKey{Prefix: remoteLocator(2)}] = dataplane.Route{NextHops: two}
	want.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e000::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6}
	// One list with another SID; a waypoint in front; two weighted lists.
	want.Policies[dataplane.PolicyKey{BSID: BSID(2, 4)}] = lists(dataplane.SegmentList{Segments: []netip.Addr{dtSID(7, 4)}, Weight: 1})
	want.Policies[dataplane.PolicyKey{BSID: BSID(3, 6)}] = lists(dataplane.SegmentList{Segments: []netip.Addr{dtSID(5, 0), dtSID(3, 6)}, Weight: 1})
	want.Policies[dataplane.PolicyKey{BSID: BSID(4, 4)}] = lists(
		dataplane.SegmentList{Segments: []netip.Addr{dtSID(4, 4)}, Weight: 7},
		dataplane.SegmentList{Segments: []netip.Addr{dtSID(5, 0), dtSID(4, 4)}, Weight: 3})
	// A prefix moves to another node.
	want.Steerings[dataplane.SteeringKey{Prefix: pfx("10.244.2.0/24")}] = dataplane.Steering{BSID: BSID(3, 4)}
	s.apply(t, want)
	s.requireState(t, want)

	s.apply(t, s.Sample())
	// What was only in the changed state must be gone again.
	s.requireState(t, s.Sample())
}

// removeEveryKind removes, kind by kind from the last, one half and then the
// other.
func removeEveryKind(t *testing.T, s *suite) {
	want := s.Sample()
	s.apply(t, want)
	for _, kind := range slices.Backward(dataplane.Kinds()) {
		var keys []dataplane.Key
		for k := range s.dump(t).All() {
			if k.Kind() == kind {
				keys = append(keys, k)
			}
		}
		require.NotEmpty(t, keys, "the sample must have a %s", kind)
		sortKeys(keys)
		for _, some := range [][]dataplane.Key{keys[:len(keys)/2], keys[len(keys)/2:]} {
			want = want.Clone()
			for _, k := range some {
				want.Delete(k)
			}
			s.apply(t, want)
			s.requireState(t, want)
		}
	}
	require.Empty(t, s.dump(t).Text())
}

func deleteAbsent(t *testing.T, s *suite) {
	var changes []dataplane.Change
	for k, v := range s.Sample().All() {
		changes = append(changes, dataplane.Change{Op: dataplane.OpDelete, Key: k, Old: v})
	}
	dataplane.Order(changes)
	s.applyOrdered(t, changes)
	require.Empty(t, s.dump(t).Text())
}

func reopen(t *testing.T, s *suite) {
	want := s.Sample()
	s.apply(t, want)
	s.Backend = s.Reopen(t)
	s.requireState(t, want)
	// The new instance can change and remove what the old one made.
	want.Policies[dataplane.PolicyKey{BSID: BSID(2, 4)}] = lists(dataplane.SegmentList{Segments: []netip.Addr{dtSID(8, 4)}, Weight: 1})
	delete(want.Steerings, dataplane.SteeringKey{Prefix: pfx("10.244.3.0/24")})
	delete(want.LocalSIDs, dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e000::/128")})
	s.apply(t, want)
	s.requireState(t, want)
	s.Backend = s.Reopen(t)
	s.apply(t, dataplane.New())
	require.Empty(t, s.dump(t).Text())
}

func foreign(t *testing.T, s *suite) {
	s.PlantForeign(t)
	require.Empty(t, s.dump(t).Text(), "foreign objects must not be in the dump")
	want := s.Sample()
	s.apply(t, want)
	s.requireState(t, want)
	s.CheckForeign(t)
	s.apply(t, dataplane.New())
	require.Empty(t, s.dump(t).Text())
	s.CheckForeign(t)
}
