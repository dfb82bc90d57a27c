package vpp

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// An instance that ended between making the loopback and tagging it, any number
// of times, leaves one loopback, which the next takes.
func TestUntaggedLoopbackIsTaken(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	ctx := context.Background()
	want := dataplane.New()
	want.Settings[dataplane.SettingEncapSource] = "fd00::1"
	c, err := binapi.Dial(ctx, binapi.Options{Socket: m.socket()})
	require.NoError(t, err)
	defer c.Close()
	view := func() *view {
		v, err := readView(ctx, c)
		require.NoError(t, err)
		return v
	}
	for range 3 {
		a := &applier{Backend: newBackend(t, m, Options{}), ctx: ctx, c: c, view: view()}
		_, err := a.claimLoopback()
		require.NoError(t, err)
	}
	b := newBackend(t, m, Options{})
	apply(t, b, want)
	lo := view().lo
	require.NotNil(t, lo)
	require.True(t, lo.AdminUp)
	require.Equal(t, "loop8383", lo.Name)
	require.Equal(t, 1, strings.Count(m.cli(t, "show interface"), "loop"))

	// One that an older instance did not get to bring up.
	m.cli(t, "set interface state loop8383 down")
	want.Settings[dataplane.SettingEncapSource] = "fd00::2"
	apply(t, b, want)
	require.True(t, view().lo.AdminUp)

	apply(t, b, dataplane.New())
	require.NotContains(t, m.cli(t, "show interface"), "loop")
}

// Loopbacks of others are left alone, whichever number they have.
func TestLoopbacksOfOthersAreNotTaken(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{})
	want := dataplane.New()
	want.Settings[dataplane.SettingEncapSource] = "fd00::1"
	for _, command := range []string{
		"create loopback interface", // loop0, untouched, but not our number
		"create loopback interface instance 8383", "set interface state loop8383 up",
		"create loopback interface instance 8384", "set interface ip address loop8384 192.0.2.1/32",
		"create loopback interface instance 8385", "set interface ip address loop8385 2001:db8::1/128",
		"create loopback interface instance 8386", "set interface tag loop8386 mine",
	} {
		m.cli(t, command)
	}
	apply(t, b, want)
	v, err := readView(context.Background(), mustConnect(t, b))
	require.NoError(t, err)
	require.Equal(t, "loop8387", v.lo.Name)
	apply(t, b, dataplane.New())
	interfaces := m.cli(t, "show interface")
	require.NotContains(t, interfaces, "loop8387")
	for _, name := range []string{"loop0", "loop8383", "loop8384", "loop8385", "loop8386"} {
		require.Contains(t, interfaces, name)
	}

	for n := uint32(firstLoopback + 4); n < firstLoopback+loopbackTries; n++ {
		m.cli(t, "create loopback interface instance "+binapi.LoopbackName(n)[len("loop"):])
		m.cli(t, "set interface state "+binapi.LoopbackName(n)+" up")
	}
	// All else goes on.
	address := dataplane.AddressKey{Interface: loName, Prefix: netip.MustParsePrefix("fd00::1/128")}
	want.Addresses[address] = dataplane.Address{}
	route := dataplane.RouteKey{Prefix: netip.MustParsePrefix("198.51.100.0/24")}
	want.Routes[route] = dataplane.Route{}
	failed, rest := dataplane.Failures(b.Apply(context.Background(), dataplane.Diff(want, dataplane.New())))
	require.NoError(t, rest)
	require.Len(t, failed, 2)
	for _, k := range []dataplane.Key{dataplane.SettingEncapSource, address} {
		require.ErrorContains(t, failed[k], "loop8383 to loop8398 are all in use")
	}
}

func mustConnect(t *testing.T, b *Backend) *binapi.Conn {
	t.Helper()
	c, err := b.connect(context.Background())
	require.NoError(t, err)
	return c
}
