package underlay

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// inNamespace puts the test's thread into a network namespace of its own, with
// an uplink up0 whose other end is up0peer.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	runtime.LockOSThread()
	old, err := netns.Get()
	require.NoError(t, err)
	fresh, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, netns.Set(old))
		old.Close()
		fresh.Close()
		runtime.UnlockOSThread()
	})
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0", MTU: 1700}, PeerName: "up0peer"}))
	for _, name := range []string{"lo", "up0", "up0peer"} {
		up(t, name)
	}
	addr, err := netlink.ParseAddr("fd53::1/64")
	require.NoError(t, err)
	addr.Flags = 0x02 // nodad
	require.NoError(t, netlink.AddrAdd(link(t, "up0"), addr))
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	return l
}

func up(t *testing.T, name string) {
	t.Helper()
	require.NoError(t, netlink.LinkSetUp(link(t, name)))
}

func addRoute(t *testing.T, prefix, via string, protocol netlink.RouteProtocol) {
	t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	require.NoError(t, err)
	require.NoError(t, netlink.RouteAdd(&netlink.Route{
		LinkIndex: link(t, "up0").Attrs().Index, Dst: dst, Gw: net.ParseIP(via), Protocol: protocol,
	}))
}

func kernel(o Options) *Kernel {
	log := logrus.New()
	log.SetOutput(io.Discard)
	o.Log = log
	return New(o)
}

func TestKernelResolves(t *testing.T) {
	inNamespace(t)
	routed := Target{netip.MustParsePrefix("fcbb:bb00:2::/48"), netip.MustParseAddr("fd99::2")}
	onLink := Target{netip.MustParsePrefix("fcbb:bb00:3::/48"), netip.MustParseAddr("fd53::3")}
	far := Target{netip.MustParsePrefix("fcbb:bb00:4::/48"), netip.MustParseAddr("fd99::4")}
	targets := []Target{routed, onLink, far}
	addRoute(t, "fcbb:bb00:2::/48", "fd53::a", 186)
	k := kernel(Options{Uplinks: []string{"up0"}})

	u, err := k.Resolve(targets)
	require.NoError(t, err)
	require.Equal(t, uint16(1700), u.Uplinks["up0"].MTU)
	require.False(t, u.Uplinks["up0"].MAC.IsZero())
	require.Equal(t, map[netip.Prefix]cluster.UnderlayRoute{
		routed.Locator: {NextHops: []dataplane.NextHop{hop("up0", "fd53::a")}, InKernel: true},
		onLink.Locator: {NextHops: []dataplane.NextHop{hop("up0", "fd53::3")}},
	}, u.Routes, "without a default route there is no way to the third")

	addRoute(t, "::/0", "fd53::b", 4)
	// Routes of our own say nothing about the underlay.
	addRoute(t, "fcbb:bb00:3::/48", "fd53::c", OwnProtocol)
	u, err = k.Resolve(targets)
	require.NoError(t, err)
	require.Equal(t, []dataplane.NextHop{hop("up0", "fd53::3")}, u.Routes[onLink.Locator].NextHops)
	require.Equal(t, []dataplane.NextHop{hop("up0", "fd53::b")}, u.Routes[far.Locator].NextHops)
}

func TestUplinksAreSettled(t *testing.T) {
	inNamespace(t)
	k := kernel(Options{})
	_, err := k.Settle()
	require.ErrorIs(t, err, ErrNoUplink)
	require.ErrorContains(t, err, "no default IPv6 route")
	addRoute(t, "::/0", "fd53::b", 4)
	names, err := k.Settle()
	require.NoError(t, err)
	require.Equal(t, []string{"up0"}, names)
	// The default route goes; the uplink is still the uplink.
	_, all, _ := net.ParseCIDR("::/0")
	require.NoError(t, netlink.RouteDel(&netlink.Route{LinkIndex: link(t, "up0").Attrs().Index, Dst: all}))
	u, err := k.Resolve(nil)
	require.NoError(t, err)
	require.Contains(t, u.Uplinks, "up0")
	require.NoError(t, netlink.LinkDel(link(t, "up0")))
	_, err = k.Resolve(nil)
	require.ErrorIs(t, err, ErrNoUplink)
	require.ErrorContains(t, err, "interface up0 does not exist")
}

// TestNeighboursAreAskedFor: the kernel is made to resolve next hops that it has
// no traffic for.
func TestNeighboursAreAskedFor(t *testing.T) {
	inNamespace(t)
	peer := link(t, "up0peer")
	addr, err := netlink.ParseAddr("fd53::3/64")
	require.NoError(t, err)
	addr.Flags = 0x02
	// The peer end is moved away, so that it answers as another machine.
	here, err := netns.Get()
	require.NoError(t, err)
	defer here.Close()
	other, err := netns.New()
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, netns.Set(here))
	require.NoError(t, netlink.LinkSetNsFd(peer, int(other)))
	require.NoError(t, netns.Set(other))
	up(t, "up0peer")
	require.NoError(t, netlink.AddrAdd(link(t, "up0peer"), addr))
	mac := dataplane.MAC(link(t, "up0peer").Attrs().HardwareAddr)
	require.NoError(t, netns.Set(here))

	k := kernel(Options{Uplinks: []string{"up0"}, Neighbours: true})
	target := Target{netip.MustParsePrefix("fcbb:bb00:3::/48"), netip.MustParseAddr("fd53::3")}
	key := dataplane.NeighbourKey{Interface: "up0", IP: target.Address}
	var u cluster.Underlay
	for range 200 {
		u, err = k.Resolve([]Target{target})
		require.NoError(t, err)
		if len(u.Neighbours) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.Equal(t, mac, u.Neighbours[key])
}

// TestChangesAreSignalled: those from before the subscription, and routes of
// others, but not our own.
func TestChangesAreSignalled(t *testing.T) {
	inNamespace(t)
	k := kernel(Options{Uplinks: []string{"up0"}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	here, err := netns.Get()
	require.NoError(t, err)
	defer here.Close()
	done := make(chan error, 1)
	go func() {
		// The thread is not given back: it stays in the namespace.
		runtime.LockOSThread()
		if err := netns.Set(here); err != nil {
			done <- err
			return
		}
		done <- k.Run(ctx)
	}()
	signalled := func(within time.Duration) bool {
		select {
		case <-k.Changed():
			return true
		case <-time.After(within):
			return false
		}
	}
	require.True(t, signalled(5*time.Second), "subscribing counts as a change")
	for signalled(300 * time.Millisecond) { // what the set-up of the links still causes
	}
	addRoute(t, "fcbb:bb00:9::/48", "fd53::a", OwnProtocol)
	require.False(t, signalled(100*time.Millisecond), "our own route")
	addRoute(t, "fcbb:bb00:2::/48", "fd53::a", 186)
	require.True(t, signalled(5*time.Second), "a route of the underlay")
	cancel()
	require.NoError(t, <-done)
}
