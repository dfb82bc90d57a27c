package vpp

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A pod's veth that goes away at any moment needs nothing restored.
func TestRestoreOfALinkThatWentAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	inNetns(t)
	addVeth(t, "sw00000000001", "pod0")
	l, err := findLink("sw00000000001")
	require.NoError(t, err)
	require.NoError(t, restoreLink(l))

	delVeth(t, l.name)
	require.NoError(t, restoreLink(l), "gone between the look and the settings")
	require.NoError(t, restorePodLink(l.name, l.index))

	addVeth(t, "sw00000000001", "pod0") // another of the same name
	require.NoError(t, restorePodLink(l.name, l.index))
	now, err := findLink(l.name)
	require.NoError(t, err)
	require.NotEqual(t, l.index, now.index)
}
