package vpp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// shims of one node, which give VPP what it is to carry.
type shims struct {
	tables *xdp.Tables
	all    []*xdp.Shim
}

// give has VPP carry the overlay on a node, as the agent does.
func (n *twoNodes) give(t testing.TB, i int) *shims {
	t.Helper()
	s := &shims{}
	at(t, n.node[i], func() {
		var err error
		s.tables, err = xdp.NewTables(xdp.TablesOptions{})
		if errors.Is(err, xdp.ErrUnsupported) {
			t.Skip(err)
		}
		require.NoError(t, err)
		t.Cleanup(func() { s.tables.Close() })
		host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
		require.NoError(t, s.tables.SetUplink(map[netip.Prefix]xdp.Verdict{
			locator(i):           xdp.VerdictVPP,
			host(sid(i, 0xe004)): xdp.VerdictVPPInner, host(sid(i, 0xe006)): xdp.VerdictVPPInner,
		}))
		require.NoError(t, s.tables.SetPods(map[netip.Prefix]xdp.Verdict{
			host(ip4(i)): xdp.VerdictVPP, host(ip6(i)): xdp.VerdictVPP,
			netip.PrefixFrom(ip4(1-i), 24).Masked(): xdp.VerdictVPP, netip.PrefixFrom(ip6(1-i), 64).Masked(): xdp.VerdictVPP,
		}))
		for link, role := range map[string]xdp.Role{"up0": xdp.RoleUplink, podLink(i): xdp.RolePod} {
			l, err := findLink(link)
			require.NoError(t, err)
			shim, err := xdp.Find(l.index)
			require.NoError(t, err)
			t.Cleanup(func() { shim.Close() })
			require.NoError(t, shim.Bind(role, s.tables))
			require.NoError(t, shim.SetMode(xdp.ModeVPP))
			s.all = append(s.all, shim)
		}
	})
	return s
}

// counter sums one over the shims.
func (s *shims) counter(t testing.TB, name string) (sum uint64) {
	t.Helper()
	for _, shim := range s.all {
		c, err := shim.Counters()
		require.NoError(t, err)
		sum += c[name]
	}
	return sum
}

// hostAddr is the host's own address on the uplink.
func hostAddr(i int) netip.Addr { return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x77, 15: byte(i + 1)}) }

// The default: VPP carries the overlay over an uplink on which the host has its
// addresses, and neither loses a packet to the other; not while VPP is killed,
// started and programmed again either.
func TestSharedUplink(t *testing.T) {
	n := newTwoNodes(t, withShim(t))
	for i := range 2 {
		at(t, n.node[i], func() {
			l, err := netlink.LinkByName("up0")
			require.NoError(t, err)
			a := &netlink.Addr{IPNet: &net.IPNet{IP: hostAddr(i).AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
			require.NoError(t, netlink.AddrAdd(l, a))
		})
	}
	require.Contains(t, n.vpp[0].cli(t, "show hardware-interfaces"), macOf(t, n.node[0], "up0").String(), "VPP invents a MAC; it has to be the link's")
	first, second := n.give(t, 0), n.give(t, 1)
	n.echo(t, 1)
	host := n.hostTraffic(t)
	n.requireReachable(t)
	require.NotZero(t, first.counter(t, "vpp"))
	require.NotZero(t, second.counter(t, "vpp"))
	t.Run("Overlay", func(t *testing.T) { testPolicyChange(t, n) })
	t.Run("VPPKilled", func(t *testing.T) {
		n.vpp[0].kill(t)
		n.vpp[0].waitReady(t)
		at(t, n.node[0], func() { apply(t, n.backend[0], n.want[0]) })
		again := n.give(t, 0)
		n.requireReachable(t)
		require.NotZero(t, again.counter(t, "vpp"))
	})
	t.Run("InterfacesMadeAnew", func(t *testing.T) {
		want := n.want[0].Clone()
		for k, v := range want.Interfaces {
			v.Rx.Ring = 1024
			want.Interfaces[k] = v
		}
		at(t, n.node[0], func() { apply(t, n.backend[0], want) })
		n.give(t, 0)
		n.requireReachable(t)
		at(t, n.node[0], func() { apply(t, n.backend[0], n.want[0]) })
		n.give(t, 0)
		n.requireReachable(t)
	})
	t.Run("InterfaceComesAndGoes", func(t *testing.T) {
		want := n.want[0].Clone()
		delete(want.Interfaces, "up0")
		for k := range want.Neighbours {
			if k.Interface == "up0" {
				delete(want.Neighbours, k)
			}
		}
		delete(want.Routes, dataplane.RouteKey{Prefix: locator(1)})
		at(t, n.node[0], func() {
			apply(t, n.backend[0], want)
			apply(t, n.backend[0], n.want[0])
		})
		n.give(t, 0)
		n.requireReachable(t)
	})
	sent, lost, longest := host.end(t)
	t.Logf("host over the shared uplink: %d packets, %d lost; TCP's longest pause %s", sent, lost, longest)
	require.Greater(t, sent, 200)
	require.LessOrEqual(t, lost, 3, "UDP between the hosts: XDP that comes and goes restarts the link's queues")
}

// hostTraffic goes between the two hosts through their kernels until end.
type hostTraffic struct {
	stop   context.CancelFunc
	udp    chan [2]int
	tcp    chan time.Duration
	broken chan error
}

// hostTraffic begins UDP packets that are answered, and lines over one TCP
// connection.
func (n *twoNodes) hostTraffic(t testing.TB) *hostTraffic {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	h := &hostTraffic{stop: cancel, udp: make(chan [2]int, 1), tcp: make(chan time.Duration, 1), broken: make(chan error, 1)}
	to := netip.AddrPortFrom(hostAddr(1), 7007)
	at(t, n.node[1], func() {
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
		require.NoError(t, err)
		t.Cleanup(func() { u.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				k, from, err := u.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteToUDPAddrPort(buf[:k], from)
			}
		}()
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(to))
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
	})
	var u *net.UDPConn
	var c *net.TCPConn
	at(t, n.node[0], func() {
		var err error
		u, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		require.NoError(t, err)
		c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
		require.NoError(t, err)
	})
	go func() {
		defer u.Close()
		sent, lost := 0, 0
		for ctx.Err() == nil {
			sent++
			if !pingPong(u, 200, uint64(sent), 300*time.Millisecond) {
				lost++
			}
			time.Sleep(5 * time.Millisecond)
		}
		h.udp <- [2]int{sent, lost}
	}()
	go func() {
		defer c.Close()
		lines := bufio.NewReader(c)
		var longest time.Duration
		for ctx.Err() == nil {
			begin := time.Now()
			_, err := c.Write([]byte("a line\n"))
			if err == nil {
				_, err = lines.ReadString('\n')
			}
			if err != nil {
				h.broken <- err
				break
			}
			longest = max(longest, time.Since(begin))
			time.Sleep(5 * time.Millisecond)
		}
		h.tcp <- longest
	}()
	return h
}

// end stops and tells packets sent and lost, and TCP's longest wait for an answer.
func (h *hostTraffic) end(t testing.TB) (sent, lost int, longest time.Duration) {
	t.Helper()
	h.stop()
	u := <-h.udp
	longest = <-h.tcp
	select {
	case err := <-h.broken:
		t.Errorf("the TCP connection between the hosts broke: %v", err)
	default:
	}
	return u[0], u[1], longest
}
