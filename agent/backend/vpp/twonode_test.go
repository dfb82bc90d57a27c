package vpp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// twoNodes are two nodes joined by one link, each with a VPP and a pod.
type twoNodes struct {
	node, pod [2]netns.NsHandle
	vpp       [2]*manager
	backend   [2]*Backend
	want      [2]dataplane.State
}

const podMTU = 1460

func ip4(node int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, byte(node + 1), 10}) }
func ip6(node int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd10:244:%d::10", node+1))
}
func locator(node int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fcbb:bb00:%d::/48", node+1))
}
func sid(node, fn int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fcbb:bb00:%d:%x::", node+1, fn))
}
func bsid(node, family int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fcbb:bb00:%d:eb51::%d", node+1, family))
}

var (
	gatewayMAC = dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	gateway6   = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// at runs f in a namespace.
func at(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	defer home.Close()
	require.NoError(t, netns.Set(ns))
	defer func() { require.NoError(t, netns.Set(home)) }()
	f()
}

func newNS(t testing.TB) netns.NsHandle {
	t.Helper()
	home, err := netns.Get()
	require.NoError(t, err)
	defer home.Close()
	ns, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	require.NoError(t, netns.Set(home))
	return ns
}

// vethInto makes a veth with one end here and the other in ns, both up.
func vethInto(t testing.TB, name, peer string, ns netns.NsHandle, mtu int) {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, PeerName: peer, PeerNamespace: netlink.NsFd(int(ns))}
	require.NoError(t, netlink.LinkAdd(v))
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(l))
	at(t, ns, func() {
		l, err := netlink.LinkByName(peer)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetMTU(l, mtu))
		require.NoError(t, netlink.LinkSetUp(l))
	})
}

func newTwoNodes(t testing.TB, o Options) *twoNodes {
	needVPP(t)
	inNetns(t) // a place to come back to
	n := &twoNodes{}
	for i := range 2 {
		n.node[i], n.pod[i] = newNS(t), newNS(t)
	}
	at(t, n.node[0], func() { vethInto(t, "up0", "up0", n.node[1], 1500) })
	for i := range 2 {
		at(t, n.node[i], func() {
			vethInto(t, podLink(i), "eth0", n.pod[i], podMTU)
			at(t, n.pod[i], func() { setUpPod(t, i) })
			n.vpp[i] = startVPP(t)
			o.Locator = locator(i)
			n.backend[i] = newBackend(t, n.vpp[i], o)
		})
	}
	for i := range 2 {
		n.want[i] = n.state(t, i)
		at(t, n.node[i], func() { apply(t, n.backend[i], n.want[i]) })
	}
	return n
}

func podLink(node int) string { return fmt.Sprintf("sw0000000000%d", node+1) }

// setUpPod does in the pod what the CNI plugin does.
func setUpPod(t testing.TB, node int) {
	l, err := netlink.LinkByName("eth0")
	require.NoError(t, err)
	e, err := ethtool.NewEthtool()
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Change("eth0", map[string]bool{"tx-checksum-ip-generic": false}))
	for _, ip := range []netip.Addr{ip4(node), ip6(node)} {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}, Flags: unix.IFA_F_NODAD}
		require.NoError(t, netlink.AddrAdd(l, a))
	}
	gw4 := netip.MustParseAddr("169.254.1.1")
	require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: gw4.AsSlice(), Mask: net.CIDRMask(32, 32)}}))
	for _, gw := range []netip.Addr{gw4, gateway6} {
		require.NoError(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: gw.AsSlice(), HardwareAddr: gatewayMAC[:], State: netlink.NUD_PERMANENT}))
		require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw.AsSlice()}))
	}
}

func macOf(t testing.TB, ns netns.NsHandle, link string) (m dataplane.MAC) {
	at(t, ns, func() {
		l, err := netlink.LinkByName(link)
		require.NoError(t, err)
		copy(m[:], l.Attrs().HardwareAddr)
	})
	return m
}

// state is what the agent of node i would want.
func (n *twoNodes) state(t testing.TB, i int) dataplane.State {
	peer := 1 - i
	s := dataplane.New()
	s.Settings[dataplane.SettingEncapSource] = dataplane.Setting(fmt.Sprintf("fd00:77::%d", i+1))
	s.Settings[dataplane.SettingEncapHopLimit] = dataplane.DefaultEncapHopLimit
	s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	s.Settings[dataplane.SettingFlowHash] = dataplane.FlowHashWithLabel
	s.Interfaces["up0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	s.Interfaces[dataplane.InterfaceKey(podLink(i))] = dataplane.Interface{Role: dataplane.RolePod, MTU: podMTU, MAC: gatewayMAC}
	s.Addresses[dataplane.AddressKey{Interface: loName, Prefix: netip.MustParsePrefix("169.254.1.1/32")}] = dataplane.Address{}
	gw := netip.MustParseAddr(fmt.Sprintf("fd00:77::%d", peer+1))
	s.Neighbours[dataplane.NeighbourKey{Interface: "up0", IP: gw}] = dataplane.Neighbour{MAC: macOf(t, n.node[peer], "up0")}
	s.Routes[dataplane.RouteKey{Prefix: locator(peer)}] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: "up0", Gateway: gw, Weight: 1}}}
	podMAC := macOf(t, n.pod[i], "eth0")
	for _, ip := range []netip.Addr{ip4(i), ip6(i)} {
		s.Neighbours[dataplane.NeighbourKey{Interface: podLink(i), IP: ip}] = dataplane.Neighbour{MAC: podMAC}
		s.Routes[dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())}] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: podLink(i), Weight: 1}}}
	}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: locator(i)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(i, 0xe004), 128)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(i, 0xe006), 128)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6}
	for _, f := range []struct {
		family, fn int
		prefix     netip.Prefix
	}{{4, 0xe004, netip.PrefixFrom(ip4(peer), 24).Masked()}, {6, 0xe006, netip.PrefixFrom(ip6(peer), 64).Masked()}} {
		s.Policies[dataplane.PolicyKey{BSID: bsid(i, f.family)}] = onePath(sid(peer, f.fn))
		s.Steerings[dataplane.SteeringKey{Prefix: f.prefix}] = dataplane.Steering{BSID: bsid(i, f.family)}
	}
	return s
}

func onePath(s ...netip.Addr) dataplane.Policy {
	return dataplane.Policy{SegmentLists: []dataplane.SegmentList{{Segments: s, Weight: 1}}}
}

// echo answers UDP on port 7 of both families in a pod.
func (n *twoNodes) echo(t testing.TB, node int) {
	at(t, n.pod[node], func() {
		for _, a := range []netip.Addr{ip4(node), ip6(node)} {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 7)))
			require.NoError(t, err)
			t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 2048)
				for {
					k, from, err := c.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteToUDPAddrPort(buf[:k], from)
				}
			}()
		}
	})
}

func (n *twoNodes) dial(t testing.TB, from int, to netip.Addr) *net.UDPConn {
	var c *net.UDPConn
	at(t, n.pod[from], func() {
		var err error
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 7)))
		require.NoError(t, err)
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// pingPong sends one packet of this payload size and waits for it to come back.
func pingPong(c *net.UDPConn, size int, seq uint64, timeout time.Duration) bool {
	out := make([]byte, size)
	binary.BigEndian.PutUint64(out, seq)
	if _, err := c.Write(out); err != nil {
		return false
	}
	in := make([]byte, 2048)
	for {
		_ = c.SetReadDeadline(time.Now().Add(timeout))
		k, err := c.Read(in)
		if err != nil {
			return false
		}
		if k == size && binary.BigEndian.Uint64(in) == seq {
			return true
		}
	}
}

func (n *twoNodes) requireReachable(t testing.TB) {
	t.Helper()
	for _, p := range []struct {
		to   netip.Addr
		full int
	}{{ip4(1), podMTU - 28}, {ip6(1), podMTU - 48}} {
		c := n.dial(t, 0, p.to)
		for i, size := range []int{8, 500, p.full} {
			ok := false
			for try := range 10 {
				if ok = pingPong(c, size, uint64(100*i+try), 300*time.Millisecond); ok {
					break
				}
			}
			require.True(t, ok, "no answer from %s to a payload of %d bytes", p.to, size)
		}
	}
}

func TestTwoNodes(t *testing.T) {
	for _, o := range []Options{
		{UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP},
		{UplinkDriver: DriverAFPacket, PodDriver: DriverAFPacket},
	} {
		t.Run(o.UplinkDriver+"+"+o.PodDriver, func(t *testing.T) {
			n := newTwoNodes(t, o)
			n.echo(t, 1)
			n.requireReachable(t)
			t.Run("FlowLabels", func(t *testing.T) { testFlowLabels(t, n) })
			t.Run("NoAdvertisements", func(t *testing.T) { testNoRA(t, n) })
			t.Run("PolicyChangeLosesNothing", func(t *testing.T) { testPolicyChange(t, n) })
			t.Run("SettingsReachPolicies", func(t *testing.T) { testSettings(t, n) })
			t.Run("VPPKilled", func(t *testing.T) { testKill(t, n) })
			t.Run("RemovalKeepsTheUplinkUp", func(t *testing.T) { testRemoval(t, n) })
		})
	}
}

// outer is the outer header of a captured packet.
type outer struct {
	label    uint32
	hopLimit byte
	src      netip.Addr
}

// capture collects the outer IPv6 headers of SRv6 packets that arrive on node
// 2's uplink while f runs.
func (n *twoNodes) capture(t testing.TB, f func()) []outer {
	var got []outer
	at(t, n.node[1], func() {
		ifi, err := net.InterfaceByName("up0")
		require.NoError(t, err)
		c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_IPV6, nil)
		require.NoError(t, err)
		defer c.Close()
		f()
		buf := make([]byte, 2048)
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			k, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if k < 54 {
				continue
			}
			dst := netip.AddrFrom16([16]byte(buf[38:54]))
			if !locator(1).Contains(dst) {
				continue
			}
			got = append(got, outer{
				label:    binary.BigEndian.Uint32(buf[14:18]) & 0xfffff,
				hopLimit: buf[21],
				src:      netip.AddrFrom16([16]byte(buf[22:38])),
			})
		}
	})
	return got
}

// testFlowLabels: every flow has a label of its own that does not change
// (RFC 6437 §2), for both inner families.
func testFlowLabels(t *testing.T, n *twoNodes) {
	const flows, each = 24, 4
	for _, to := range []netip.Addr{ip4(1), ip6(1)} {
		labels := map[uint32]int{}
		for range flows {
			c := n.dial(t, 0, to)
			got := n.capture(t, func() {
				for i := range each {
					require.True(t, pingPong(c, 64, uint64(i), time.Second))
				}
			})
			require.NotEmpty(t, got)
			for _, o := range got {
				require.Equal(t, got[0].label, o.label, "the label of a flow changed")
				require.Equal(t, netip.MustParseAddr("fd00:77::1"), o.src)
			}
			require.NotZero(t, got[0].label)
			labels[got[0].label]++
		}
		require.Greater(t, len(labels), flows*3/4, "labels: %v", labels)
	}
}

// testNoRA: VPP must not announce itself as a router, even when asked to
// (RFC 4861 §6.2.6).
func testNoRA(t *testing.T, n *twoNodes) {
	const solicitation, advertisement = 133, 134
	at(t, n.pod[0], func() {
		hops := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			cerr := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
			})
			return errors.Join(cerr, err)
		}}
		c, err := hops.ListenPacket(context.Background(), "ip6:ipv6-icmp", "::")
		require.NoError(t, err)
		defer c.Close()
		_, err = c.WriteTo([]byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, &net.IPAddr{IP: net.ParseIP("ff02::2"), Zone: "eth0"})
		require.NoError(t, err)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 2048)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			require.False(t, k > 0 && buf[0] == advertisement, "router advertisement from %s", from)
		}
	})
	for i := range 2 {
		out := n.vpp[i].cli(t, "show ip6 interface")
		require.Contains(t, out, "ND router advertisements sent 0")
		require.NotRegexp(t, "ND router advertisements sent [1-9]", out)
	}
}

// testPolicyChange changes a policy back and forth under traffic.
func testPolicyChange(t *testing.T, n *twoNodes) {
	c := n.dial(t, 0, ip4(1))
	require.True(t, pingPong(c, 64, 1, time.Second))
	stop, result := make(chan struct{}), make(chan [2]int)
	go func() {
		sent, lost := 0, 0
		for {
			select {
			case <-stop:
				result <- [2]int{sent, lost}
				return
			case <-time.After(2 * time.Millisecond):
			}
			sent++
			if !pingPong(c, 200, uint64(1000+sent), 300*time.Millisecond) {
				lost++
			}
		}
	}()
	key := dataplane.PolicyKey{BSID: bsid(0, 4)}
	for i := range 20 {
		want := n.want[0].Clone()
		switch i % 3 {
		case 0:
			// By way of the node's uN: one more segment.
			want.Policies[key] = onePath(sid(1, 0), sid(1, 0xe004))
		case 1:
			p := dataplane.Policy{SegmentLists: []dataplane.SegmentList{
				{Segments: []netip.Addr{sid(1, 0xe004)}, Weight: 3},
				{Segments: []netip.Addr{netip.MustParseAddr("fcbb:bb00:2:2:e004::")}, Weight: 1},
			}}
			dataplane.SortSegmentLists(p.SegmentLists)
			want.Policies[key] = p
		}
		at(t, n.node[0], func() { apply(t, n.backend[0], want) })
		time.Sleep(30 * time.Millisecond)
	}
	at(t, n.node[0], func() { apply(t, n.backend[0], n.want[0]) })
	close(stop)
	r := <-result
	require.Greater(t, r[0], 50)
	require.Zero(t, r[1], "lost of %d", r[0])
}

// testSettings: policies that are there take on a new source and hop limit.
func testSettings(t *testing.T, n *twoNodes) {
	want := n.want[0].Clone()
	want.Settings[dataplane.SettingEncapSource] = "fd00:77::99"
	want.Settings[dataplane.SettingEncapHopLimit] = "33"
	at(t, n.node[0], func() { apply(t, n.backend[0], want) })
	c := n.dial(t, 0, ip4(1))
	got := n.capture(t, func() { require.True(t, pingPong(c, 64, 1, time.Second)) })
	require.NotEmpty(t, got)
	// VPP forwards the packet that it made, and takes one off.
	require.Equal(t, byte(33-1), got[0].hopLimit)
	require.Equal(t, netip.MustParseAddr("fd00:77::99"), got[0].src)
	at(t, n.node[0], func() { apply(t, n.backend[0], n.want[0]) })
}

// testKill: after a crash of VPP the backend says so, tells when VPP is back,
// and everything is programmed again.
func testKill(t *testing.T, n *twoNodes) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	changes := n.backend[0].Watch(ctx)
	<-changes // it is connected
	n.vpp[0].kill(t)
	requireSignal(t, changes)
	at(t, n.node[0], func() {
		_, err := n.backend[0].Dump(ctx)
		if err != nil { // the restart may be quicker
			require.ErrorIs(t, err, dataplane.ErrDisconnected)
		}
	})
	n.vpp[0].waitReady(t)
	requireSignal(t, changes)
	at(t, n.node[0], func() {
		l, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		require.NotZero(t, l.Attrs().Flags&net.FlagUp, "the uplink must stay up")
		have, err := n.backend[0].Dump(ctx)
		require.NoError(t, err)
		require.Empty(t, have.Policies)
		apply(t, n.backend[0], n.want[0])
	})
	n.requireReachable(t)
}

func requireSignal(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		t.Fatal("no signal")
	}
}

// testRemoval: taking VPP off the uplink, and ending VPP, leaves the host's
// link, its addresses and routes alone.
func testRemoval(t *testing.T, n *twoNodes) {
	at(t, n.node[0], func() {
		l, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fd00:77::1"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
		require.NoError(t, netlink.AddrAdd(l, addr))
		check := func() {
			l, err := netlink.LinkByName("up0")
			require.NoError(t, err)
			require.NotZero(t, l.Attrs().Flags&net.FlagUp, "the uplink must stay up")
			addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
			require.NoError(t, err)
			found := false
			for _, a := range addrs {
				found = found || a.IP.Equal(addr.IP)
			}
			require.True(t, found, "the host's address must stay")
		}
		apply(t, n.backend[0], dataplane.New())
		check()
		pod, err := netlink.LinkByName(podLink(0))
		require.NoError(t, err)
		require.False(t, pod.Attrs().Xdp != nil && pod.Attrs().Xdp.Attached, "VPP's XDP program must be gone from the pod's link")
		apply(t, n.backend[0], n.want[0])
		check()
	})
	n.requireReachable(t)
	at(t, n.node[0], func() {
		n.vpp[0].stop(t)
		l, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		require.NotZero(t, l.Attrs().Flags&net.FlagUp, "the uplink must stay up when VPP ends")
	})
}
