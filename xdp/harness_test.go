package xdp

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// needsBPF skips where the shim cannot run, and says why.
func needsBPF(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to load BPF programs")
	}
	if err := Supported(); err != nil {
		t.Skip(err)
	}
}

// rig is a shim that is attached to nothing and run on frames by hand, beside
// its model.
type rig struct {
	shim   *Shim
	tables *Tables
	model  *model
	out    []byte
}

// newRig has tables that are bound, and a socket on queue 0, where test runs
// arrive.
func newRig(t testing.TB, r Role, m Mode) *rig {
	t.Helper()
	needsBPF(t)
	g := &rig{shim: &Shim{linkName: "none"}, out: make([]byte, 1<<12)}
	require.NoError(t, g.shim.load())
	t.Cleanup(func() { require.NoError(t, g.shim.Close()) })
	var err error
	g.tables, err = NewTables(TablesOptions{MaxPrefixes: 1 << 14, MaxFlows: 1 << 14})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.tables.Close()) })
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, g.shim.RegisterSocket(0, fd))

	g.model = &model{mode: m, role: r, uplink: testUplink(), pods: testPods(), flows: map[flowKey]modelFlow{}, socket: true}
	require.NoError(t, g.tables.SetUplink(g.model.uplink))
	require.NoError(t, g.tables.SetPods(g.model.pods))
	require.NoError(t, g.shim.Bind(r, g.tables))
	require.NoError(t, g.shim.SetMode(m))
	return g
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// The addresses of the tests: this node is fcbb:bb00:1::/48 with its pods in
// 10.1.0.0/24 and fd01::/64, another one has 10.2.0.0/24 and fd02::/64.
func testUplink() map[netip.Prefix]Verdict {
	return map[netip.Prefix]Verdict{
		prefix("fcbb:bb00:1::/48"):      VerdictVPP,
		prefix("fcbb:bb00:1:e004::/64"): VerdictVPPInner,
		prefix("fcbb:bb00:1:e006::/64"): VerdictVPPInner,
		prefix("fcbb:bb00:1:e0ff::/64"): VerdictKernel,
	}
}

func testPods() map[netip.Prefix]Verdict {
	return map[netip.Prefix]Verdict{
		prefix("10.1.0.0/24"):  VerdictVPP,
		prefix("10.1.0.9/32"):  VerdictKernel, // a pod that VPP does not hold
		prefix("10.2.0.0/24"):  VerdictVPP,
		prefix("10.2.0.1/32"):  VerdictKernel, // a node's address
		prefix("fd01::/64"):    VerdictVPP,
		prefix("fd01::9/128"):  VerdictKernel,
		prefix("fd02::/64"):    VerdictVPP,
		prefix("10.96.0.0/12"): VerdictKernel,
	}
}

// run gives the shim one frame, and returns by which counter it was counted.
// The frame must come out as it went in, and what it returns must be what the
// counter says.
func (g *rig) run(t testing.TB, frame []byte) string {
	t.Helper()
	before, err := g.shim.Counters()
	require.NoError(t, err)
	o := &ebpf.RunOptions{Data: frame, DataOut: g.out[:cap(g.out)]}
	action, err := g.shim.program.Run(o)
	require.NoError(t, err)
	require.Equal(t, frame, o.DataOut, "the shim changed a frame")
	after, err := g.shim.Counters()
	require.NoError(t, err)
	counted := ""
	for name, n := range after {
		switch n - before[name] {
		case 0:
		case 1:
			require.Empty(t, counted, "counted twice: %s and %s", counted, name)
			counted = name
		default:
			require.Fail(t, "one frame is counted once", "%s: %d", name, n-before[name])
		}
	}
	want := uint32(actionPass)
	if counted == "vpp" {
		want = actionRedirect
	}
	require.Equal(t, want, action, "action of a frame counted as %q", counted)
	return counted
}

// runBoth gives a frame to the shim and to the model: both must count it alike
// and remember the same.
func (g *rig) runBoth(t testing.TB, frame []byte) string {
	t.Helper()
	want := counterNames()[g.model.run(frame)]
	got := g.run(t, frame)
	require.Equal(t, want, got, "model and shim disagree on % x", frame)
	g.requireFlows(t, frame)
	return got
}

func (g *rig) requireFlows(t testing.TB, frame []byte) {
	t.Helper()
	have := g.flows(t)
	want := maps.Clone(g.model.flows)
	for k, f := range have {
		w, ok := want[k]
		require.True(t, ok, "shim remembers %v after % x", k, frame)
		require.Equal(t, w.state, f.state, "state of %v after % x", k, frame)
		require.InDelta(t, w.left.Seconds(), f.left.Seconds(), 20, "%v after % x", k, frame)
		delete(want, k)
	}
	require.Empty(t, want, "shim does not remember, after % x", frame)
}

// flows reads what the shim remembers.
func (g *rig) flows(t testing.TB) map[flowKey]modelFlow {
	t.Helper()
	var now unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	have := map[flowKey]modelFlow{}
	var k flowKey
	var f flow
	entries := g.tables.flows.Iterate()
	for entries.Next(&k, &f) {
		have[k] = modelFlow{f.State, time.Duration(int64(f.Expires) - now.Nano())}
	}
	require.NoError(t, entries.Err())
	return have
}

// forget empties the memory of both.
func (g *rig) forget(t testing.TB) {
	t.Helper()
	for k := range g.flows(t) {
		if err := g.tables.flows.Delete(k); !errors.Is(err, ebpf.ErrKeyNotExist) {
			require.NoError(t, err)
		}
	}
	clear(g.model.flows)
}

func runOf(frame []byte) *ebpf.RunOptions { return &ebpf.RunOptions{Data: frame} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
