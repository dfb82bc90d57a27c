package vpp

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// foreignGuard looks like a guard but has another protocol number.
func foreignGuard() *netlink.Route {
	_, dst, _ := net.ParseCIDR("fcbb:bb00:77::/48")
	return &netlink.Route{Dst: dst, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC, Priority: metric}
}

func addForeignKernelRoute(t *testing.T) {
	t.Helper()
	require.NoError(t, netlink.RouteAdd(foreignGuard()))
}

func requireForeignKernelRoute(t *testing.T) {
	t.Helper()
	r := foreignGuard()
	got, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Dst: r.Dst, Type: r.Type}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TYPE)
	require.NoError(t, err)
	require.Len(t, got, 1)
}

func delVeth(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkDel(l))
}
