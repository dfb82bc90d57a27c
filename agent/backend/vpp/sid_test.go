package vpp

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// VPP's command line makes SIDs of any prefix length, which VPP shows without
// it and finds with it only; without one it finds it without one only. That must not pass for removed, for ever.
func TestSIDOfAnotherLength(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{})
	ctx := context.Background()
	m.cli(t, "sr localsid prefix fcbb:bb00:1:9::/64 behavior end")
	m.cli(t, "sr localsid prefix fcbb:bb00:1::/56 behavior un 16")
	m.cli(t, "sr localsid address fcbb:bb00:1:8:: behavior end")
	bare := dataplane.LocalSIDKey{SID: netip.MustParsePrefix("fcbb:bb00:1:8::/128")}
	plain := dataplane.LocalSIDKey{SID: netip.MustParsePrefix("fcbb:bb00:1:9::/128")}
	un := dataplane.LocalSIDKey{SID: netip.MustParsePrefix("fcbb:bb00:1::/48")}

	have, err := b.Dump(ctx)
	require.NoError(t, err)
	require.Contains(t, have.LocalSIDs, bare)
	require.Contains(t, have.LocalSIDs, plain)
	require.Contains(t, have.LocalSIDs, un)
	failed, rest := dataplane.Failures(b.Apply(ctx, dataplane.Diff(dataplane.New(), have)))
	require.NoError(t, rest)
	require.ErrorContains(t, failed[plain], "vppctl sr localsid del prefix fcbb:bb00:1:9::/<length>")
	require.ErrorContains(t, failed[bare], "vppctl sr localsid del address fcbb:bb00:1:8::,")
	require.ErrorContains(t, failed[un], "VPP holds SID fcbb:bb00:1::, but not under the length /48")

	// In the way of one that is wanted.
	err = b.Apply(ctx, []dataplane.Change{{Op: dataplane.OpUpdate, Key: plain, New: dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4}}})
	failed, rest = dataplane.Failures(err)
	require.NoError(t, rest)
	require.ErrorContains(t, failed[plain], "vppctl sr localsid del prefix")

	// The remedy works.
	m.cli(t, "sr localsid del address fcbb:bb00:1:8::")
	m.cli(t, "sr localsid del prefix fcbb:bb00:1:9::/64")
	m.cli(t, "sr localsid del prefix fcbb:bb00:1::/56")
	for k := range have.LocalSIDs {
		// VPP makes a second SID with a uN of this kind.
		if k != bare && k != plain && k != un {
			require.Equal(t, un.SID.Addr(), k.SID.Addr())
			m.cli(t, "sr localsid del prefix fcbb:bb00:1::/72")
		}
	}
	apply(t, b, dataplane.New())

	// One that nobody shows is gone: no failure.
	require.NoError(t, b.Apply(ctx, []dataplane.Change{{Op: dataplane.OpDelete, Key: plain}, {Op: dataplane.OpDelete, Key: un}}))
}
