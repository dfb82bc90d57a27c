package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// bench is a node that forwards between two hosts, by VPP and by the kernel:
//
//	left (10.0.1.2) -- l | node | r -- right (10.0.2.2)
type bench struct {
	t                 *testing.T
	node, left, right netns.NsHandle
	dir               string
	manager           *exec.Cmd
	ready             chan int
	log               lockedBuffer
	tables            *xdp.Tables
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// managerBinary builds the program once.
var managerBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vppm-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "vpp-manager")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
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

// inside runs f in a network namespace.
func inside(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and ends with this goroutine
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		ns, err = netns.New()
		done <- err
	}()
	require.NoError(t, <-done)
	t.Cleanup(func() { ns.Close() })
	return ns
}

func needVPP(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := find.Locate(""); errors.Is(err, find.ErrNotFound) {
		t.Skip("VPP not found")
	}
}

// newBench starts the manager with these flags, and VPP.
func newBench(t *testing.T, flags ...string) *bench {
	t.Helper()
	needVPP(t)
	b := &bench{t: t, node: newNamespace(t), left: newNamespace(t), right: newNamespace(t), ready: make(chan int, 64)}
	dir, err := os.MkdirTemp("", "takeover-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	b.dir = dir
	require.NoError(t, inside(b.node, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(lo), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	}))
	b.wire("l", "10.0.1", b.left)
	b.wire("r", "10.0.2", b.right)
	require.NoError(t, xdp.WriteObject(filepath.Join(dir, node.ShimFile)))
	b.start(flags...)
	return b
}

// wire joins a host to the node.
func (b *bench) wire(name, net24 string, host netns.NsHandle) {
	b.t.Helper()
	require.NoError(b.t, inside(b.node, func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(host)}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		return address(name, net24+".1/24")
	}))
	require.NoError(b.t, inside(host, func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		// Frames that enter AF_XDP must have their checksums.
		if err := e.Change("eth0", map[string]bool{"tx-checksum-ip-generic": false}); err != nil {
			return err
		}
		if err := address("eth0", net24+".2/24"); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(net24 + ".1")})
	}))
}

func address(link, cidr string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

func mac(ns netns.NsHandle, link string) (out string, err error) {
	err = inside(ns, func() error {
		l, err := netlink.LinkByName(link)
		if err == nil {
			out = l.Attrs().HardwareAddr.String()
		}
		return err
	})
	return out, err
}

// start runs the manager in the node's namespace.
func (b *bench) start(flags ...string) {
	b.t.Helper()
	path, err := managerBinary()
	require.NoError(b.t, err)
	cmd := exec.Command(path, append([]string{"run", "--run-dir", b.dir}, flags...)...)
	cmd.Stderr = &b.log
	out, err := cmd.StdoutPipe()
	require.NoError(b.t, err)
	started, end := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // it must outlive the child (Pdeathsig)
		if err := netns.Set(b.node); err != nil {
			started <- err
			return
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		started <- cmd.Start()
		<-end
	}()
	require.NoError(b.t, <-started)
	b.manager = cmd
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			f := strings.Fields(sc.Text())
			if len(f) > 3 && f[0] == "vpp" && f[1] == "ready:" {
				pid, _ := strconv.Atoi(f[3])
				b.ready <- pid
			}
		}
	}()
	b.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		close(end)
		if b.t.Failed() || os.Getenv("SIDEWINDER_ROUNDS") != "" {
			b.t.Log(b.log.String())
		}
	})
}

// waitReady gives the PID of the next VPP.
func (b *bench) waitReady() int {
	b.t.Helper()
	select {
	case pid := <-b.ready:
		return pid
	case <-time.After(30 * time.Second):
		b.t.Fatal("VPP is not ready; the manager's log:\n" + b.log.String())
	}
	return 0
}

// program does the agent's work: VPP forwards as the kernel does, then the
// shims are switched.
func (b *bench) program() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := binapi.Dial(ctx, binapi.Options{Socket: filepath.Join(b.dir, "api.sock"), Require: []binapi.Group{binapi.GroupAFXDP}})
	require.NoError(b.t, err)
	defer c.Close()
	for _, side := range []struct {
		link, net24 string
		host        netns.NsHandle
	}{{"l", "10.0.1", b.left}, {"r", "10.0.2", b.right}} {
		own, err := mac(b.node, side.link)
		require.NoError(b.t, err)
		peer, err := mac(side.host, "eth0")
		require.NoError(b.t, err)
		for _, command := range []string{
			"create interface af_xdp host-if " + side.link + " name vpp-" + side.link + " prog " + filepath.Join(b.dir, node.ShimFile),
			"set interface mac address vpp-" + side.link + " " + own,
			"set interface ip address vpp-" + side.link + " " + side.net24 + ".1/24",
			"set interface rx-mode vpp-" + side.link + " interrupt",
			"set interface state vpp-" + side.link + " up",
			"set ip neighbor static vpp-" + side.link + " " + side.net24 + ".2 " + peer,
		} {
			var out string
			call := binapi.CLI(command, &out)
			require.NoError(b.t, c.Do(ctx, call))
			require.NoError(b.t, call.Err, command)
			if strings.Contains(out, "rror") || strings.Contains(out, "unknown") {
				b.t.Fatalf("%s: %s", command, out)
			}
		}
	}
	b.activate()
}

func (b *bench) activate() {
	b.t.Helper()
	if b.tables == nil {
		t, err := xdp.NewTables(xdp.TablesOptions{})
		if errors.Is(err, xdp.ErrUnsupported) {
			b.t.Skip(err)
		}
		require.NoError(b.t, err)
		b.t.Cleanup(func() { t.Close() })
		require.NoError(b.t, t.SetUplink(map[netip.Prefix]xdp.Verdict{}))
		require.NoError(b.t, t.SetPods(map[netip.Prefix]xdp.Verdict{
			netip.MustParsePrefix("10.0.1.2/32"): xdp.VerdictVPP, netip.MustParsePrefix("10.0.2.2/32"): xdp.VerdictVPP,
		}))
		b.tables = t
	}
	n := 0
	require.NoError(b.t, inside(b.node, func() error {
		shims, err := xdp.FindAll()
		for _, s := range shims {
			n++
			err = errors.Join(err, s.Bind(xdp.RolePod, b.tables), s.SetMode(xdp.ModeVPP), s.Close())
		}
		return err
	}))
	require.Equal(b.t, 2, n)
}

// modes of the shims.
func (b *bench) modes() (modes []xdp.Mode, redirected uint64) {
	b.t.Helper()
	require.NoError(b.t, inside(b.node, func() error {
		shims, err := xdp.FindAll()
		for _, s := range shims {
			m, merr := s.Mode()
			modes = append(modes, m)
			counters, cerr := s.Counters()
			for name, n := range counters {
				if name == "vpp" {
					redirected += n
				}
			}
			err = errors.Join(err, merr, cerr, s.Close())
		}
		return err
	}))
	return modes, redirected
}

// stream is UDP from left to right.
type stream struct {
	stop           chan struct{}
	wg             sync.WaitGroup
	sent, received []time.Time // by sequence number; zero: not
}

const streamPort = 5000

// send begins a stream of this many packets a second.
func (b *bench) send(rate int) *stream {
	b.t.Helper()
	s := &stream{stop: make(chan struct{})}
	var in, out net.PacketConn
	require.NoError(b.t, inside(b.right, func() (err error) { in, err = net.ListenPacket("udp4", fmt.Sprintf("10.0.2.2:%d", streamPort)); return }))
	require.NoError(b.t, inside(b.left, func() (err error) { out, err = net.ListenPacket("udp4", "10.0.1.2:0"); return }))
	const most = 1 << 16
	s.received = make([]time.Time, most)
	s.wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			if n >= 8 {
				if seq := binary.BigEndian.Uint64(buf); seq < most && s.received[seq].IsZero() {
					s.received[seq] = time.Now()
				}
			}
		}
	})
	s.wg.Go(func() {
		to := &net.UDPAddr{IP: net.IPv4(10, 0, 2, 2), Port: streamPort}
		buf := make([]byte, 64)
		next := time.Now()
		for len(s.sent) < most {
			select {
			case <-s.stop:
				// What is on its way arrives.
				time.Sleep(200 * time.Millisecond)
				in.Close()
				out.Close()
				return
			default:
			}
			binary.BigEndian.PutUint64(buf, uint64(len(s.sent)))
			s.sent = append(s.sent, time.Now())
			_, _ = out.WriteTo(buf, to)
			next = next.Add(time.Second / time.Duration(rate))
			if d := time.Until(next); d > 0 {
				time.Sleep(d)
			} else {
				next = time.Now() // not in bursts
			}
		}
	})
	return s
}

// end stops it: the packets lost, the longest time in which each one sent was
// lost, and the longest delay of one that arrived.
func (s *stream) end() (sent, lost int, gap, delay time.Duration) {
	close(s.stop)
	s.wg.Wait()
	last := -1
	for i, at := range s.sent {
		if s.received[i].IsZero() {
			lost++
			continue
		}
		if last >= 0 && i > last+1 {
			gap = max(gap, at.Sub(s.sent[last]))
		}
		last = i
		delay = max(delay, s.received[i].Sub(at))
	}
	return len(s.sent), lost, gap, delay
}

// median and others of a row of durations.
func spread(d []time.Duration) string {
	slices.Sort(d)
	r := func(i int) time.Duration { return d[i].Round(100 * time.Microsecond) }
	return fmt.Sprintf("min %s, median %s, 90%% %s, max %s", r(0), r(len(d)/2), r(len(d)*9/10), r(len(d)-1))
}
