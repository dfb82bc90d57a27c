package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

const staysUp = "The lab stays up"

// keepUp starts a small lab that stays up.
func keepUp(t *testing.T, tmp string) *program {
	t.Helper()
	needRoot(t)
	p := start(t, tmp, nil, "up", "--dataplane", "linux", "--nodes", "2", "--pods", "1")
	p.waitFor(staysUp, 2*time.Minute)
	return p
}

// TestEndsWithoutTrace: a lab leaves nothing behind, however the lab ends.
func TestEndsWithoutTrace(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, p *program, tree []int)
		code int
	}{
		{"interrupt", func(t *testing.T, p *program, _ []int) {
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
		}, 0},
		{"terminate", func(t *testing.T, p *program, _ []int) {
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
		}, 0},
		{"outer process killed", func(t *testing.T, p *program, _ []int) {
			require.NoError(t, p.cmd.Process.Kill())
		}, -1},
		{"down", func(t *testing.T, p *program, _ []int) {
			t.Setenv("TMPDIR", p.tmp)
			require.NoError(t, tree.Down(p.labID(), time.Minute))
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp, before := tempDir(t), host(t)
			p := keepUp(t, tmp)
			pids := descendants(t, p.cmd.Process.Pid)
			require.GreaterOrEqual(t, len(pids), 4, "init, worker and two agents")
			c.end(t, p, pids)
			require.Equal(t, c.code, p.wait(time.Minute), p.out.String())
			requireGone(t, pids)
			require.Eventually(t, func() bool {
				entries, err := os.ReadDir(tmp)
				return err == nil && len(entries) == 0
			}, 10*time.Second, 20*time.Millisecond, "files are left")
			require.Equal(t, before, host(t))
		})
	}
}

func TestKilledInsideTakesAllDown(t *testing.T) {
	tmp := tempDir(t)
	p := keepUp(t, tmp)
	pids := descendants(t, p.cmd.Process.Pid)
	var initPID int
	for _, pid := range pids {
		if raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && strings.HasPrefix(string(raw), "sidewinder-lab-init\x00") {
			initPID = pid
		}
	}
	require.NotZero(t, initPID)
	require.NoError(t, syscall.Kill(initPID, syscall.SIGKILL))
	require.Equal(t, 128+int(syscall.SIGKILL), p.wait(30*time.Second))
	require.Contains(t, p.out.String(), "the lab ended with status 137")
	requireGone(t, pids)
	requireEmpty(t, tmp)
}

func TestInterruptWhileStarting(t *testing.T) {
	needRoot(t)
	tmp := tempDir(t)
	p := start(t, tmp, nil, "demo", "--dataplane", "linux", "--nodes", "8", "--pods", "8")
	p.waitFor("fabric", time.Minute)
	pids := descendants(t, p.cmd.Process.Pid)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, tree.ExitInterrupted, p.wait(time.Minute), p.out.String())
	requireGone(t, pids)
	requireEmpty(t, tmp)
}

// TestStaleFilesAreSwept: outer and init killed at once leave a directory, and
// the next lab removes it.
func TestStaleFilesAreSwept(t *testing.T) {
	needRoot(t)
	tmp := tempDir(t)
	stale, alive := filepath.Join(tmp, "sidewinder-lab-111"), filepath.Join(tmp, "not-a-lab")
	for _, d := range []string{stale, alive} {
		require.NoError(t, os.MkdirAll(filepath.Join(d, "logs"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(d, "lock"), nil, 0o600))
	}
	p := keepUp(t, tmp)
	require.NoDirExists(t, stale)
	require.DirExists(t, alive)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.wait(time.Minute), p.out.String())
}

func TestExecAndList(t *testing.T) {
	tmp := tempDir(t)
	p := keepUp(t, tmp)
	id := p.labID()
	run := func(args ...string) (string, int) {
		q := start(t, tmp, nil, args...)
		code := q.wait(30 * time.Second)
		return q.out.String(), code
	}
	out, code := run("list")
	require.Zero(t, code)
	require.Contains(t, out, id)
	require.Contains(t, out, "running")

	out, code = run("exec", id, "node1", "--", "cat", "/proc/sys/kernel/hostname", "/sys/class/net/uplink0/mtu")
	require.Zero(t, code, out)
	require.Equal(t, "node1\n1500\n", out)

	out, code = run("exec", id, "spine1", "--", "cat", "/proc/sys/net/ipv6/fib_multipath_hash_policy")
	require.Zero(t, code, out)
	require.Equal(t, "3\n", out)

	_, code = run("exec", id, "node2-pod1", "--", "sh", "-c", "exit 7")
	require.Equal(t, 7, code)

	out, code = run("exec", id, "node9", "--", "true")
	require.NotZero(t, code)
	require.Contains(t, out, "node1 node1-pod1 node2")

	out, code = run("exec", "0", "node1", "--", "true")
	require.Equal(t, 1, code)
	require.Contains(t, out, id, "it says what there is")

	// A client that goes away takes its command along.
	q := start(t, tmp, nil, "exec", id, "node1", "--", "sleep", "1000")
	sleeping := func() (n int) {
		for _, pid := range descendants(t, p.cmd.Process.Pid) {
			if raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && string(raw) == "sleep\x001000\x00" {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return sleeping() == 1 }, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, q.cmd.Process.Kill())
	require.Eventually(t, func() bool { return sleeping() == 0 }, 10*time.Second, 20*time.Millisecond)
}

// TestHintsWork: what a kept lab tells the user to run can be run, and shows
// something.
func TestHintsWork(t *testing.T) {
	p := keepUp(t, tempDir(t))
	p.waitFor(" down "+p.labID()+"\n", 10*time.Second)
	ran := map[string]bool{}
	for _, line := range strings.Split(p.out.String(), "\n") {
		words := strings.Fields(line)
		if len(words) < 6 || words[1] != "exec" {
			continue
		}
		ran[words[5]] = true
		if words[5] == "tcpdump" {
			continue // It runs until somebody ends it.
		}
		q := start(t, p.tmp, nil, words[1:]...)
		require.Zero(t, q.wait(30*time.Second), "%s\n%s", line, q.out.String())
		require.NotEmpty(t, strings.TrimSpace(q.out.String()), line)
	}
	for _, program := range []string{"ip", "ping", "tcpdump"} {
		require.Equal(t, runnable(program), ran[program], program)
	}
	if ran["ip"] {
		require.Contains(t, p.out.String(), "node1 -- ip nexthop\n")
		require.Contains(t, p.out.String(), "node1 -- ip -6 route show table 0x5357\n")
	}
}

// TestHintsOnlyOfWhatIsThere: without the programs nobody is told to run them.
func TestHintsOnlyOfWhatIsThere(t *testing.T) {
	needRoot(t)
	empty := tempDir(t)
	p := start(t, tempDir(t), func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+empty) },
		"up", "--dataplane", "linux", "--nodes", "2", "--pods", "1")
	p.waitFor(" down ", 2*time.Minute)
	require.Contains(t, p.out.String(), staysUp)
	for _, program := range []string{"ip", "ping", "tcpdump"} {
		require.NotContains(t, p.out.String(), " -- "+program+" ")
	}
}

// TestKeptDemo: verdict and report come before the wait, which counts nowhere.
func TestKeptDemo(t *testing.T) {
	needRoot(t)
	path := filepath.Join(tempDir(t), "report.json")
	begin := time.Now()
	p := start(t, tempDir(t), nil, "demo", "--dataplane", "linux", "--nodes", "2", "--pods", "1", "--keep", "--report", path)
	p.waitFor(staysUp, 2*time.Minute)
	took := time.Since(begin)
	require.Contains(t, p.out.String(), "OK in ")
	r := readReport(t, path)
	require.True(t, r.OK)
	time.Sleep(3 * time.Second)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Zero(t, p.wait(time.Minute), p.out.String())
	require.Equal(t, 1, strings.Count(p.out.String(), "OK in "))
	require.LessOrEqual(t, float64(readReport(t, path).Durations["total"]), float64(took.Milliseconds()))
	requireEmpty(t, p.tmp)
}
