package vpp

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// A VPP that starts anew between a Dump and the Apply of what was missing then
// lacks everything else as well: the difference must not be booked as all.
func TestVPPRestartsBetweenDumpAndApply(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{})
	apply(t, b, manyNodes(1))
	ctx := context.Background()
	have, err := b.Dump(ctx)
	require.NoError(t, err)
	more := dataplane.Diff(manyNodes(2), have)
	require.Len(t, more, 2, "a policy and its steering")

	m.kill(t)
	m.waitReady(t)
	require.Eventually(t, func() bool { _, err := b.connect(ctx); return err == nil }, 10*time.Second, 20*time.Millisecond)
	require.ErrorIs(t, b.Apply(ctx, more), dataplane.ErrDisconnected)
	have, err = b.Dump(ctx)
	require.NoError(t, err)
	require.Empty(t, have.Policies, "and nothing was done to the new one")
	apply(t, b, manyNodes(2))
}
