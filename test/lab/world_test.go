package lab_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab"
)

// TestHostsServicesAndTheOutside: what is beside pods talking to pods works on
// either dataplane. On a VPP node it is the kernel that carries it.
func TestHostsServicesAndTheOutside(t *testing.T) {
	t.Run("linux", func(t *testing.T) { tryWorld(t, newLab(t, lab.Options{Nodes: 2, Pods: 2, Paths: 2})) })
	t.Run("vpp", func(t *testing.T) {
		vpp := findVPP(t)
		tryWorld(t, newLab(t, lab.Options{Nodes: 2, Pods: 2, Paths: 2, VPP: vpp, Dataplane: func(int) string { return config.DataplaneVPP }}))
	})
}

func tryWorld(t *testing.T, l *lab.Lab) {
	t.Helper()
	w, err := l.Surround(l.Node(1), l.Node(2))
	require.NoError(t, err)
	defer w.Close()
	require.GreaterOrEqual(t, len(w.Ways), 16)
	before, err := l.Node(1).Status(t.Context())
	require.NoError(t, err)
	worked, err := w.Try(t.Context())
	require.NoError(t, err)
	after, err := l.Node(1).Status(t.Context())
	require.NoError(t, err)
	if l.Node(1).RunsVPP() {
		require.NoError(t, lab.KeptByKernel(before, after))
	} else {
		require.Error(t, lab.KeptByKernel(before, after), "there are no shims")
	}
	require.Equal(t, len(w.Ways), worked)
	requireReach(t, l)
}
