package vpp

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A pod's veth that goes away at any moment is not brought up.
func TestBringUpOfALinkThatWentAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	inNetns(t)
	addVeth(t, "sw00000000001", "pod0")
	l, err := findLink("sw00000000001")
	require.NoError(t, err)
	require.NoError(t, bringUp(l.name, l.index))

	delVeth(t, l.name)
	require.NoError(t, bringUp(l.name, l.index))
	require.NoError(t, bringUp(l.name, l.index))

	addVeth(t, "sw00000000001", "pod0") // another of the same name
	require.NoError(t, bringUp(l.name, l.index))
	now, err := findLink(l.name)
	require.NoError(t, err)
	require.NotEqual(t, l.index, now.index)
}
