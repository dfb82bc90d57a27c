package vpp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

// managerBinary builds vpp-manager once for all tests.
var managerBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vpp-manager-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "vpp-manager")
	out, err := exec.Command("go", "build", "-o", path, "github.com/sidewinder-net/sidewinder/vpp-manager").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building vpp-manager: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := managerBinary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// needVPP skips without VPP or the rights to use it.
func needVPP(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := find.Locate(""); errors.Is(err, find.ErrNotFound) {
		t.Skip("VPP not found")
	}
}

// inNetns moves the test's goroutine into a fresh network namespace for the
// rest of the test.
func inNetns(t testing.TB) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	ns, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, netns.Set(home))
		ns.Close()
		home.Close()
		runtime.UnlockOSThread()
	})
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	return ns
}

// manager is a running vpp-manager with its VPP, in the namespace of the
// goroutine that started it.
type manager struct {
	dir   string
	args  []string
	cmd   *exec.Cmd
	ready chan string
	log   bytes.Buffer
}

// startVPP runs vpp-manager and waits until VPP is ready. args are more flags of
// its run, which come after the harness's own.
func startVPP(t testing.TB, args ...string) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "swvpp-")
	require.NoError(t, err)
	m := &manager{dir: dir, args: args}
	t.Cleanup(func() {
		if m.cmd != nil {
			m.stop(t)
		}
		if t.Failed() {
			t.Logf("vpp-manager:\n%s", m.log.String())
		}
		os.RemoveAll(dir)
	})
	m.start(t)
	return m
}

// start runs the manager, for the first time or after stop.
func (m *manager) start(t testing.TB) {
	t.Helper()
	bin, err := managerBinary()
	require.NoError(t, err)
	ready := make(chan string, 16)
	m.ready = ready
	m.cmd = exec.Command(bin, append([]string{"run", "--run-dir", m.dir, "--buffers", "8192"}, m.args...)...)
	m.cmd.Stderr = &m.log
	// The child must not outlive a test that is killed.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := m.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, m.cmd.Start())
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			ready <- sc.Text()
		}
		close(ready)
	}()
	m.waitReady(t)
}

func (m *manager) waitReady(t testing.TB) {
	t.Helper()
	select {
	case line, ok := <-m.ready:
		if !ok {
			_ = m.cmd.Wait()
			t.Fatalf("vpp-manager ended:\n%s", m.log.String())
		}
		require.Contains(t, line, "vpp ready")
	case <-time.After(40 * time.Second):
		t.Fatal("VPP is not ready after 40 s")
	}
}

// stop ends the manager and its VPP; a second time it does nothing.
func (m *manager) stop(t testing.TB) {
	t.Helper()
	if m.cmd.ProcessState != nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("vpp-manager: %v", err)
	}
}

func (m *manager) socket() string { return filepath.Join(m.dir, "api.sock") }

// cli runs a command in VPP.
func (m *manager) cli(t testing.TB, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := binapi.Dial(ctx, binapi.Options{Socket: m.socket()})
	require.NoError(t, err)
	defer c.Close()
	var out string
	call := binapi.CLI(command, &out)
	require.NoError(t, c.Do(ctx, call))
	require.NoError(t, call.Err)
	return out
}

// kill ends VPP at once, as a crash would.
func (m *manager) kill(t testing.TB) {
	t.Helper()
	require.NoError(t, syscall.Kill(m.pid(t), syscall.SIGKILL))
}

// freeze stops VPP where it is, until resume or the end of the test.
func (m *manager) freeze(t testing.TB) (resume func()) {
	t.Helper()
	pid := m.pid(t)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	resume = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	t.Cleanup(resume)
	return resume
}

// pid of VPP.
func (m *manager) pid(t testing.TB) int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.dir, "vpp.pid"))
	require.NoError(t, err)
	var pid int
	_, err = fmt.Sscan(string(raw), &pid)
	require.NoError(t, err)
	return pid
}

func testLog(t testing.TB) *logrus.Entry {
	l := logrus.New()
	l.SetOutput(writer{t})
	l.SetLevel(logrus.InfoLevel)
	return logrus.NewEntry(l)
}

type writer struct{ t testing.TB }

func (w writer) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func newBackend(t testing.TB, m *manager, o Options) *Backend {
	t.Helper()
	o.Socket, o.Log = m.socket(), testLog(t)
	if !o.Locator.IsValid() {
		o.Locator = netip.MustParsePrefix("fcbb:bb00:1::/48")
	}
	b, err := New(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// addVeth makes a veth pair, both ends up, in this namespace.
func addVeth(t testing.TB, name, peer string) {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500}, PeerName: peer}
	require.NoError(t, netlink.LinkAdd(v))
	for _, n := range []string{name, peer} {
		l, err := netlink.LinkByName(n)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(l))
	}
}

// apply takes the backend to want, and requires that it gets there.
func apply(t testing.TB, b dataplane.Backend, want dataplane.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	have, err := b.Dump(ctx)
	require.NoError(t, err)
	require.NoError(t, b.Apply(ctx, dataplane.Diff(want, have)))
	have, err = b.Dump(ctx)
	require.NoError(t, err)
	require.Equal(t, want.Text(), have.Text())
}
