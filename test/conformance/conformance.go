// Package conformance is the one suite that every dataplane.Backend passes: the
// one in memory, the Linux kernel, and VPP.
package conformance

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Bench is a backend on a dataplane that holds nothing of this program yet.
type Bench struct {
	Backend dataplane.Backend
	// Reopen gives a second backend on the same dataplane, as after a restart
	// of the agent.
	Reopen func(t *testing.T) dataplane.Backend
	// Uplink is a link that exists, with Gateway on its link.
	Uplink  string
	Gateway netip.Addr
	// Pods are two or more links that exist.
	Pods []string
	// MakeLink makes one more link appear.
	MakeLink func(t *testing.T, name string)
	// PlantForeign makes objects that are not this program's, by other means,
	// among them a route with a prefix that the suite also uses where the
	// dataplane can hold both; CheckForeign fails when one is gone.
	PlantForeign func(t *testing.T)
	CheckForeign func(t *testing.T)
}

// Harness makes benches.
type Harness struct {
	// New gives a fresh bench; what it makes is removed by t.Cleanup.
	New func(t *testing.T) *Bench
	// UnsupportedSettings are the settings that this dataplane cannot hold.
	// Each must answer ErrUnsupported; everything else must be held.
	UnsupportedSettings []dataplane.SettingKey
	// NoPodNeighbours etc. are not offered on purpose: every backend holds
	// every kind.
}

// Locator is the local locator in Sample.
var Locator = netip.MustParsePrefix("fcbb:bb00:1::/48")

const timeout = 20 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, *suite)
	}{
		{"StartsEmpty", startsEmpty},
		{"AddThenDumpIsEqual", addThenDump},
		{"ReapplyChangesNothing", reapply},
		{"ChangeEveryKind", changeEveryKind},
		{"RemoveEveryKind", removeEveryKind},
		{"DeleteOfAbsentSucceeds", deleteAbsent},
		{"ReopenFindsEverything", reopen},
		{"ForeignObjectsAreLeftAlone", foreign},
		{"PartialFailureIsReportedAndRetried", partialFailure},
		{"AnyPathSameEnd", anyPath},
		{"CancelledContext", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := h.New(t)
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			t.Cleanup(cancel)
			c.f(t, &suite{Bench: b, ctx: ctx, unsupported: h.UnsupportedSettings})
		})
	}
}

type suite struct {
	*Bench
	ctx         context.Context
	unsupported []dataplane.SettingKey
}

// apply applies what turns the dump into want, and checks that only what may be
// unsupported fails.
func (s *suite) apply(t *testing.T, want dataplane.State) {
	t.Helper()
	s.applyOrdered(t, dataplane.Diff(want, s.dump(t)))
}

func (s *suite) applyOrdered(t *testing.T, changes []dataplane.Change) {
	t.Helper()
	err := s.Backend.Apply(s.ctx, changes)
	failed, rest := dataplane.Failures(err)
	require.NoError(t, rest)
	for k, e := range failed {
		sk, ok := k.(dataplane.SettingKey)
		require.True(t, ok && slices.Contains(s.unsupported, sk) && errors.Is(e, dataplane.ErrUnsupported), "%v", e)
	}
}

func (s *suite) dump(t *testing.T) dataplane.State {
	t.Helper()
	st, err := s.Backend.Dump(s.ctx)
	require.NoError(t, err)
	return st
}

// requireState compares the dump with want, less what is unsupported.
func (s *suite) requireState(t *testing.T, want dataplane.State) {
	t.Helper()
	w := want.Clone()
	for _, k := range s.unsupported {
		delete(w.Settings, k)
	}
	require.Equal(t, w.Text(), s.dump(t).Text())
}

// Sample is a state with every kind of object in it.
func (b *Bench) Sample() dataplane.State {
	s := dataplane.New()
	s.Settings[dataplane.SettingEncapSource] = "fd53:77::1"
	s.Settings[dataplane.SettingEncapHopLimit] = "63"
	s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	s.Settings[dataplane.SettingFlowHash] = dataplane.FlowHashWithLabel
	s.Interfaces[dataplane.InterfaceKey(b.Uplink)] = dataplane.Interface{Role: dataplane.RoleUplink}
	s.Addresses[dataplane.AddressKey{Interface: "lo", Prefix: pfx("169.254.1.1/32")}] = dataplane.Address{}
	for i, name := range b.Pods[:2] {
		s.Interfaces[dataplane.InterfaceKey(name)] = dataplane.Interface{
			Role: dataplane.RolePod, MTU: 1460, MAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee},
		}
		for _, ip := range []netip.Addr{nth("10.244.1.0", 10+i), nth("fd10:244:1::", 10+i)} {
			s.Neighbours[dataplane.NeighbourKey{Interface: name, IP: ip}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 0, byte(i + 1)}}
			s.Routes[dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())}] = dataplane.Route{
				NextHops: []dataplane.NextHop{{Interface: name, Weight: 1}},
			}
		}
	}
	s.Neighbours[dataplane.NeighbourKey{Interface: b.Uplink, IP: b.Gateway}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 1, 1}}
	s.Routes[dataplane.RouteKey{Prefix: pfx("10.244.9.0/24")}] = dataplane.Route{}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: Locator}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e004::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e006::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e000::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}
	for node := 2; node <= 4; node++ {
		b.addRemote(s, node, node)
	}
	return s
}

// addRemote adds what a remote node needs, with node as its ID and via as the
// node whose SIDs its policies lead to.
func (b *Bench) addRemote(s dataplane.State, node, via int) {
	s.Routes[dataplane.RouteKey{Prefix: remoteLocator(node)}] = dataplane.Route{
		NextHops: []dataplane.NextHop{{Interface: b.Uplink, Gateway: b.Gateway, Weight: 1}},
	}
	for _, f := range []struct {
		fn     byte
		prefix netip.Prefix
	}{
		{4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), 0}), 24)},
		{6, netip.PrefixFrom(nth6("fd10:244::", 5, node), 64)},
	} {
		bsid := BSID(node, f.fn)
		s.Policies[dataplane.PolicyKey{BSID: bsid}] = dataplane.Policy{
			SegmentLists: []dataplane.SegmentList{{Segments: []netip.Addr{dtSID(via, f.fn)}, Weight: 1}},
		}
		s.Steerings[dataplane.SteeringKey{Prefix: f.prefix}] = dataplane.Steering{BSID: bsid}
	}
}

// BSID is the binding SID of the policy to a node and family (4 or 6) in Sample.
func BSID(node int, family byte) netip.Addr {
	a := Locator.Addr().As16()
	a[6], a[7], a[9], a[15] = 0xeb, 0x51, byte(node), family
	return netip.AddrFrom16(a)
}

func remoteLocator(node int) netip.Prefix {
	return netip.PrefixFrom(nth6("fcbb:bb00::", 5, node), 48)
}

func dtSID(node int, fn byte) netip.Addr {
	a := remoteLocator(node).Addr().As16()
	a[6], a[7] = 0xe0, fn
	return netip.AddrFrom16(a)
}

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

func removeEveryKind(t *testing.T, s *suite) {
	want := s.Sample()
	s.apply(t, want)
	for _, kind := range slices.Backward(dataplane.Kinds()) {
		next := want.Clone()
		// Half of each kind, then all of it.
		half := false
		for k := range want.All() {
			if k.Kind() == kind && !half {
				next.Delete(k)
				half = kind != dataplane.KindPolicy && kind != dataplane.KindInterface
			}
		}
		s.apply(t, next)
		s.requireState(t, next)
		for k := range want.All() {
			if k.Kind() == kind {
				next.Delete(k)
			}
		}
		s.apply(t, next)
		s.requireState(t, next)
		want = next
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

func partialFailure(t *testing.T, s *suite) {
	const late = "sw0000000late"
	want := s.Sample()
	key := dataplane.InterfaceKey(late)
	want.Interfaces[key] = dataplane.Interface{Role: dataplane.RolePod, MTU: 1460, MAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}}
	route := dataplane.RouteKey{Prefix: pfx("10.244.1.99/32")}
	want.Routes[route] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: late, Weight: 1}}}

	err := s.Backend.Apply(s.ctx, dataplane.Diff(want, s.dump(t)))
	failed, rest := dataplane.Failures(err)
	require.NoError(t, rest)
	require.Contains(t, failed, dataplane.Key(key))
	require.ErrorIs(t, failed[key], dataplane.ErrNotReady)
	require.Contains(t, failed, dataplane.Key(route))
	require.Contains(t, failed[key].Error(), late, "the error must name the link")
	for k, e := range failed {
		if k != dataplane.Key(key) && k != dataplane.Key(route) {
			require.ErrorIs(t, e, dataplane.ErrUnsupported)
		}
	}
	without := want.Clone()
	without.Delete(key)
	without.Delete(route)
	s.requireState(t, without)

	s.MakeLink(t, late)
	s.apply(t, want)
	s.requireState(t, want)
}

// anyPath walks at random through subsets and ends in one state, by several
// ways: the end must be the same.
func anyPath(t *testing.T, s *suite) {
	final := s.Sample()
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		for range 3 {
			s.apply(t, closed(subset(final, rnd)))
		}
		s.apply(t, final)
		s.requireState(t, final)
	}
}

// subset takes about half of the objects.
func subset(full dataplane.State, rnd *rand.Rand) dataplane.State {
	out := full.Clone()
	keys := slices.Collect(maps.Keys(maps.Collect(full.All())))
	slices.SortFunc(keys, func(a, b dataplane.Key) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	for _, k := range keys {
		if rnd.IntN(2) == 0 {
			out.Delete(k)
		}
	}
	return out
}

// closed removes whatever refers to something that is not there.
func closed(s dataplane.State) dataplane.State {
	for k, v := range s.Steerings {
		if _, ok := s.Policies[dataplane.PolicyKey{BSID: v.BSID}]; !ok {
			delete(s.Steerings, k)
		}
	}
	has := func(name string) bool {
		_, ok := s.Interfaces[dataplane.InterfaceKey(name)]
		return ok
	}
	for k := range s.Neighbours {
		if !has(k.Interface) {
			delete(s.Neighbours, k)
		}
	}
	for k, v := range s.Routes {
		for _, nh := range v.NextHops {
			if !has(nh.Interface) {
				delete(s.Routes, k)
			}
		}
	}
	return s
}

func cancelled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	err := s.Backend.Apply(ctx, dataplane.Diff(s.Sample(), dataplane.New()))
	require.ErrorIs(t, err, context.Canceled)
	// Whatever was reached, the way on from there is open.
	s.apply(t, s.Sample())
	s.requireState(t, s.Sample())
}

func lists(l ...dataplane.SegmentList) dataplane.Policy {
	dataplane.SortSegmentLists(l)
	return dataplane.Policy{SegmentLists: l}
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// nth is the address n after base, n below 256.
func nth(base string, n int) netip.Addr {
	b := netip.MustParseAddr(base).AsSlice()
	b[len(b)-1] += byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// nth6 is base with one byte set.
func nth6(base string, at, n int) netip.Addr {
	a := netip.MustParseAddr(base).As16()
	a[at] = byte(n)
	return netip.AddrFrom16(a)
}
