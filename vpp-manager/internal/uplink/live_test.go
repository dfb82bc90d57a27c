package uplink

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

// needDPDK skips without a VPP that has the dpdk plugin.
func needDPDK(t *testing.T) {
	t.Helper()
	v, err := find.Locate("")
	if err != nil {
		t.Skip("VPP not found")
	}
	dir, err := filepath.EvalSymlinks(v.Path)
	require.NoError(t, err)
	for _, pattern := range []string{"../lib/vpp_plugins", "../lib/*/vpp_plugins"} {
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), pattern, "dpdk_plugin.so")); len(found) > 0 {
			return
		}
	}
	t.Skip("VPP's dpdk plugin not found")
}

// liveManager is a vpp-manager whose VPP has eth0 for itself.
type liveManager struct {
	bin, runDir, dir string
	cmd              *exec.Cmd
	out              syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newLiveManager(t *testing.T) *liveManager {
	t.Helper()
	m := &liveManager{bin: filepath.Join(t.TempDir(), "vpp-manager"), dir: t.TempDir()}
	out, err := exec.Command("go", "build", "-o", m.bin, "github.com/sidewinder-net/sidewinder/vpp-manager").CombinedOutput()
	require.NoError(t, err, "%s", out)
	m.runDir, err = os.MkdirTemp("", "swup-")
	require.NoError(t, err)
	t.Cleanup(func() {
		m.stop(t, syscall.SIGKILL)
		os.RemoveAll(m.runDir)
		if t.Failed() {
			t.Logf("vpp-manager:\n%s", m.out.String())
		}
	})
	return m
}

// start runs it in this namespace until VPP is ready.
func (m *liveManager) start(t *testing.T, flags ...string) {
	t.Helper()
	ready := strings.Count(m.out.String(), "vpp ready")
	m.cmd = exec.Command(m.bin, append([]string{"run", "--run-dir", m.runDir, "--buffers", "8192",
		"--uplink", "eth0=dpdk:net_af_packet", "--uplink-dir", m.dir}, flags...)...)
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	require.NoError(t, m.cmd.Start())
	m.wait(t, "vpp ready", ready+1)
}

func (m *liveManager) wait(t *testing.T, what string, times int) {
	t.Helper()
	for range 3000 {
		if strings.Count(m.out.String(), what) >= times {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("vpp-manager does not say %q for the time number %d", what, times)
}

func (m *liveManager) stop(t *testing.T, sig syscall.Signal) {
	if m.cmd == nil || m.cmd.ProcessState != nil {
		return
	}
	require.NoError(t, m.cmd.Process.Signal(sig))
	if err := m.cmd.Wait(); sig == syscall.SIGTERM {
		require.NoError(t, err)
	}
}

func (m *liveManager) restore(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(m.bin, "restore", "--run-dir", m.runDir, "--uplink-dir", m.dir)
	cmd.Stderr = &m.out
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// killVPP as a crash would.
func (m *liveManager) killVPP(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.runDir, "vpp.pid"))
	require.NoError(t, err)
	var pid int
	for _, c := range strings.TrimSpace(string(raw)) {
		pid = 10*pid + int(c-'0')
	}
	require.Greater(t, pid, 1)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// newFarHost gives the host of newHost a peer in a namespace of its own, which
// answers UDP.
func newFarHost(t *testing.T) {
	t.Helper()
	far := farNamespace(t)
	l, err := netlink.LinkByName("far0")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetNsFd(l, int(far)))
	inside(t, far, func() {
		ip(t, "link set lo up")
		require.NoError(t, writeSysctl("far0", sysctlDAD, "0"))
		ip(t, "link set far0 up")
		ip(t, "addr add 10.9.0.2/24 dev far0")
		ip(t, "addr add 2001:db8::2/64 dev far0")
		require.NoError(t, offloadsOff("far0"))
		for _, a := range []string{"10.9.0.2:7", "[2001:db8::2]:7"} {
			var c net.PacketConn
			for range 200 { // the address is usable in a moment
				if c, err = net.ListenPacket("udp", a); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			require.NoError(t, err)
			t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 2048)
				for {
					n, from, err := c.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteTo(buf[:n], from)
				}
			}()
		}
	})
	require.NoError(t, offloadsOff("eth0"))
	for range 500 {
		if !strings.Contains(ip(t, "addr show dev eth0"), "tentative") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// probe sends packets to the far host, every interval, and notes which of them
// come back.
type probe struct {
	conn  net.PacketConn
	stop  chan struct{}
	ended sync.WaitGroup
	sent  int

	mu    sync.Mutex
	back  map[uint32]time.Time
	times []time.Time
}

const probeInterval = 5 * time.Millisecond

func newProbe(t *testing.T, from, to string) *probe {
	t.Helper()
	c, err := net.ListenPacket("udp", from)
	require.NoError(t, err)
	dst, err := net.ResolveUDPAddr("udp", to)
	require.NoError(t, err)
	p := &probe{conn: c, stop: make(chan struct{}), back: map[uint32]time.Time{}}
	p.ended.Add(2)
	go func() {
		defer p.ended.Done()
		tick := time.NewTicker(probeInterval)
		defer tick.Stop()
		for i := uint32(0); ; i++ {
			_, _ = c.WriteTo(binary.BigEndian.AppendUint32(nil, i), dst) // what cannot be sent is lost
			p.sent++
			select {
			case <-p.stop:
				return
			case <-tick.C:
			}
		}
	}()
	go func() {
		defer p.ended.Done()
		buf := make([]byte, 64)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil && strings.Contains(err.Error(), "closed") {
				return
			}
			if err != nil || n != 4 {
				continue // an ICMP error is told as one of the socket
			}
			p.mu.Lock()
			p.back[binary.BigEndian.Uint32(buf)] = time.Now()
			p.times = append(p.times, time.Now())
			p.mu.Unlock()
		}
	}()
	return p
}

// backSince tells whether a packet has come back after a time.
func (p *probe) backSince(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.times) > 0 && p.times[len(p.times)-1].After(t)
}

// end returns how many were sent and lost, and the longest time without one.
func (p *probe) end() (sent, lost int, gap time.Duration) {
	close(p.stop)
	time.Sleep(300 * time.Millisecond)
	p.conn.Close()
	p.ended.Wait()
	for i := 1; i < len(p.times); i++ {
		gap = max(gap, p.times[i].Sub(p.times[i-1]))
	}
	return p.sent, p.sent - len(p.back), gap
}

// during reports what the host loses while do runs, and requires that it is on
// the network before and after.
func during(t *testing.T, what string, do func()) {
	t.Helper()
	v4, v6 := newProbe(t, "10.9.0.1:0", "10.9.0.2:7"), newProbe(t, "[2001:db8::1]:0", "[2001:db8::2]:7")
	time.Sleep(200 * time.Millisecond)
	do()
	done := time.Now()
	for name, p := range map[string]*probe{"IPv4": v4, "IPv6": v6} {
		recent := false
		for range 500 {
			if recent = p.backSince(done); recent {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		sent, lost, gap := p.end()
		t.Logf("%s, %s: %d packets sent, %d lost, longest gap %s", what, name, sent, lost, gap.Round(time.Millisecond))
		if !recent {
			t.Logf("%s%s%s", ip(t, "addr show dev eth0"), ip(t, "neigh show"), ip(t, "-6 route"))
		}
		require.True(t, recent, "the host is not on the network after: %s (%s)", what, name)
		require.Positive(t, sent-lost)
	}
}

func TestManagerTakesAndRestores(t *testing.T) {
	inNetns(t)
	needDPDK(t)
	newHost(t)
	newFarHost(t)
	before := show(t)
	m := newLiveManager(t)

	during(t, "start", func() { m.start(t) })
	require.Equal(t, before, show(t), "with VPP")
	during(t, "stop in order", func() { m.stop(t, syscall.SIGTERM) })
	require.Equal(t, before, show(t), "after a stop in order")
	require.Empty(t, m.restore(t), "nothing is left to restore")

	m.start(t)
	during(t, "SIGKILL of vpp-manager and restore", func() {
		m.stop(t, syscall.SIGKILL)
		require.Equal(t, "restored: eth0\n", m.restore(t))
	})
	require.Equal(t, before, show(t), "after SIGKILL and restore")

	m.start(t)
	during(t, "SIGKILL of vpp-manager and a start", func() {
		m.stop(t, syscall.SIGKILL)
		m.start(t)
	})
	require.Equal(t, before, show(t), "with VPP, after SIGKILL and a start")
	out, err := exec.Command(m.bin, "restore", "--run-dir", m.runDir, "--uplink-dir", m.dir).CombinedOutput()
	require.Error(t, err, "a manager runs")
	require.Contains(t, string(out), "in use by another vpp-manager")

	during(t, "SIGKILL of VPP", func() {
		m.killVPP(t)
		m.wait(t, "vpp ready", 5)
	})
	require.Equal(t, before, show(t), "after SIGKILL of VPP")
	m.stop(t, syscall.SIGTERM)
	require.Equal(t, before, show(t), "at the end")
}

func TestManagerGivesTheNICBackWhenItGivesUp(t *testing.T) {
	inNetns(t)
	needDPDK(t)
	newHost(t)
	newFarHost(t)
	before := show(t)
	m := newLiveManager(t)
	m.start(t, "--max-deaths", "1")
	during(t, "VPP dies and is not started again", func() {
		m.killVPP(t)
		m.wait(t, "the host's again", 1)
	})
	require.Equal(t, before, show(t))
	out, err := exec.Command(m.bin, "restart", "--run-dir", m.runDir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	m.wait(t, "vpp ready", 2)
	require.Equal(t, before, show(t))
	require.NotEqual(t, "far0", standsBehind(t, "eth0"))
	m.stop(t, syscall.SIGTERM)
	require.Equal(t, before, show(t))
}

func standsBehind(t *testing.T, name string) string {
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	p, err := netlink.LinkByIndex(l.Attrs().ParentIndex)
	if err != nil {
		return "far0" // in another namespace
	}
	return p.Attrs().Name
}
