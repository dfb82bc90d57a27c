package bench

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/compile"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

const nodes, pods = 5000, 110

var gateway = netip.MustParseAddr("fe80::1")

func BenchmarkCompile5000Nodes(b *testing.B) {
	s := Cluster(nodes, pods, "up0", gateway)
	b.ReportAllocs()
	for b.Loop() {
		compile.Compile(s, compile.Target{})
	}
}

// BenchmarkDiff5000Nodes compares two states that differ in one node.
func BenchmarkDiff5000Nodes(b *testing.B) {
	full := compile.Compile(Cluster(nodes, pods, "up0", gateway), compile.Target{}).State
	less := compile.Compile(Cluster(nodes-1, pods, "up0", gateway), compile.Target{}).State
	b.ReportAllocs()
	for b.Loop() {
		// A route, two policies and two steering entries.
		require.Len(b, dataplane.Diff(full, less), 5)
	}
}

// BenchmarkCompileAndDiff5000Nodes is what a change of one peer costs before the
// dataplane is reached.
func BenchmarkCompileAndDiff5000Nodes(b *testing.B) {
	less := compile.Compile(Cluster(nodes-1, pods, "up0", gateway), compile.Target{}).State
	s := Cluster(nodes, pods, "up0", gateway)
	b.ReportAllocs()
	for b.Loop() {
		dataplane.Diff(compile.Compile(s, compile.Target{}).State, less)
	}
}

// BenchmarkProgramFake5000Nodes programs an empty dataplane in memory.
func BenchmarkProgramFake5000Nodes(b *testing.B) {
	s := Cluster(nodes, 0, "up0", gateway)
	changes := dataplane.Diff(compile.Compile(s, compile.Target{}).State, dataplane.New())
	b.ReportMetric(float64(len(changes)), "objects")
	for b.Loop() {
		require.NoError(b, fake.New("up0").Apply(context.Background(), changes))
	}
}

// TestClusterIsWhole: the made-up cluster has no problems and every peer in it.
func TestClusterIsWhole(t *testing.T) {
	res := compile.Compile(Cluster(300, 10, "up0", gateway), compile.Target{})
	require.Empty(t, res.Problems)
	require.Len(t, res.State.Policies, 2*299)
	require.Len(t, res.State.Steerings, 2*299)
	require.Len(t, res.State.Interfaces, 11)
}
