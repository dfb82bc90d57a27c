package switchover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/xdp"
)

func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// attach puts a fresh shim on a link, as VPP does at its start.
func attach(t *testing.T, name string) *xdp.Shim {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	shim, err := xdp.Attach(l.Attrs().Index)
	require.NoError(t, err)
	return shim
}

func modeOf(t *testing.T, name string) xdp.Mode {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	shim, err := xdp.Find(l.Attrs().Index)
	require.NoError(t, err)
	defer shim.Close()
	m, err := shim.Mode()
	require.NoError(t, err)
	return m
}

func newShims(t *testing.T) *Shims {
	t.Helper()
	s, err := NewShims(xdp.TablesOptions{MaxPrefixes: 1024, MaxFlows: 1024}, quiet())
	if errors.Is(err, xdp.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestShims: which links are open follows what is asked for, what VPP puts on
// them, and what vpp-manager holds.
func TestShims(t *testing.T) {
	inNamespace(t)
	s := newShims(t)
	veth(t, "up0", "fabric")
	veth(t, "sw1", "pod1")
	all := Links{Uplinks: []string{"up0"}, Pods: []string{"sw1"}}
	require.NoError(t, s.Set(Tables{
		Uplink: map[netip.Prefix]xdp.Verdict{locator: xdp.VerdictVPP, dt4: xdp.VerdictVPPInner},
		Pods:   map[netip.Prefix]xdp.Verdict{remote: xdp.VerdictVPP},
	}))
	errs := s.Open(all)
	require.ErrorIs(t, errs["up0"], xdp.ErrNoShim)
	require.ErrorIs(t, errs["sw1"], xdp.ErrNoShim)

	up, pod := attach(t, "up0"), attach(t, "sw1")
	require.Equal(t, xdp.ModeKernel, modeOf(t, "up0"), "a fresh one takes nothing from the kernel")
	require.Empty(t, s.Open(all))
	require.Equal(t, xdp.ModeVPP, modeOf(t, "up0"))
	require.Equal(t, xdp.ModeVPP, modeOf(t, "sw1"))
	require.Len(t, s.Links(), 2)

	require.NoError(t, s.Shut())
	require.Equal(t, xdp.ModeKernel, modeOf(t, "up0"))
	require.Equal(t, xdp.ModeKernel, modeOf(t, "sw1"))

	// vpp-manager holds one of them.
	require.NoError(t, up.SetMode(xdp.ModeHeld))
	require.ErrorIs(t, s.Open(all)["up0"], errHeld)
	require.Equal(t, xdp.ModeHeld, modeOf(t, "up0"))
	require.NoError(t, s.Shut())
	require.Equal(t, xdp.ModeHeld, modeOf(t, "up0"), "what is held stays so")

	// VPP starts anew: another program, and nothing held.
	require.NoError(t, up.Detach())
	require.NoError(t, up.Close())
	require.ErrorIs(t, s.Open(all)["up0"], xdp.ErrNoShim, "between two VPPs")
	up = attach(t, "up0")
	s.Bind(all)
	require.Equal(t, xdp.ModeKernel, modeOf(t, "up0"))
	role, err := up.Role()
	require.NoError(t, err)
	require.Equal(t, xdp.RoleUplink, role, "it is watched before it is opened")
	require.Empty(t, s.Open(all))
	require.Equal(t, xdp.ModeVPP, modeOf(t, "up0"))

	// A pod that VPP does not have any more.
	require.Empty(t, s.Open(Links{Uplinks: []string{"up0"}}))
	require.Equal(t, xdp.ModeKernel, modeOf(t, "sw1"))
	require.Empty(t, s.Open(all))

	// One that goes with its link.
	l, err := netlink.LinkByName("sw1")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkDel(l))
	require.Empty(t, s.Open(all), "a link that is missing is no error")
	require.NoError(t, s.Shut())
	require.NoError(t, pod.Close())
	require.NoError(t, up.Close())
}

// TestShimsOfAnAgentBefore: a new agent goes on with what it finds, and shuts
// what it finds open when it has to.
func TestShimsOfAnAgentBefore(t *testing.T) {
	inNamespace(t)
	first := newShims(t)
	veth(t, "up0", "fabric")
	require.NoError(t, attach(t, "up0").Close())
	links := Links{Uplinks: []string{"up0"}}
	require.NoError(t, first.Set(Tables{Uplink: map[netip.Prefix]xdp.Verdict{locator: xdp.VerdictVPP}}))
	require.Empty(t, first.Open(links))
	require.NoError(t, first.Close())
	require.Equal(t, xdp.ModeVPP, modeOf(t, "up0"), "an agent that ends changes nothing")

	second := newShims(t)
	require.NoError(t, second.Set(Tables{Uplink: map[netip.Prefix]xdp.Verdict{locator: xdp.VerdictVPP}}))
	require.Empty(t, second.Open(links))
	require.Equal(t, xdp.ModeVPP, modeOf(t, "up0"))
	require.NoError(t, second.Close())

	third := newShims(t)
	require.NoError(t, third.Shut(), "VPP is away before this one has opened anything")
	require.Equal(t, xdp.ModeKernel, modeOf(t, "up0"))
}

// TestFlowsOutliveAgentAndVPP: an agent that starts together with VPP keeps the
// connections that the kernel carries, though VPP replaces the shims before it
// opens the first.
func TestFlowsOutliveAgentAndVPP(t *testing.T) {
	inNamespace(t)
	first := newShims(t)
	veth(t, "sw1", "pod1")
	pod := Links{Pods: []string{"sw1"}}
	tables := Tables{Pods: map[netip.Prefix]xdp.Verdict{remote: xdp.VerdictVPP}}
	shim := attach(t, "sw1")
	require.NoError(t, first.Set(tables))
	require.Empty(t, first.Open(pod))
	sendUDP(t, "pod1", "198.51.100.1")
	require.Eventually(t, func() bool { return counter(t, shim, "kernel-table") > 0 }, time.Second, time.Millisecond)
	sendUDP(t, "pod1", "10.244.2.7")
	require.Eventually(t, func() bool { return counter(t, shim, "kernel-flow") == 1 }, time.Second, time.Millisecond)
	require.NoError(t, first.Close())

	second := newShims(t)
	require.NoError(t, shim.Detach())
	require.NoError(t, shim.Close())
	shim = attach(t, "sw1")
	defer shim.Close()
	require.NoError(t, second.Set(tables))
	require.Empty(t, second.Open(pod))
	sendUDP(t, "pod1", "10.244.2.7")
	require.Eventually(t, func() bool { return counter(t, shim, "kernel-flow")+counter(t, shim, "no-socket") > 0 }, time.Second, time.Millisecond)
	require.Zero(t, counter(t, shim, "no-socket"))
}

// TestRemoveShims: an agent without VPP takes off what one with VPP left.
func TestRemoveShims(t *testing.T) {
	inNamespace(t)
	s := newShims(t)
	veth(t, "sw1", "pod1")
	shim := attach(t, "sw1")
	defer shim.Close()
	require.Empty(t, s.Open(Links{Pods: []string{"sw1"}}))
	require.NoError(t, RemoveShims())
	m, err := shim.Mode()
	require.NoError(t, err)
	require.Equal(t, xdp.ModeKernel, m, "a packet under way does not go to VPP any more")
	require.Empty(t, func() []*xdp.Shim { all, err := xdp.FindAll(); require.NoError(t, err); return all }())
	require.NoError(t, RemoveShims(), "again")
}

// TestOpenOfManyLinks: pods by the dozen do not wait for each other.
func TestOpenOfManyLinks(t *testing.T) {
	inNamespace(t)
	s := newShims(t)
	var all Links
	for i := range 64 {
		name := fmt.Sprintf("sw%d", i)
		veth(t, name, "p"+name)
		require.NoError(t, attach(t, name).Close())
		all.Pods = append(all.Pods, name)
	}
	begin := time.Now()
	require.Empty(t, s.Open(all))
	t.Log("opened after", time.Since(begin))
	for _, name := range all.Pods {
		require.Equal(t, xdp.ModeVPP, modeOf(t, name))
	}
}

func counter(t *testing.T, shim *xdp.Shim, name string) uint64 {
	t.Helper()
	n, err := shim.Counters()
	require.NoError(t, err)
	return n[name]
}

// sendUDP sends a packet from 10.244.1.5 port 4000.
func sendUDP(t *testing.T, link, to string) {
	t.Helper()
	f := make([]byte, 14+20+8)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
	ip := f[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 28, 64, unix.IPPROTO_UDP
	src, dst := netip.MustParseAddr("10.244.1.5").As4(), netip.MustParseAddr(to).As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[20:], 4000)
	binary.BigEndian.PutUint16(ip[22:], 53)
	ip[25] = 8
	l, err := netlink.LinkByName(link)
	require.NoError(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}))
}
