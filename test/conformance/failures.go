package conformance

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

func partialFailure(t *testing.T, s *suite) {
	const late = "sw0000000late"
	want := s.Sample()
	key := dataplane.InterfaceKey(late)
	want.Interfaces[key] = dataplane.Interface{Role: dataplane.RolePod, MTU: 1460, MAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}}
	route := dataplane.RouteKey{Prefix: pfx("10.244.1.99/32")}
	want.Routes[route] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: late, Weight: 1}}}

	changes := dataplane.Diff(want, s.dump(t))
	failed := s.requireFailures(t, changes, s.Backend.Apply(s.ctx, changes), key, route)
	require.ErrorIs(t, failed[key], dataplane.ErrNotReady)
	require.ErrorIs(t, failed[route], dataplane.ErrNotReady)
	require.Contains(t, failed[key].Err.Error(), late, "the error must name the link")
	without := want.Clone()
	without.Delete(key)
	without.Delete(route)
	s.requireState(t, without)

	s.MakeLink(t, late)
	s.apply(t, want)
	s.requireState(t, want)
}

// steeringWaits: steering to a policy that is not there waits for it, whether it
// is new or moves, and one that moves keeps what it has until then.
func steeringWaits(t *testing.T, s *suite) {
	have := s.Sample()
	s.apply(t, have)
	absent := BSID(9, 4)
	want := have.Clone()
	moved, added := dataplane.SteeringKey{Prefix: pfx("10.244.2.0/24")}, dataplane.SteeringKey{Prefix: pfx("10.244.99.0/24")}
	want.Steerings[moved] = dataplane.Steering{BSID: absent}
	want.Steerings[added] = dataplane.Steering{BSID: absent}
	changes := dataplane.Diff(want, s.dump(t))
	failed := s.requireFailures(t, changes, s.Backend.Apply(s.ctx, changes), moved, added)
	for _, k := range []dataplane.Key{moved, added} {
		require.ErrorIs(t, failed[k], dataplane.ErrNotReady)
		require.Contains(t, failed[k].Err.Error(), absent.String(), "the error must name the policy")
	}
	s.requireState(t, have)

	want.Policies[dataplane.PolicyKey{BSID: absent}] = lists(dataplane.SegmentList{Segments: []netip.Addr{dtSID(9, 4)}, Weight: 1})
	s.apply(t, want)
	s.requireState(t, want)
}

// policyInUse: the steering cannot be moved to its new policy, and the old one is
// deleted in the same Apply. The old path must last until the new one works.
func policyInUse(t *testing.T, s *suite) {
	have := s.Sample()
	s.apply(t, have)
	want := have.Clone()
	for _, prefix := range []string{"10.244.2.0/24", "fd10:244:2::/64"} {
		steering := dataplane.SteeringKey{Prefix: pfx(prefix)}
		old := dataplane.PolicyKey{BSID: have.Steerings[steering].BSID}
		next := dataplane.PolicyKey{BSID: old.BSID.Next()}
		list := have.Policies[old]
		want = want.Clone()
		want.Steerings[steering] = dataplane.Steering{BSID: next.BSID}
		want.Delete(old)
		for range 2 { // it stays so, however often it is tried
			changes := dataplane.Diff(want, s.dump(t))
			failed := s.requireFailures(t, changes, s.Backend.Apply(s.ctx, changes), steering, old)
			require.ErrorIs(t, failed[steering], dataplane.ErrNotReady)
			require.ErrorIs(t, failed[old], dataplane.ErrNotReady)
			require.Contains(t, failed[old].Err.Error(), steering.String(), "the error must name what uses the policy")
			s.requireState(t, have)
		}
		want.Policies[next] = list
		s.apply(t, want)
		s.requireState(t, want)
		have = want
	}
}

func requireCancelled(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, context.Canceled)
	failed, _ := dataplane.Failures(err)
	for _, e := range failed {
		require.NotErrorIs(t, e, context.Canceled, "a change that was not tried has not failed")
	}
}

func cancelled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	err := s.Backend.Apply(ctx, dataplane.Diff(s.Sample(), dataplane.New()))
	requireCancelled(t, err)
	// Whatever was reached, the way on from there is open.
	s.apply(t, s.Sample())
	s.requireState(t, s.Sample())
}

// ending is a context that ends when it has been asked a number of times.
type ending struct {
	context.Context
	cancel context.CancelFunc
	left   atomic.Int32
}

func (e *ending) Err() error {
	if e.left.Add(-1) < 0 {
		e.cancel()
	}
	return e.Context.Err()
}

// cancelledOnTheWay: wherever an Apply is cut short, it says so or has done all,
// and the next one finishes the work.
func cancelledOnTheWay(t *testing.T, s *suite) {
	for _, steps := range []int32{1, 2, 5, 10, 20, 35} {
		base, cancel := context.WithCancel(s.ctx)
		ctx := &ending{Context: base, cancel: cancel}
		ctx.left.Store(steps)
		changes := dataplane.Diff(s.Sample(), s.dump(t))
		err := s.Backend.Apply(ctx, changes)
		if _, rest := dataplane.Failures(err); rest != nil {
			requireCancelled(t, err)
		} else {
			s.requireFailures(t, changes, err)
			s.requireState(t, s.Sample())
		}
		cancel()
		s.apply(t, s.Sample())
		s.requireState(t, s.Sample())
		s.apply(t, dataplane.New())
	}
}

// disconnected: a dataplane that cannot be reached is no failure of single
// objects, and is filled again when it is back.
func disconnected(t *testing.T, s *suite) {
	if s.Disconnect == nil {
		t.Skip("this dataplane is always reachable")
	}
	half := s.Sample()
	for k := range half.Steerings {
		delete(half.Steerings, k)
	}
	s.apply(t, half)
	changes := dataplane.Diff(s.Sample(), s.dump(t))
	reconnect := s.Disconnect(t)
	for range 2 {
		_, err := s.Backend.Dump(s.ctx)
		require.ErrorIs(t, err, dataplane.ErrDisconnected)
		failed, rest := dataplane.Failures(s.Backend.Apply(s.ctx, changes))
		require.ErrorIs(t, rest, dataplane.ErrDisconnected)
		require.Empty(t, failed)
	}
	reconnect()
	s.apply(t, s.Sample())
	s.requireState(t, s.Sample())
}
