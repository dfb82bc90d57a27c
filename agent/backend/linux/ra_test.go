package linux

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// advertise sends a router advertisement (RFC 4861 §4.2) to all nodes on the
// link, with a lifetime of half an hour and nothing else.
func advertise(t *testing.T, router *space, name string) {
	t.Helper()
	index := router.link(name).Attrs().Index
	router.in(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index); err != nil {
			return err
		}
		ra := make([]byte, 16)
		ra[0], ra[4] = 134, 64
		ra[6], ra[7] = 1800>>8, 1800&0xff
		to := &unix.SockaddrInet6{ZoneId: uint32(index)}
		copy(to.Addr[:], net.ParseIP("ff02::1"))
		return unix.Sendto(fd, ra, 0, to)
	})
}

// raDefault reports whether the node has a default route from an advertisement.
func raDefault(t *testing.T, s *space) bool {
	t.Helper()
	found := false
	c := s.netlink(t)
	require.NoError(t, c.dumpRoutes(unix.AF_INET6, unix.RT_TABLE_MAIN, unix.RTPROT_RA, func() { found = false }, func(r kernelRoute) {
		found = found || r.prefix.Bits() == 0
	}))
	return found
}

// TestRouterAdvertisements: a host that lives by router advertisements keeps its
// default route when the node begins to forward, on the uplink and elsewhere.
func TestRouterAdvertisements(t *testing.T) {
	for _, uplink := range []string{"up0", "up1"} {
		t.Run("uplink "+uplink, func(t *testing.T) {
			node, router := newSpace(t), newSpace(t)
			veth(t, node, "up0", router, "r0", 1500)
			veth(t, node, "up1", router, "r1", 1500)
			require.Equal(t, 1, node.sysctl(conf6("up0", "accept_ra")), "the kernel's default")
			require.Eventually(t, func() bool {
				advertise(t, router, "r0")
				return raDefault(t, node)
			}, 5*time.Second, 50*time.Millisecond)

			want := dataplane.New()
			want.Interfaces[dataplane.InterfaceKey(uplink)] = dataplane.Interface{Role: dataplane.RoleUplink}
			b := node.backend(uplink)
			reach(t, b, want)
			require.Equal(t, 1, node.sysctl("ipv4/ip_forward"))
			require.Equal(t, 1, node.sysctl(conf6("all", "forwarding")))
			require.Equal(t, 2, node.sysctl(conf6("up0", "accept_ra")))
			require.True(t, raDefault(t, node), "the default route is gone")
			// Also what a later advertisement brings is taken.
			require.NoError(t, node.h.LinkSetDown(node.link("up0")))
			require.NoError(t, node.h.LinkSetUp(node.link("up0")))
			require.Eventually(t, func() bool {
				advertise(t, router, "r0")
				return raDefault(t, node)
			}, 5*time.Second, 50*time.Millisecond)

			// Giving the uplink up leaves the node as it is.
			reach(t, b, dataplane.New())
			require.Equal(t, 1, node.sysctl("ipv4/ip_forward"))
			require.True(t, raDefault(t, node))
		})
	}
}

// TestUplinkBelongsToTheHost: nothing but sysctls changes on it.
func TestUplinkBelongsToTheHost(t *testing.T) {
	node, _ := oneNode(t)
	b := node.backend("up0")
	before := node.link("up0").Attrs()
	key := dataplane.InterfaceKey("up0")
	apply := func(v dataplane.Interface) error {
		return b.Apply(testContext(t), []dataplane.Change{{Op: dataplane.OpAdd, Key: key, New: v}})
	}
	require.ErrorContains(t, apply(dataplane.Interface{Role: dataplane.RoleUplink, MTU: 1400}), "belongs to the host")
	require.ErrorContains(t, apply(dataplane.Interface{Role: dataplane.RoleUplink, MAC: hostMAC}), "belongs to the host")
	require.ErrorIs(t, apply(dataplane.Interface{Role: dataplane.RolePod, MTU: 1400}), dataplane.ErrUnsupported)
	require.Zero(t, node.sysctl("ipv4/ip_forward"), "nothing was done by halves")
	node.setSysctl(conf4("all", "rp_filter"), 1)
	node.setSysctl(conf4("up0", "rp_filter"), 1)
	want := dataplane.New()
	want.Interfaces[key] = dataplane.Interface{Role: dataplane.RoleUplink, MTU: 1500, MAC: dataplane.MAC(before.HardwareAddr)}
	reach(t, b, want)
	require.Equal(t, 2, node.sysctl(conf4("up0", "rp_filter")), "loose: the larger of both values counts")
	require.Equal(t, 1, node.sysctl(conf4("all", "rp_filter")))
	after := node.link("up0").Attrs()
	require.Equal(t, before.HardwareAddr, after.HardwareAddr)
	require.Equal(t, before.MTU, after.MTU)
	require.Empty(t, after.Alias)

	err := b.Apply(testContext(t), []dataplane.Change{{Op: dataplane.OpAdd, Key: dataplane.InterfaceKey("far0"), New: dataplane.Interface{Role: dataplane.RoleUplink}}})
	require.ErrorIs(t, err, dataplane.ErrUnsupported)
	// When the host stops forwarding, that is a difference.
	node.setSysctl("ipv4/ip_forward", 0)
	have, err := b.Dump(testContext(t))
	require.NoError(t, err)
	require.Empty(t, have.Interfaces)
	reach(t, b, want)
}
