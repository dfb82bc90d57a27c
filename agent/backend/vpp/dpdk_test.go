package vpp

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

// needDPDK skips without VPP's dpdk plugin.
func needDPDK(t testing.TB) {
	t.Helper()
	needVPP(t)
	v, err := find.Locate("")
	require.NoError(t, err)
	path, err := filepath.EvalSymlinks(v.Path)
	require.NoError(t, err)
	for _, pattern := range []string{"../lib/vpp_plugins", "../lib/*/vpp_plugins"} {
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(path), pattern, "dpdk_plugin.so")); len(found) > 0 {
			return
		}
	}
	t.Skip("VPP's dpdk plugin not found")
}

// dedicatedFlags are vpp-manager's for a link that VPP is to have for itself.
func dedicatedFlags(t testing.TB, o Options, link string) []string {
	t.Helper()
	if o.UplinkDriver != DriverDPDK {
		return nil
	}
	needDPDK(t)
	return []string{"--uplink", link + "=dpdk:net_af_packet", "--uplink-dir", t.TempDir()}
}

// host4 and host6 are addresses of the nodes themselves.
func host4(node int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(node + 1)}), 24)
}
func host6(node int) netip.Prefix {
	a := netip.MustParseAddr("2001:db8:77::").As16()
	a[15] = byte(node + 1)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// newDedicated are two nodes of which the first gives its uplink to VPP.
func newDedicated(t testing.TB) *twoNodes {
	needDPDK(t)
	inNetns(t)
	n := &twoNodes{}
	for i := range 2 {
		n.node[i], n.pod[i] = newNS(t), newNS(t)
	}
	at(t, n.node[0], func() { vethInto(t, "up0", "up0", n.node[1], 1500) })
	for i := range 2 {
		at(t, n.node[i], func() {
			noOffload(t, "up0")
			l, err := netlink.LinkByName("up0")
			require.NoError(t, err)
			for _, p := range []netip.Prefix{host4(i), host6(i)} {
				a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: unix.IFA_F_NODAD}
				require.NoError(t, netlink.AddrAdd(l, a))
			}
			vethInto(t, podLink(i), "eth0", n.pod[i], podMTU)
			at(t, n.pod[i], func() { setUpPod(t, i) })
			o := Options{Locator: locator(i), UplinkDriver: DriverAFPacket}
			if i == 0 {
				o.UplinkDriver = DriverDPDK
				n.vpp[i] = startVPP(t, dedicatedFlags(t, o, "up0")...)
			} else {
				n.vpp[i] = startVPP(t)
			}
			n.backend[i] = newBackend(t, n.vpp[i], o)
		})
	}
	for i := range 2 {
		n.want[i] = n.state(t, i)
	}
	return n
}

// noOffload has the kernel finish what it sends: VPP takes it as it is.
func noOffload(t testing.TB, link string) {
	e, err := ethtool.NewEthtool()
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Change(link, map[string]bool{"tx-checksum-ip-generic": false}))
}

// requireHost talks TCP between the nodes themselves, after they have forgotten
// one another's addresses.
func (n *twoNodes) requireHost(t testing.TB) {
	t.Helper()
	for i := range 2 {
		at(t, n.node[i], func() { flushNeighbours(t, "up0") })
	}
	for _, to := range []netip.Addr{host4(1).Addr(), host6(1).Addr()} {
		var l net.Listener
		at(t, n.node[1], func() {
			var err error
			l, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String())
			require.NoError(t, err)
		})
		const size = 1 << 20
		got := make(chan int64, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				got <- -1
				return
			}
			defer c.Close()
			k, _ := io.Copy(io.Discard, c)
			got <- k
		}()
		at(t, n.node[0], func() {
			c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
			require.NoError(t, err)
			_, err = c.Write(make([]byte, size))
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
		select {
		case k := <-got:
			require.EqualValues(t, size, k)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the bytes did not arrive", to)
		}
		l.Close()
	}
}

func flushNeighbours(t testing.TB, link string) {
	l, err := netlink.LinkByName(link)
	require.NoError(t, err)
	all, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
	require.NoError(t, err)
	for _, e := range all {
		if e.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 {
			_ = netlink.NeighDel(&e) // the kernel may have been faster
		}
	}
}

func (n *twoNodes) program(t testing.TB) {
	t.Helper()
	for i := range 2 {
		at(t, n.node[i], func() { apply(t, n.backend[i], n.want[i]) })
	}
}

func TestDedicatedUplink(t *testing.T) {
	n := newDedicated(t)
	// The host is on the network before any agent is.
	n.requireHost(t)
	n.program(t)
	n.requireHost(t)
	n.echo(t, 1)
	n.requireReachable(t)

	t.Run("OverlayGoesToTheHostWithoutSIDs", func(t *testing.T) {
		want := n.want[0].Clone()
		clear(want.LocalSIDs)
		at(t, n.node[0], func() {
			apply(t, n.backend[0], want)
			require.Equal(t, 0, n.overlayArrives(t), "packets that VPP took out of the wire")
			apply(t, n.backend[0], n.want[0])
			require.Positive(t, n.overlayArrives(t), "packets that VPP took out of the wire")
		})
		n.requireReachable(t)
	})
	t.Run("WhatVPPDoesNotHoldGoesToTheHost", func(t *testing.T) {
		// As the agent has it: the rest of the node's own prefixes is dropped.
		for _, p := range []netip.Prefix{netip.PrefixFrom(ip4(0), 24).Masked(), netip.PrefixFrom(ip6(0), 64).Masked()} {
			n.want[0].Routes[dataplane.RouteKey{Prefix: p}] = dataplane.Route{}
		}
		n.program(t)
		for _, f := range []struct {
			to   netip.Addr
			bits int
		}{{ip4(0).Next(), 32}, {ip6(0).Next(), 128}} {
			// An address of the host stands for a pod that VPP does not hold.
			at(t, n.node[0], func() {
				lo, err := netlink.LinkByName("lo")
				require.NoError(t, err)
				require.NoError(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: f.to.AsSlice(), Mask: net.CIDRMask(f.bits, f.bits)}, Flags: unix.IFA_F_NODAD}))
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.to, 9)))
				require.NoError(t, err)
				defer c.Close()
				d := n.dialPort(t, 1, netip.AddrPortFrom(f.to, 9))
				got := make([]byte, 64)
				for range 10 {
					_, _ = d.Write([]byte("hello"))
					_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
					if k, err := c.Read(got); err == nil {
						require.Equal(t, "hello", string(got[:k]))
						return
					}
				}
				t.Errorf("nothing arrived at %s", f.to)
			})
		}
	})
	t.Run("WireIsRepaired", func(t *testing.T) {
		at(t, n.node[0], func() {
			n.vpp[0].cli(t, "set interface l3 dpdk-up0")
			have, err := n.backend[0].Dump(context.Background())
			require.NoError(t, err)
			require.NotEqual(t, n.want[0].Interfaces["up0"], have.Interfaces["up0"])
			apply(t, n.backend[0], n.want[0])
		})
		n.requireHost(t)
		n.requireReachable(t)
	})
	t.Run("RemovalLeavesTheHostItsNetwork", func(t *testing.T) {
		at(t, n.node[0], func() { apply(t, n.backend[0], dataplane.New()) })
		n.requireHost(t)
		n.program(t)
		n.requireReachable(t)
	})
	t.Run("VPPKilled", func(t *testing.T) {
		at(t, n.node[0], func() {
			n.vpp[0].kill(t)
			n.vpp[0].waitReady(t)
		})
		n.requireHost(t)
		n.programAgain(t)
		n.requireHost(t)
		n.requireReachable(t)
	})
	t.Run("StopGivesTheNICBack", func(t *testing.T) {
		at(t, n.node[0], func() {
			n.vpp[0].stop(t)
			l, err := netlink.LinkByName("up0")
			require.NoError(t, err)
			addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
			require.NoError(t, err)
			require.Len(t, addrs, 1)
			_, err = netlink.LinkByName("swh-up0")
			require.Error(t, err)
		})
		n.requireHost(t)
	})
}

// overlayArrives sends the first node packets for its locator, and returns how
// many of them VPP has taken out of the wire.
func (n *twoNodes) overlayArrives(t testing.TB) int {
	t.Helper()
	n.vpp[0].cli(t, "clear errors")
	at(t, n.node[1], func() {
		l, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		dst := &net.IPNet{IP: locator(0).Addr().AsSlice(), Mask: net.CIDRMask(48, 128)}
		mac := macOf(t, n.node[0], "up0")
		via := host6(0).Addr()
		require.NoError(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: via.AsSlice(), HardwareAddr: mac[:], State: netlink.NUD_PERMANENT}))
		require.NoError(t, netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Gw: via.AsSlice()}))
		c, err := net.Dial("udp6", netip.AddrPortFrom(sid(0, 0xfff), 9).String())
		require.NoError(t, err)
		defer c.Close()
		for range 5 {
			_, _ = c.Write([]byte("overlay")) // answers that it is unreachable come here
			time.Sleep(10 * time.Millisecond)
		}
	})
	time.Sleep(100 * time.Millisecond)
	return countOf(n.vpp[0].cli(t, "show errors"), "Classify hits")
}

func (n *twoNodes) dialPort(t testing.TB, from int, to netip.AddrPort) (c *net.UDPConn) {
	at(t, n.pod[from], func() {
		var err error
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
	})
	return c
}

func (n *twoNodes) programAgain(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		ok := true
		at(t, n.node[0], func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			have, err := n.backend[0].Dump(ctx)
			if err == nil {
				err = n.backend[0].Apply(ctx, dataplane.Diff(n.want[0], have))
			}
			ok = err == nil
		})
		return ok
	}, 20*time.Second, 50*time.Millisecond)
	n.program(t)
}

func TestHalves(t *testing.T) {
	for whole, want := range map[string][]string{
		"10.244.1.0/24":    {"10.244.1.0/25", "10.244.1.128/25"},
		"10.244.0.0/15":    {"10.244.0.0/16", "10.245.0.0/16"},
		"fd10:244:1::/64":  {"fd10:244:1::/65", "fd10:244:1:0:8000::/65"},
		"0.0.0.0/0":        {"0.0.0.0/1", "128.0.0.0/1"},
		"10.244.1.1/32":    nil,
		"10.244.1.2/31":    {"10.244.1.2/32", "10.244.1.3/32"},
		"fd10:244:1::/127": {"fd10:244:1::/128", "fd10:244:1::1/128"},
	} {
		var got []string
		for _, h := range halves(netip.MustParsePrefix(whole)) {
			got = append(got, h.String())
		}
		require.Equal(t, want, got, whole)
	}
}

func TestDedicatedUplinkNeedsTheManager(t *testing.T) {
	dir := t.TempDir()
	b := &Backend{opts: Options{Socket: filepath.Join(dir, "api.sock")}}
	_, err := b.wireOf("eth0")
	require.ErrorIs(t, err, dataplane.ErrNotReady)
	require.ErrorContains(t, err, "--uplink eth0=dpdk")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manager.json"), []byte("{"), 0o600))
	_, err = b.wireOf("eth0")
	require.Error(t, err)
	require.NotErrorIs(t, err, dataplane.ErrNotReady)
}

// countOf reads a counter of "show errors".
func countOf(text, reason string) int {
	for line := range strings.Lines(text) {
		if strings.Contains(line, reason) {
			n, _ := strconv.Atoi(strings.Fields(line)[0]) // a heading is not a count
			return n
		}
	}
	return 0
}
