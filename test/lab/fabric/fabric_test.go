package fabric_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

func TestMain(m *testing.M) { lab.Main(m) }

// newFabric makes two nodes; the test is skipped where namespaces are refused.
func newFabric(t *testing.T, paths int) *fabric.Fabric {
	t.Helper()
	if _, ok := tree.Current(); !ok {
		t.Skip("needs network namespaces: root or user namespaces")
	}
	f, err := fabric.New(paths, 1500)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	require.NoError(t, f.AddNode(1, "node1", false))
	require.NoError(t, f.AddNode(2, "node2", true))
	return f
}

// underlay gives nodes an echo server and returns them as peers.
func underlay(t *testing.T, nodes map[string]netip.Addr) []traffic.Peer {
	t.Helper()
	var peers []traffic.Peer
	for name, a := range nodes {
		e, err := traffic.NewEcho(name)
		require.NoError(t, err)
		t.Cleanup(e.Close)
		peers = append(peers, traffic.Peer{Name: name, IPs: []netip.Addr{a}, MTU: 1500})
	}
	return peers
}

func TestNodesReachEachOther(t *testing.T) {
	newFabric(t, 2)
	peers := underlay(t, map[string]netip.Addr{"node1": fabric.NodeAddr(1), "node2": fabric.NodeAddr(2)})
	m, err := traffic.Reach(t.Context(), peers, traffic.Checks(), nil)
	require.NoError(t, err)
	require.Empty(t, m.Failures)
	require.Equal(t, 2*4, m.OK)

	bits, err := traffic.Throughput("node1", "node2", fabric.NodeAddr(2), 300*time.Millisecond)
	require.NoError(t, err)
	require.Greater(t, bits, 1e6)

	s, err := traffic.StartStream("node1", "node2", fabric.NodeAddr(2), 200)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Result(traffic.Window{}).Sent > 20 }, 10*time.Second, 10*time.Millisecond)
	require.Zero(t, s.Stop().Lost)
}

func TestTooLargePacketFails(t *testing.T) {
	newFabric(t, 1)
	peers := underlay(t, map[string]netip.Addr{"node1": fabric.NodeAddr(1), "node2": fabric.NodeAddr(2)})
	for i := range peers {
		peers[i].MTU = 1501
	}
	m, err := traffic.Reach(t.Context(), peers, []traffic.Check{traffic.UDPFull}, nil)
	require.NoError(t, err)
	require.Equal(t, 0, m.OK)
	require.Len(t, m.Failures, 2)
	require.ErrorIs(t, m.Failures[0].Err, unix.EMSGSIZE)
}

func TestStreamCountsLoss(t *testing.T) {
	newFabric(t, 1)
	s, err := traffic.StartStream("node1", "node2", fabric.NodeAddr(2), 500)
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, setLink("spine1", fabric.SpinePort(2), false))
	require.Eventually(t, func() bool { return s.Result(traffic.Window{}).Lost > 20 }, 10*time.Second, 10*time.Millisecond)
	r := s.Stop()
	require.Greater(t, r.Lost, 20)
	require.Equal(t, r.Sent, r.Received+r.Lost)
}

func setLink(nsName, name string, up bool) error {
	h, err := ns.Handle(nsName)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if up {
		return h.LinkSetUp(l)
	}
	return h.LinkSetDown(l)
}

func routesTo(t *testing.T, nsName string, p netip.Prefix) []netlink.Route {
	t.Helper()
	h, err := ns.Handle(nsName)
	require.NoError(t, err)
	defer h.Close()
	all, err := h.RouteList(nil, netlink.FAMILY_V6)
	require.NoError(t, err)
	var out []netlink.Route
	for _, r := range all {
		if r.Dst != nil && r.Dst.String() == p.String() {
			out = append(out, r)
		}
	}
	return out
}

func TestIGPFollowsPublishedLocators(t *testing.T) {
	f := newFabric(t, 3)
	dir := t.TempDir()
	locator := netip.MustParsePrefix("fcbb:bb00:2::/48")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		f.RunIGP(ctx, dir, func(name string) (int, bool) { return 2, name == "node2" }, logrus.New())
		close(done)
	}()
	defer func() { cancel(); <-done }()

	path := filepath.Join(dir, "srv6node-node2.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("kind: SRv6Node\nmetadata: {name: node2}\nspec: {locator: 'fcbb:bb00:2::/48'}\n")
	require.Eventually(t, func() bool { return len(f.Announced()) == 1 }, 5*time.Second, 20*time.Millisecond)
	r := routesTo(t, fabric.TorName(1), locator)
	require.Len(t, r, 1)
	require.Len(t, r[0].MultiPath, 3)
	require.Len(t, routesTo(t, fabric.SpineName(3), locator), 1)
	require.Len(t, routesTo(t, fabric.TorName(2), locator), 1)

	write("kind: SRv6Node\nmetadata: {name: node2}\nspec: {locator: 'fcbb:bb00:22::/48'}\n")
	moved := netip.MustParsePrefix("fcbb:bb00:22::/48")
	require.Eventually(t, func() bool { _, ok := f.Announced()[moved]; return ok && len(f.Announced()) == 1 }, 5*time.Second, 20*time.Millisecond)
	require.Empty(t, routesTo(t, fabric.TorName(1), locator))

	// The node's ToR follows the address that the node published, if it is on
	// their link.
	other := fabric.NodeAddr(2).Next()
	for published, via := range map[netip.Addr]netip.Addr{other: other, netip.MustParseAddr("fd00::1"): fabric.NodeAddr(2)} {
		write("kind: SRv6Node\nmetadata: {name: node2}\nspec: {locator: 'fcbb:bb00:22::/48', encapSource: '" + published.String() + "'}\n")
		require.Eventually(t, func() bool {
			r := routesTo(t, fabric.TorName(2), moved)
			return len(r) == 1 && r[0].Gw.String() == via.String() && f.Announced()[moved].Via == via
		}, 5*time.Second, 20*time.Millisecond, published)
	}

	require.NoError(t, f.AddNode(3, "node3", false))
	require.Len(t, routesTo(t, fabric.TorName(3), moved), 1, "a later router learns what is announced already")

	require.NoError(t, os.Remove(path))
	require.Eventually(t, func() bool { return len(f.Announced()) == 0 }, 5*time.Second, 20*time.Millisecond)
	for _, name := range []string{fabric.TorName(1), fabric.TorName(2), fabric.SpineName(1)} {
		require.Empty(t, routesTo(t, name, moved), name)
	}
}

func TestRemovedNodeLeavesNoRoute(t *testing.T) {
	f := newFabric(t, 2)
	require.NoError(t, f.Announce(2, netip.MustParsePrefix("fcbb:bb00:2::/48"), fabric.NodeAddr(2)))
	require.NoError(t, f.RemoveNode(2))
	require.Empty(t, f.Announced())
	for _, name := range []string{fabric.TorName(1), fabric.SpineName(1), fabric.SpineName(2)} {
		require.Empty(t, routesTo(t, name, netip.MustParsePrefix("fcbb:bb00:2::/48")), name)
		require.Empty(t, routesTo(t, name, fabric.NodePrefix(2)), name)
	}
	_, err := os.Stat(ns.Path("node2"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, f.AddNode(2, "node2", false), "the place is free again")
}
