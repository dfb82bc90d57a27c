package switchover

import (
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

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
