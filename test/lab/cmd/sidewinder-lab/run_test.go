package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/test/lab/labtest"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

var build labtest.Builder

func TestMain(m *testing.M) {
	code := m.Run()
	build.Clean()
	os.Exit(code)
}

// output is a process's output, to be read while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// program is a started sidewinder-lab with its own TMPDIR.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  output
	tmp  string
	done chan struct{}
}

// tempDir is short enough for sockets, and open to every user.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "swlab")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func start(t *testing.T, tmp string, prepare func(*exec.Cmd), args ...string) *program {
	t.Helper()
	p := &program{t: t, tmp: tmp, done: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(build.Dir(t), "sidewinder-lab"), args...)
	p.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	p.cmd.Dir = tmp
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if prepare != nil {
		prepare(p.cmd)
	}
	require.NoError(t, p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// wait gives the exit status.
func (p *program) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("still running after %s:\n%s", limit, p.out.String())
		return -1
	}
}

// waitFor a text in the output.
func (p *program) waitFor(text string, limit time.Duration) {
	p.t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(p.out.String(), text) {
			return
		}
		select {
		case <-p.done:
			require.Contains(p.t, p.out.String(), text, "it has ended")
			return
		default:
		}
	}
	p.t.Fatalf("no %q within %s:\n%s", text, limit, p.out.String())
}

func (p *program) labID() string {
	p.t.Helper()
	m := regexp.MustCompile(`lab (\d+),`).FindStringSubmatch(p.out.String())
	require.NotNil(p.t, m, p.out.String())
	return m[1]
}

// descendants are the processes below pid, found in /proc.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	parents := map[int]int{}
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		parents[p], _ = strconv.Atoi(fields[1])
	}
	var out []int
	for p := range parents {
		for q := parents[p]; q > 0; q = parents[q] {
			if q == pid {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

func requireGone(t *testing.T, pids []int) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, p := range pids {
			if syscall.Kill(p, 0) == nil {
				return false
			}
		}
		return true
	}, 10*time.Second, 20*time.Millisecond, "processes are left")
}

// host is what of a lab could show outside of it.
func host(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, pattern := range []string{"/run/netns/*", "/sys/class/net/*"} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, n := range names {
			if base := filepath.Base(n); regexp.MustCompile(`^(node|tor|spine|uplink|sw[0-9a-f]{11})`).MatchString(base) {
				b.WriteString(n + "\n")
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.HasPrefix(line, "sidewinder-lab") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Empty(t, names, "files are left")
}

func readReport(t *testing.T, path string) report {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(raw, &r))
	return r
}

// requireGood checks a demo of 3 nodes, 2 pods and 2 paths.
func requireGood(t *testing.T, r report) {
	t.Helper()
	require.Empty(t, r.Failures)
	require.True(t, r.OK)
	require.Equal(t, 3, r.Nodes)
	require.Equal(t, 2, r.Pods)
	const pairs, families, checks = 6 * 5, 2, 4
	require.Equal(t, reachability{Tried: pairs * families * checks, OK: pairs * families * checks}, r.Reachability)
	require.GreaterOrEqual(t, r.Surroundings.Tried, 16)
	require.Equal(t, r.Surroundings.Tried, r.Surroundings.OK)
	require.Equal(t, 1000, r.FlowLabels.Flows)
	require.GreaterOrEqual(t, r.FlowLabels.Distinct, 950)
	require.Len(t, r.FlowLabels.Paths, 2)
	require.LessOrEqual(t, r.FlowLabels.MaxPathShare, 0.56)
	require.Greater(t, r.Throughput.TCPBitsPerSecond, 1e6)
	require.Equal(t, 2, r.AgentRestart.Restarts)
	require.Greater(t, r.AgentRestart.Sent, 500)
	require.Zero(t, r.AgentRestart.Lost)
	require.Equal(t, "node3", r.NodeRemoval.Node)
	require.Empty(t, r.NodeRemoval.Left)
	require.Empty(t, r.Left)
}

func needVPP(t *testing.T) {
	t.Helper()
	needRoot(t)
	if _, err := find.Find(context.Background(), "", binapi.GroupAFPacket, binapi.GroupAFXDP); err != nil {
		t.Skipf("VPP not found: %v", err)
	}
}
