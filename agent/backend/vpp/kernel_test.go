package vpp

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// foreignRoute is in the kernel, which this backend leaves alone.
func foreignRoute() *netlink.Route {
	_, dst, _ := net.ParseCIDR("fcbb:bb00:77::/48")
	return &netlink.Route{Dst: dst, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC, Priority: 83}
}

func addForeignKernelRoute(t *testing.T) {
	t.Helper()
	require.NoError(t, netlink.RouteAdd(foreignRoute()))
}

func requireForeignKernelRoute(t *testing.T) {
	t.Helper()
	r := foreignRoute()
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
