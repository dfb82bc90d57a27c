package binapi_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

// startVPP runs a VPP with nothing in it.
func startVPP(t *testing.T) (socket string, process *os.Process) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	v, err := find.Locate("")
	if errors.Is(err, find.ErrNotFound) {
		t.Skip("VPP not found")
	}
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "binapi-")
	require.NoError(t, err)
	prefix := filepath.Base(dir)
	conf := filepath.Join(dir, "startup.conf")
	text := fmt.Sprintf(`unix { nodaemon nosyslog log %[1]s/log cli-listen %[1]s/cli.sock runtime-dir %[1]s }
api-segment { prefix %[2]s }
socksvr { socket-name %[1]s/api.sock }
statseg { socket-name %[1]s/stats.sock page-size 4k }
memory { main-heap-size 256M main-heap-page-size 4k }
buffers { buffers-per-numa 2048 page-size 4k }
plugins { plugin default { disable } plugin af_packet_plugin.so { enable } }
`, dir, prefix)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o644))
	cmd := exec.Command(v.Path, "-c", conf)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(dir)
		for _, f := range []string{"-global_vm", "-vpe-api"} {
			os.Remove("/dev/shm/" + prefix + f)
		}
	})
	return filepath.Join(dir, "api.sock"), cmd.Process
}

func dial(t *testing.T, o binapi.Options) *binapi.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := binapi.Dial(ctx, o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDialWaitsForVPP(t *testing.T) {
	socket, _ := startVPP(t) // it is not up yet
	c := dial(t, binapi.Options{Socket: socket, Require: []binapi.Group{binapi.GroupAFPacket}})
	require.Regexp(t, `^\d\d\.\d\d`, c.Version())
}

func TestDialGivesUpWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := binapi.Dial(ctx, binapi.Options{Socket: filepath.Join(t.TempDir(), "api.sock")})
	require.ErrorIs(t, err, binapi.ErrNotConnectable)
	require.ErrorContains(t, err, "api.sock")
}

// A socket that somebody else serves must not hang the caller.
func TestDialOfSomethingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = binapi.Dial(ctx, binapi.Options{Socket: path})
	require.ErrorIs(t, err, binapi.ErrNotConnectable)
	require.Less(t, time.Since(begin), 5*time.Second)
}

func TestDialNamesTheMissingPlugin(t *testing.T) {
	socket, _ := startVPP(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := binapi.Dial(ctx, binapi.Options{Socket: socket, Require: []binapi.Group{binapi.GroupAFXDP}})
	var inc *binapi.IncompatibleError
	require.ErrorAs(t, err, &inc)
	require.ErrorContains(t, err, "with plugin af_xdp_plugin.so loaded")
}

// Many calls of several kinds, with refusals among them: each outcome must be
// with its own call.
func TestPipelineKeepsOutcomesApart(t *testing.T) {
	socket, _ := startVPP(t)
	c := dial(t, binapi.Options{Socket: socket})
	const n = 6000
	bsid := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0xfc, 0xbb, 0xbb, 0, 0, 1, 0xeb, 0x51, 0, 0, 0, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	var calls []*binapi.Call
	for i := range n {
		add, err := binapi.SRPolicyAdd(bsid(i%(n-1)), binapi.SegmentList{Segments: []netip.Addr{netip.MustParseAddr("fcbb:bb00:2::")}, Weight: 1})
		require.NoError(t, err)
		calls = append(calls, add)
	}
	var policies []binapi.Policy
	var tables []binapi.Table
	calls = append(calls, binapi.SRPolicies(&policies), binapi.IPTables(&tables), binapi.SRPolicyDel(netip.MustParseAddr("fc00::1")))
	require.NoError(t, c.Do(context.Background(), calls...))
	for i, call := range calls[:n-1] {
		require.NoError(t, call.Err, "%d", i)
	}
	require.EqualValues(t, binapi.RetvalPolicyExists, binapi.Retval(calls[n-1].Err), "the last repeats the first")
	require.Len(t, policies, n-1)
	require.Len(t, tables, 2)
	require.EqualValues(t, binapi.RetvalPolicyAbsent, binapi.Retval(calls[n+2].Err))
}

func TestCallsInFlightEndWhenVPPDies(t *testing.T) {
	socket, p := startVPP(t)
	c := dial(t, binapi.Options{Socket: socket})
	require.NoError(t, p.Signal(syscall.SIGSTOP))
	var out string
	call := binapi.CLI("show version", &out)
	result := make(chan error, 1)
	go func() { result <- c.Do(context.Background(), call) }()
	time.Sleep(50 * time.Millisecond)
	require.NoError(t, p.Kill())
	select {
	case err := <-result:
		require.ErrorIs(t, err, binapi.ErrDisconnected)
		require.ErrorIs(t, call.Err, binapi.ErrDisconnected)
	case <-time.After(5 * time.Second):
		t.Fatal("the call hangs")
	}
	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("Done is still open")
	}
	require.ErrorIs(t, c.Do(context.Background(), binapi.CLI("show version", &out)), binapi.ErrDisconnected)
}

func TestVPPThatHangsCountsAsGone(t *testing.T) {
	socket, p := startVPP(t)
	c := dial(t, binapi.Options{Socket: socket, ReplyTimeout: 300 * time.Millisecond})
	require.NoError(t, p.Signal(syscall.SIGSTOP))
	var out string
	require.ErrorIs(t, c.Do(context.Background(), binapi.CLI("show version", &out)), binapi.ErrDisconnected)
}

func TestCancelledCallIsCancelled(t *testing.T) {
	socket, p := startVPP(t)
	c := dial(t, binapi.Options{Socket: socket})
	require.NoError(t, p.Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	var out string
	require.ErrorIs(t, c.Do(ctx, binapi.CLI("show version", &out)), context.DeadlineExceeded)
}
