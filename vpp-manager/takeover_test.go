package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// rounds of each disturbance: more of them for figures.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("SIDEWINDER_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return 2
}

// extraFlags are for measuring.
func extraFlags() []string {
	return append([]string{"--max-deaths", "0"}, strings.Fields(os.Getenv("SIDEWINDER_FLAGS"))...)
}

// figures of one kind of disturbance.
type figures struct {
	gaps   []time.Duration
	losses []int
	total  int
}

func (f *figures) add(lost int, gap time.Duration) {
	f.gaps, f.losses, f.total = append(f.gaps, gap), append(f.losses, lost), f.total+lost
}

// disturb sends 1,000 packets a second, the first of them through VPP, while f
// is called, and for some time after it.
func (b *bench) disturb(f *figures, what func()) {
	b.t.Helper()
	s := b.send(1000)
	time.Sleep(300 * time.Millisecond)
	_, through := b.modes()
	require.NotZero(b.t, through, "VPP gets the packets")
	what()
	time.Sleep(500 * time.Millisecond)
	_, lost, gap, _ := s.end()
	f.add(lost, gap)
}

// next is the VPP after one that died: asked for, since the manager waits longer
// and longer.
func (b *bench) next() int {
	b.t.Helper()
	out, err := b.command("restart", "--json")
	require.NoError(b.t, err, b.log.String())
	var r supervise.Report
	require.NoError(b.t, json.Unmarshal([]byte(out), &r))
	for b.waitReady() != r.PID {
	}
	return r.PID
}

func TestTakeoverWhenVPPIsKilled(t *testing.T) {
	b := newBench(t, extraFlags()...)
	var f figures
	pid := b.waitReady()
	for range rounds() {
		b.program()
		time.Sleep(200 * time.Millisecond) // till the guard has seen the links
		b.disturb(&f, func() { require.NoError(t, syscall.Kill(pid, syscall.SIGKILL)) })
		if modes, _ := b.modes(); len(modes) != 0 && modes[0] == xdp.ModeVPP {
			t.Skip("the kernel has no guard: ", b.log.String())
		}
		pid = b.next()
	}
	t.Logf("SIGKILL: lost %v (%d in all), gap %s", f.losses, f.total, spread(f.gaps))
	// Without the guard it is 20 packets or more each time. The machine may be
	// busy, so the best round counts.
	require.Less(t, slices.Min(f.losses), 15)
}

func TestTakeoverWhenVPPIsStopped(t *testing.T) {
	b := newBench(t, extraFlags()...)
	var f figures
	pid := b.waitReady()
	for range rounds() {
		b.program()
		b.disturb(&f, func() { require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP)); time.Sleep(300 * time.Millisecond) })
		pid = b.next()
	}
	t.Logf("SIGSTOP: lost %v (%d in all), gap %s", f.losses, f.total, spread(f.gaps))
	// Half of that on a machine with nothing else to do.
	require.Less(t, slices.Min(f.gaps), 600*time.Millisecond)
	require.Contains(t, b.log.String(), "stopped (state T)")
}

func (b *bench) command(args ...string) (string, error) {
	path, err := managerBinary()
	require.NoError(b.t, err)
	out, err := exec.Command(path, append(args, "--run-dir", b.dir)...).Output()
	return string(out), err
}

func TestPlannedRestartLosesNothing(t *testing.T) {
	b := newBench(t, extraFlags()...)
	pid := b.waitReady()
	var f figures
	for range rounds() {
		b.program()
		b.disturb(&f, func() {
			out, err := b.command("restart", "--json")
			require.NoError(t, err, out)
			var r supervise.Report
			require.NoError(t, json.Unmarshal([]byte(out), &r))
			require.Equal(t, pid, r.OldPID)
			require.Equal(t, 2, r.Links)
			require.True(t, r.Quiet)
			require.Empty(t, r.DrainError)
			pid = b.waitReady()
			require.Equal(t, pid, r.PID)
		})
		m, err := node.ReadManager(b.dir)
		require.NoError(t, err)
		require.Equal(t, node.StateReady, m.State)
		require.Zero(t, m.Deaths)
	}
	t.Logf("planned restart: lost %v (%d in all), gap %s", f.losses, f.total, spread(f.gaps))
	// None on a machine with nothing else to do. A VPP that is stopped without
	// being drained first loses all that comes for some 40 ms or more.
	require.Less(t, slices.Min(f.losses), 15)

	// A hang-up is the same, and so is the end of the manager, at first.
	b.program()
	b.disturb(&f, func() {
		require.NoError(t, b.manager.Process.Signal(syscall.SIGHUP))
		b.waitReady()
	})
	b.program()
	b.disturb(&f, func() { require.NoError(t, b.manager.Process.Signal(syscall.SIGTERM)) })
	require.Less(t, slices.Min(f.losses), 15)
	require.Eventually(t, func() bool {
		m, err := node.ReadManager(b.dir)
		return err == nil && m.State == node.StateStopped && m.PID == 0
	}, 5*time.Second, 20*time.Millisecond)
	out, err := b.command("status")
	require.Error(t, err)
	require.Contains(t, out, "it said stopped")
	_, err = b.command("restart")
	require.Error(t, err)
}

// A manager that is killed takes VPP with it; the next one goes on from there.
func TestManagerIsKilledAndStartedAgain(t *testing.T) {
	b := newBench(t, extraFlags()...)
	pid := b.waitReady()
	b.program()
	var f figures
	time.Sleep(200 * time.Millisecond)
	b.disturb(&f, func() {
		require.NoError(t, b.manager.Process.Kill())
		require.Eventually(t, func() bool {
			_, err := os.Stat("/proc/" + strconv.Itoa(pid))
			return os.IsNotExist(err)
		}, 5*time.Second, 10*time.Millisecond)
		b.start()
		b.waitReady()
	})
	t.Logf("manager killed: lost %d, gap %s", f.total, f.gaps[0])
	m, err := node.ReadManager(b.dir)
	require.NoError(t, err)
	require.Equal(t, node.StateReady, m.State)
	require.Equal(t, 1, m.Starts)
	require.NotEqual(t, pid, m.PID)
	b.program()
	out, err := b.command("status")
	require.NoError(t, err)
	require.Contains(t, out, "ready")
}

// A configuration that is wrong is said at once, and changes nothing.
func TestRunRefuses(t *testing.T) {
	path, err := managerBinary()
	require.NoError(t, err)
	dir := t.TempDir()
	snippet := filepath.Join(dir, "snippet")
	require.NoError(t, os.WriteFile(snippet, []byte("socksvr { socket-name /x }"), 0o644))
	fake := filepath.Join(dir, "vpp")
	require.NoError(t, os.WriteFile(fake, []byte("#!/bin/sh\nexit 9\n"), 0o755))
	for want, flags := range map[string][]string{
		"section socksvr":               {"--extra", snippet},
		"--main-heap: \"x\"":            {"--main-heap", "x"},
		"--buffers: 5 is less than":     {"--buffers", "5"},
		"--busy-timeout: 10ms":          {"--busy-timeout", "10ms"},
		"workers on CPU 4000":           {"--worker-cores", "4000"},
		"is not a list of CPUs":         {"--worker-cores", "a"},
		"--core-pattern: has no effect": {"--core-pattern", "core"},
		"--max-deaths: -1":              {"--max-deaths", "-1"},
		"VPP ended: exit status 9":      nil,
	} {
		out, err := exec.Command(path, append([]string{"run", "--vpp", fake, "--run-dir", filepath.Join(dir, "run")}, flags...)...).CombinedOutput()
		require.Error(t, err, want)
		require.Contains(t, string(out), want)
	}
	m, err := node.ReadManager(filepath.Join(dir, "run"))
	require.NoError(t, err)
	require.Equal(t, node.StateStopped, m.State)
	require.Contains(t, m.LastDeath, "exit status 9")
}
