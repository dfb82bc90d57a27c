package xdp

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTablesAreExactly(t *testing.T) {
	needsBPF(t)
	tables, err := NewTables(TablesOptions{MaxPrefixes: 5000, MaxFlows: 10})
	require.NoError(t, err)
	defer tables.Close()

	many := map[netip.Prefix]Verdict{}
	for i := range 4000 {
		a := [4]byte{10}
		binary.BigEndian.PutUint16(a[1:], uint16(i))
		many[netip.PrefixFrom(netip.AddrFrom4(a), 24)] = VerdictVPP
	}
	for _, want := range []map[netip.Prefix]Verdict{
		testPods(),
		many,
		{prefix("10.0.0.0/8"): VerdictVPP, prefix("10.0.0.0/24"): VerdictKernel, prefix("0.0.0.0/0"): VerdictKernel, prefix("::/0"): VerdictVPP},
		{prefix("10.0.0.0/24"): VerdictVPP},
		{},
		testPods(),
	} {
		require.NoError(t, tables.SetPods(want))
		have, err := tables.Pods()
		require.NoError(t, err)
		require.Equal(t, want, have)
	}
	require.NoError(t, tables.SetUplink(testUplink()))
	have, err := tables.Uplink()
	require.NoError(t, err)
	require.Equal(t, testUplink(), have)

	// Addresses with host bits are their prefix.
	require.NoError(t, tables.SetPods(map[netip.Prefix]Verdict{prefix("10.1.2.3/24"): VerdictVPP}))
	have, err = tables.Pods()
	require.NoError(t, err)
	require.Equal(t, map[netip.Prefix]Verdict{prefix("10.1.2.0/24"): VerdictVPP}, have)
}

func TestTablesRefuse(t *testing.T) {
	needsBPF(t)
	tables, err := NewTables(TablesOptions{MaxPrefixes: 2, MaxFlows: 10})
	require.NoError(t, err)
	defer tables.Close()
	require.ErrorContains(t, tables.SetUplink(map[netip.Prefix]Verdict{prefix("10.0.0.0/8"): VerdictVPP}), "10.0.0.0/8")
	require.ErrorContains(t, tables.SetPods(map[netip.Prefix]Verdict{prefix("10.0.0.0/8"): VerdictVPPInner}), "for uplinks")
	require.ErrorContains(t, tables.SetPods(map[netip.Prefix]Verdict{prefix("10.0.0.0/8"): 0}), "10.0.0.0/8")
	require.ErrorContains(t, tables.SetPods(map[netip.Prefix]Verdict{{}: VerdictVPP}), "not a prefix")
	require.ErrorContains(t, tables.SetPods(testPods()), "MaxPrefixes")

	// A full table changes wholly all the same.
	for _, want := range []map[netip.Prefix]Verdict{
		{prefix("10.0.0.0/8"): VerdictVPP, prefix("11.0.0.0/8"): VerdictVPP},
		{prefix("12.0.0.0/8"): VerdictVPP, prefix("fd00::/8"): VerdictKernel},
	} {
		require.NoError(t, tables.SetPods(want))
		have, err := tables.Pods()
		require.NoError(t, err)
		require.Equal(t, want, have)
	}
}

// What was found in a table is remembered only until the table changes.
func TestTableChangeIsSeenAtOnce(t *testing.T) {
	g := newRig(t, RolePod, ModeVPP)
	frame := framed(between(pod4, peer4, 1, icmp(8, nil)))
	for range 5 {
		require.Equal(t, "vpp", g.run(t, frame))
		require.Equal(t, "vpp", g.run(t, frame), "remembered")
		pods := maps.Clone(g.model.pods)
		pods[prefix(peer4+"/32")] = VerdictKernel
		require.NoError(t, g.tables.SetPods(pods))
		require.Equal(t, "kernel-table", g.run(t, frame))
		require.NoError(t, g.tables.SetPods(g.model.pods))
	}
	// And of other tables nothing is remembered.
	require.Equal(t, "vpp", g.run(t, frame))
	other, err := NewTables(TablesOptions{MaxPrefixes: 10, MaxFlows: 10})
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, g.shim.Bind(RolePod, other))
	require.Equal(t, "kernel-table", g.run(t, frame))
}

// An address can be in both tables, and each has its own word on it.
func TestTablesAreRememberedApart(t *testing.T) {
	g := newRig(t, RoleUplink, ModeVPP)
	a := "fd02::5"
	g.model.uplink[prefix(a+"/128")] = VerdictKernel
	require.NoError(t, g.tables.SetUplink(g.model.uplink))
	uplink, pod := frame6(ip6(remoteNode, a, 59, nil)), framed(between("fd01::5", a, 59, nil))
	for range 3 {
		require.NoError(t, g.shim.Bind(RoleUplink, g.tables))
		require.Equal(t, "kernel-table", g.run(t, uplink))
		require.NoError(t, g.shim.Bind(RolePod, g.tables))
		require.Equal(t, "vpp", g.run(t, pod))
	}
}

// BenchmarkTables is what a change of one prefix among many costs.
func BenchmarkTables(b *testing.B) {
	needsBPF(b)
	tables, err := NewTables(TablesOptions{})
	require.NoError(b, err)
	defer tables.Close()
	pods := map[netip.Prefix]Verdict{}
	for i := range benchPrefixes {
		a := [4]byte{10}
		binary.BigEndian.PutUint16(a[1:], uint16(i))
		pods[netip.PrefixFrom(netip.AddrFrom4(a), 24)] = VerdictVPP
	}
	for i := range b.N {
		pods[prefix("10.255.0.0/32")] = VerdictVPP + Verdict(i%2*2)
		require.NoError(b, tables.SetPods(pods))
	}
}
