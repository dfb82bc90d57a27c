package vpp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// manyPods is a node with this many pods, whose links it makes.
func manyPods(t testing.TB, n int, rx dataplane.Rx) dataplane.State {
	s := dataplane.New()
	for i := range n {
		name := fmt.Sprintf("sw%011x", i)
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: podMTU}, PeerName: "p" + name[2:]}
		require.NoError(t, netlink.LinkAdd(v))
		for _, end := range []string{name, "p" + name[2:]} {
			l, err := netlink.LinkByName(end)
			require.NoError(t, err)
			require.NoError(t, netlink.LinkSetUp(l))
		}
		s.Interfaces[dataplane.InterfaceKey(name)] = dataplane.Interface{Role: dataplane.RolePod, MTU: podMTU, MAC: gatewayMAC, Rx: rx}
		ip := netip.AddrFrom4([4]byte{10, 255, 0, byte(i + 1)})
		s.Neighbours[dataplane.NeighbourKey{Interface: name, IP: ip}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 0, byte(i + 1)}}
		s.Routes[dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, 32)}] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: name, Weight: 1}}}
	}
	return s
}

// usage of memory in bytes, and of a CPU by VPP.
type usage struct {
	rss, kernel int64
	cpu         time.Duration
}

// use reads what VPP and the kernel take. The kernel's part is what the whole
// machine has less of available, and so inexact.
func (m *manager) use(t testing.TB) usage {
	t.Helper()
	p, err := procfs.NewProc(m.pid(t))
	require.NoError(t, err)
	stat, err := p.Stat()
	require.NoError(t, err)
	status, err := p.NewStatus()
	require.NoError(t, err)
	raw, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	u := usage{rss: int64(status.VmRSS), cpu: time.Duration(stat.CPUTime() * float64(time.Second))}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); f[0] == "MemAvailable:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			require.NoError(t, err)
			u.kernel = -kb << 10
		}
	}
	return u
}

// BenchmarkPods is a node with 110 pods on AF_XDP: how long they take, what they
// cost, and what VPP does while nothing is sent. It runs once.
func BenchmarkPods(b *testing.B) {
	needVPP(b)
	const pods, idle = 110, 10 * time.Second
	for _, c := range []struct {
		name string
		rx   dataplane.Rx
		ring int
	}{
		{"ring=default", dataplane.Rx{}, binapi.AFXDPPodRing},
		{"ring=512", dataplane.Rx{Ring: 512, TxRing: 512}, 512},
	} {
		b.Run(c.name, func(b *testing.B) {
			inNetns(b)
			// 4 KiB pages hold three quarters of the buffers asked for.
			buffers := (8192 + pods*binapi.BuffersPerAFXDPQueue(c.ring, c.ring)) * 4 / 3
			m := startVPP(b, "--buffers", strconv.Itoa(buffers))
			b.Logf("%d buffers", buffers)
			empty := m.use(b)
			time.Sleep(idle)
			without := m.use(b).cpu - empty.cpu
			be := newBackend(b, m, withShim(b))
			want := manyPods(b, pods, c.rx)
			ctx := context.Background()
			for b.Loop() {
				before := m.use(b)
				begin := time.Now()
				require.NoError(b, be.Apply(ctx, dataplane.Diff(want, dataplane.New())))
				b.ReportMetric(float64(time.Since(begin).Milliseconds())/pods, "ms/pod")
				b.StopTimer()
				after := m.use(b)
				b.ReportMetric(float64(after.rss-before.rss)/pods/1024, "KiB-RSS/pod")
				b.ReportMetric(float64(after.kernel-before.kernel)/pods/1024, "KiB-machine/pod")
				time.Sleep(idle)
				b.ReportMetric(float64(m.use(b).cpu-after.cpu)/float64(idle)*100, "%CPU-idle")
				b.ReportMetric(float64(without)/float64(idle)*100, "%CPU-empty")
				b.Log(m.cli(b, "show buffers"))
				require.NoError(b, be.Apply(ctx, dataplane.Diff(dataplane.New(), want)))
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRestart is all that a VPP has to get after its start on a node of a
// cluster with 5,000 others and 110 pods here: 10,000 policies and steerings, and
// the pods. Both times are from the first call on.
func BenchmarkRestart(b *testing.B) {
	needVPP(b)
	const pods = 110
	inNetns(b)
	m := startVPP(b, "--buffers", strconv.Itoa((8192+pods*binapi.BuffersPerAFXDPQueue(binapi.AFXDPPodRing, binapi.AFXDPPodRing))*4/3))
	be := newBackend(b, m, withShim(b))
	nodes, all := manyNodes(5000), manyPods(b, pods, dataplane.Rx{})
	for k, v := range nodes.All() {
		all.Set(k, v)
	}
	ctx := context.Background()
	for b.Loop() {
		for _, s := range []struct {
			name  string
			state dataplane.State
		}{{"s/nodes", nodes}, {"s/nodes+pods", all}} {
			begin := time.Now()
			have, err := be.Dump(ctx)
			require.NoError(b, err)
			require.NoError(b, be.Apply(ctx, dataplane.Diff(s.state, have)))
			b.ReportMetric(time.Since(begin).Seconds(), s.name)
			b.StopTimer()
			require.NoError(b, be.Apply(ctx, dataplane.Diff(dataplane.New(), s.state)))
			b.StartTimer()
		}
	}
}
