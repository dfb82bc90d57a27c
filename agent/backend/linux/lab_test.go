package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// space is a network namespace of its own that ends with the test.
type space struct {
	t *testing.T
	*thread
	h *netlink.Handle
}

func newSpace(t *testing.T) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root is needed to make network namespaces")
	}
	th, err := newThread()
	require.NoError(t, err)
	s := &space{t: t, thread: th}
	t.Cleanup(th.close)
	err = th.do(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
	if errors.Is(err, unix.EPERM) {
		t.Skip("CAP_SYS_ADMIN is needed to make network namespaces")
	}
	require.NoError(t, err)
	s.in(func() (err error) { s.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err })
	t.Cleanup(s.h.Close)
	s.up("lo")
	return s
}

// in runs f in the namespace.
func (s *space) in(f func() error) {
	s.t.Helper()
	require.NoError(s.t, s.do(f))
}

func (s *space) link(name string) netlink.Link {
	s.t.Helper()
	l, err := s.h.LinkByName(name)
	require.NoError(s.t, err, name)
	return l
}

func (s *space) up(name string) {
	s.t.Helper()
	require.NoError(s.t, s.h.LinkSetUp(s.link(name)))
}

func (s *space) down(name string) {
	s.t.Helper()
	require.NoError(s.t, s.h.LinkSetDown(s.link(name)))
}

func (s *space) addr(name, cidr string) {
	s.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	require.NoError(s.t, err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	require.NoError(s.t, s.h.AddrAdd(s.link(name), a))
}

func (s *space) defaultVia(name, gw string) {
	s.t.Helper()
	ip := net.ParseIP(gw)
	zero := "0.0.0.0/0"
	if ip.To4() == nil {
		zero = "::/0"
	}
	_, dst, _ := net.ParseCIDR(zero)
	require.NoError(s.t, s.h.RouteAdd(&netlink.Route{LinkIndex: s.link(name).Attrs().Index, Dst: dst, Gw: ip, Flags: int(netlink.FLAG_ONLINK)}))
}

func (s *space) sysctl(name string) int {
	s.t.Helper()
	var v int
	s.in(func() (err error) { v, err = readSysctl(name); return err })
	return v
}

func (s *space) setSysctl(name string, v int) {
	s.t.Helper()
	s.in(func() error { return writeSysctl(name, v) })
}

// fd opens the namespace.
func (s *space) fd() *os.File {
	s.t.Helper()
	var f *os.File
	s.in(func() (err error) { f, err = os.Open(threadNetNS); return err })
	s.t.Cleanup(func() { f.Close() })
	return f
}

// veth makes a pair, one end in each namespace, both up.
func veth(t *testing.T, a *space, nameA string, b *space, nameB string, mtu int) {
	t.Helper()
	at := netlink.NewLinkAttrs()
	at.Name, at.MTU = nameA, mtu
	require.NoError(t, a.h.LinkAdd(&netlink.Veth{LinkAttrs: at, PeerName: "peer0", PeerMTU: uint32(mtu)}))
	peer := a.link("peer0")
	if a == b {
		require.NoError(t, a.h.LinkSetName(peer, nameB))
	} else {
		require.NoError(t, a.h.LinkSetNsFd(peer, int(b.fd().Fd())))
		require.NoError(t, b.h.LinkSetName(b.link("peer0"), nameB))
	}
	for _, e := range []struct {
		s *space
		n string
	}{{a, nameA}, {b, nameB}} {
		e.s.setSysctl(conf6(e.n, "accept_dad"), 0)
		e.s.up(e.n)
	}
}

// backend opens a backend in the namespace.
func (s *space) backend(uplinks ...string) *Backend {
	s.t.Helper()
	var b *Backend
	err := s.do(func() (err error) { b, err = New(Options{Uplinks: uplinks}); return err })
	if errors.Is(err, dataplane.ErrUnsupported) {
		s.t.Skip(err)
	}
	require.NoError(s.t, err)
	s.t.Cleanup(func() { b.Close() })
	return b
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// reach makes the dataplane hold what is wanted, as the reconciler does, and
// checks that it then holds exactly that.
func reach(t *testing.T, b *Backend, want dataplane.State) {
	t.Helper()
	ctx := testContext(t)
	have, err := b.Dump(ctx)
	require.NoError(t, err)
	require.NoError(t, b.Apply(ctx, dataplane.Diff(want, have)))
	have, err = b.Dump(ctx)
	require.NoError(t, err)
	require.Equal(t, want.Text(), have.Text())
	require.Empty(t, dataplane.Diff(want, have))
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// list is a segment list.
func list(weight uint32, segments ...string) dataplane.SegmentList {
	l := dataplane.SegmentList{Weight: weight}
	for _, s := range segments {
		l.Segments = append(l.Segments, addr(s))
	}
	return l
}

func policy(lists ...dataplane.SegmentList) dataplane.Policy {
	dataplane.SortSegmentLists(lists)
	return dataplane.Policy{SegmentLists: lists}
}

func listenUDP(t *testing.T, s *space, at string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	s.in(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func dialUDP(t *testing.T, s *space, from, to string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	s.in(func() (err error) {
		var local *net.UDPAddr
		if from != "" {
			local = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
		}
		c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// control runs a socket option on the connection.
func control(t *testing.T, c *net.UDPConn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var inner error
	require.NoError(t, raw.Control(func(fd uintptr) { inner = f(int(fd)) }))
	require.NoError(t, inner)
}

// canSetSource reports whether the kernel lets us set the encapsulation source,
// which it does not in a user namespace.
func canSetSource(t *testing.T) bool {
	t.Helper()
	b := newSpace(t).backend()
	err := b.conn.setTunnelSource(addr("fd00::1"))
	if errors.Is(err, dataplane.ErrUnsupported) {
		return false
	}
	require.NoError(t, err)
	return true
}

// ownSource drops the encapsulation source from a state where it cannot be set.
func ownSource(t *testing.T, s dataplane.State) {
	t.Helper()
	if !canSetSource(t) {
		delete(s.Settings, dataplane.SettingEncapSource)
	}
}
