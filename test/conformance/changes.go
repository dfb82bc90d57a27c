package conformance

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// hops are next hops over the uplink, one for each weight.
func (s *suite) hops(weights ...uint8) dataplane.Route {
	var r dataplane.Route
	gw := s.Gateway
	for _, w := range weights {
		r.NextHops = append(r.NextHops, dataplane.NextHop{Interface: s.Uplink, Gateway: gw, Weight: w})
		gw = gw.Next()
	}
	dataplane.SortNextHops(r.NextHops)
	return r
}

// walk takes one object through values, each from the one before.
func walk[K dataplane.Key, V dataplane.Value](t *testing.T, s *suite, start dataplane.State, k K, values ...V) {
	t.Helper()
	want := start
	for _, v := range values {
		want = want.Clone()
		want.Set(k, v)
		s.apply(t, want)
		s.requireState(t, want)
	}
}

// withGateways is Sample with the neighbours that hops needs.
func (s *suite) withGateways(n int) dataplane.State {
	want := s.Sample()
	gw := s.Gateway
	for i := range n {
		want.Neighbours[dataplane.NeighbourKey{Interface: s.Uplink, IP: gw}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 1, byte(i + 1)}}
		gw = gw.Next()
	}
	return want
}

// forwardAndDrop: a route changes between one path, several, and none.
func forwardAndDrop(t *testing.T, s *suite) {
	start := s.withGateways(3)
	drop, one, two, three := dataplane.Route{}, s.hops(1), s.hops(1, 1), s.hops(1, 1, 1)
	locator := dataplane.RouteKey{Prefix: remoteLocator(2)}
	walk(t, s, start, locator, drop, one, drop, two, drop, three, one, three, two, drop)

	pod := dataplane.RouteKey{Prefix: pfx("10.244.1.10/32")}
	on := func(i int) dataplane.Route {
		return dataplane.Route{NextHops: []dataplane.NextHop{{Interface: s.Pods[i], Weight: 1}}}
	}
	walk(t, s, start, pod, drop, on(0), on(1), drop, on(1))
	pod6 := dataplane.RouteKey{Prefix: pfx("fd10:244:1::a/128")}
	walk(t, s, start, pod6, drop, on(0), on(1), drop, on(1))
}

func nextHopWeights(t *testing.T, s *suite) {
	walk(t, s, s.withGateways(3), dataplane.RouteKey{Prefix: remoteLocator(3)},
		s.hops(1, 3), s.hops(3, 1), s.hops(100, 7), s.hops(1, 1), s.hops(2, 3, 4), s.hops(4, 3, 2), s.hops(1))
}

// severalLists: a policy gains and loses segment lists and weights, while
// traffic is steered into it.
func severalLists(t *testing.T, s *suite) {
	via := func(node int, weight uint32) dataplane.SegmentList {
		return dataplane.SegmentList{Segments: []netip.Addr{dtSID(node, 0), dtSID(2, 4)}, Weight: weight}
	}
	direct := func(weight uint32) dataplane.SegmentList {
		return dataplane.SegmentList{Segments: []netip.Addr{dtSID(2, 4)}, Weight: weight}
	}
	walk(t, s, s.Sample(), dataplane.PolicyKey{BSID: BSID(2, 4)},
		lists(direct(1), via(5, 1), via(6, 1)),
		lists(direct(1)),
		lists(direct(1), via(5, 9)),
		lists(direct(9), via(5, 1)), // other weights only
		lists(via(7, 2), via(6, 3)), // other lists only
		lists(via(6, 2), via(7, 3)), // weights change places
		lists(via(6, 1)),            // one of them is left
		lists(via(6, 1), direct(1), via(8, 100), via(9, 50)),
		lists(direct(1)))
}

// locatorChange: the node gets another locator. All its SIDs, its binding SIDs
// and what is steered into them change in one Apply, and change back.
func locatorChange(t *testing.T, s *suite) {
	before := s.Sample()
	s.apply(t, before)
	after := dataplane.New()
	for k, v := range before.All() {
		switch k := k.(type) {
		case dataplane.LocalSIDKey:
			after.Set(dataplane.LocalSIDKey{SID: netip.PrefixFrom(renumber(k.SID.Addr()), k.SID.Bits())}, v)
		case dataplane.PolicyKey:
			after.Set(dataplane.PolicyKey{BSID: renumber(k.BSID)}, v)
		case dataplane.SteeringKey:
			after.Set(k, dataplane.Steering{BSID: renumber(v.(dataplane.Steering).BSID)})
		default:
			after.Set(k, v)
		}
	}
	require.Len(t, after.Policies, len(before.Policies))
	for _, want := range []dataplane.State{after, before} {
		s.apply(t, want)
		s.requireState(t, want)
	}
}

// renumber moves an address of the node to another locator of the block.
func renumber(a netip.Addr) netip.Addr {
	b := a.As16()
	b[4], b[5] = 0x77, 0x01
	return netip.AddrFrom16(b)
}
