package vpp

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// manyNodes is what 5,000 remote nodes mean: a policy and a steering for each.
func manyNodes(n int) dataplane.State {
	s := dataplane.New()
	for i := range n {
		hi, lo := byte(i>>8), byte(i)
		b := netip.MustParseAddr("fcbb:bb00:1:eb51::4").As16()
		b[10], b[11] = hi, lo
		dt := netip.MustParseAddr("fcbb:bb00::").As16()
		dt[4], dt[5], dt[6], dt[7] = hi+1, lo, 0xe0, 4
		bsid := netip.AddrFrom16(b)
		s.Policies[dataplane.PolicyKey{BSID: bsid}] = onePath(netip.AddrFrom16(dt))
		s.Steerings[dataplane.SteeringKey{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24)}] = dataplane.Steering{BSID: bsid}
	}
	return s
}

func BenchmarkProgram5000(b *testing.B) {
	needVPP(b)
	inNetns(b)
	be := newBackend(b, startVPP(b), Options{})
	ctx := context.Background()
	want := manyNodes(5000)
	add, remove := dataplane.Diff(want, dataplane.New()), dataplane.Diff(dataplane.New(), want)
	for b.Loop() {
		require.NoError(b, be.Apply(ctx, add))
		b.StopTimer()
		require.NoError(b, be.Apply(ctx, remove))
		b.StartTimer()
	}
}

func BenchmarkDump5000(b *testing.B) {
	needVPP(b)
	inNetns(b)
	be := newBackend(b, startVPP(b), Options{})
	ctx := context.Background()
	want := manyNodes(5000)
	require.NoError(b, be.Apply(ctx, dataplane.Diff(want, dataplane.New())))
	for b.Loop() {
		s, err := be.Dump(ctx)
		require.NoError(b, err)
		if s.Len() != want.Len() {
			b.Fatalf("%d objects, want %d", s.Len(), want.Len())
		}
	}
}
