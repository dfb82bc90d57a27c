package switchover

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/xdp"
)

// inNamespace runs the test in a network namespace of its own, which goes with
// the thread.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	home, err := netns.Get()
	require.NoError(t, err)
	made, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = netns.Set(home)
		home.Close()
		made.Close()
	})
}

// veth makes a pair, both ends up.
func veth(t *testing.T, name, peer string) {
	t.Helper()
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}))
	for _, n := range []string{name, peer} {
		l, err := netlink.LinkByName(n)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(l))
	}
}

// route asks the kernel what it would do with a packet from a link.
func route(t *testing.T, from, to string) string {
	t.Helper()
	a := netip.MustParseAddr(to)
	// Input lookups want a source address, and forwarding.
	src := netip.MustParseAddr("10.1.0.9")
	if a.Is6() {
		src = netip.MustParseAddr("fd01::9")
	}
	routes, err := netlink.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{Iif: from, SrcAddr: src.AsSlice()})
	if err != nil {
		return err.Error()
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	require.NoError(t, err)
	return l.Attrs().Name
}

// TestRules: the kernel drops its copies of what VPP carries, and of nothing
// else, while the carrier is open.
func TestRules(t *testing.T) {
	inNamespace(t)
	veth(t, "up0", "fabric")
	veth(t, "sw1", "pod1")
	for _, f := range []string{"ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"} {
		require.NoError(t, os.WriteFile("/proc/sys/net/"+f, []byte("1"), 0o644))
	}
	for _, f := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/sw1/rp_filter", "ipv4/conf/up0/rp_filter"} {
		require.NoError(t, os.WriteFile("/proc/sys/net/"+f, []byte("0"), 0o644))
	}
	up, err := netlink.LinkByName("up0")
	require.NoError(t, err)
	for _, p := range []string{"10.0.0.0/8", "fd00::/8", "fcbb:bb00::/32"} {
		_, dst, err := net.ParseCIDR(p)
		require.NoError(t, err)
		require.NoError(t, netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: up.Attrs().Index}))
	}
	r := NewRules(true, true)
	tables := Tables{
		Uplink: map[netip.Prefix]xdp.Verdict{locator: xdp.VerdictVPP, dt4: xdp.VerdictVPPInner},
		Pods:   map[netip.Prefix]xdp.Verdict{remote: xdp.VerdictVPP, netip.MustParsePrefix("fd10:244:2::/64"): xdp.VerdictVPP},
	}
	require.NoError(t, r.Set(tables))
	require.NoError(t, r.Set(tables), "again")
	require.Equal(t, "up0", route(t, "sw1", "10.244.2.7"), "nothing is open yet")

	all := Links{Uplinks: []string{"up0"}, Pods: []string{"sw1"}}
	require.Empty(t, r.Open(all))
	require.Empty(t, r.Open(all), "again")
	drop := unix.EINVAL.Error() // what a blackhole answers
	require.Equal(t, drop, route(t, "sw1", "10.244.2.7"))
	require.Equal(t, drop, route(t, "sw1", "fd10:244:2::7"))
	require.Equal(t, "up0", route(t, "sw1", "10.9.9.9"), "not VPP's")
	require.Equal(t, drop, route(t, "up0", "fcbb:bb00:1:e004::"))
	require.Equal(t, "up0", route(t, "up0", "fcbb:bb00:2::1"), "another node's")
	require.Len(t, r.Links(), 2)

	// What VPP cannot carry within a prefix of its own, before and after.
	for p, to := range map[string]string{"10.244.2.7/32": "10.244.2.7", "fd10:244:2::7/128": "fd10:244:2::7"} {
		tables.Pods[netip.MustParsePrefix(p)] = xdp.VerdictKernel
		require.NoError(t, r.Set(tables))
		require.Equal(t, "up0", route(t, "sw1", to))
		tables.Pods[netip.MustParsePrefix(p)] = xdp.VerdictVPP
		require.NoError(t, r.Set(tables))
		require.Equal(t, drop, route(t, "sw1", to))
		delete(tables.Pods, netip.MustParsePrefix(p))
		require.NoError(t, r.Set(tables))
		require.Equal(t, drop, route(t, "sw1", to))
	}

	delete(tables.Pods, remote)
	require.NoError(t, r.Set(tables))
	require.Equal(t, "up0", route(t, "sw1", "10.244.2.7"))
	require.Equal(t, drop, route(t, "sw1", "fd10:244:2::7"))

	// Whoever comes later finds what is there.
	r = NewRules(true, true)
	require.Empty(t, r.Open(Links{Uplinks: []string{"up0"}}))
	require.Equal(t, "up0", route(t, "sw1", "fd10:244:2::7"), "sw1 is nobody's pod any more")
	require.Equal(t, drop, route(t, "up0", "fcbb:bb00:1:e004::"))

	require.NoError(t, RemoveRules())
	require.Equal(t, "up0", route(t, "up0", "fcbb:bb00:1:e004::"))
	require.NoError(t, RemoveRules(), "again")
	left, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: protocol, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	require.NoError(t, err)
	require.Empty(t, left, "nothing is left in the tables either")
}
