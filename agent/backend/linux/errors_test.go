package linux

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// TestWhatCannotBe: each kind of impossible or premature object has the error
// that its cause deserves, and does not hold back the others.
func TestWhatCannotBe(t *testing.T) {
	node, _ := oneNode(t)
	_, vrfErr := os.Stat(sysctlRoot + sysctlVRFStrict)
	b := node.backend("up0", "absent0")
	via := func(dev string, gw string) dataplane.NextHop {
		n := dataplane.NextHop{Interface: dev, Weight: 1}
		if gw != "" {
			n.Gateway = addr(gw)
		}
		return n
	}
	cases := []struct {
		name string
		key  dataplane.Key
		give dataplane.Value
		is   error
		says string
	}{
		{"hop limit", dataplane.SettingEncapHopLimit, dataplane.Setting("64"), dataplane.ErrUnsupported, "hop limit"},
		{"flow hash", dataplane.SettingFlowHash, dataplane.Setting("src"), dataplane.ErrUnsupported, "belongs to the host"},
		{"source", dataplane.SettingEncapSource, dataplane.Setting("192.0.2.1"), nil, "192.0.2.1"},
		{"flow label", dataplane.SettingFlowLabel, dataplane.Setting("random"), dataplane.ErrUnsupported, "random"},
		{"absent pod", dataplane.InterfaceKey("absent1"), dataplane.Interface{Role: dataplane.RolePod, MTU: 1400}, dataplane.ErrNotReady, "absent1"},
		{"absent uplink", dataplane.InterfaceKey("absent0"), dataplane.Interface{Role: dataplane.RoleUplink}, dataplane.ErrNotReady, "absent0"},
		{"role", dataplane.InterfaceKey("up0"), dataplane.Interface{Role: "core"}, dataplane.ErrUnsupported, "core"},
		{"address", dataplane.AddressKey{Interface: "absent1", Prefix: prefix("192.0.2.9/32")}, dataplane.Address{}, dataplane.ErrNotReady, "absent1"},
		{"neighbour", dataplane.NeighbourKey{Interface: "absent1", IP: addr("192.0.2.9")}, dataplane.Neighbour{MAC: hostMAC}, dataplane.ErrNotReady, "absent1"},
		{"neighbour without MAC", dataplane.NeighbourKey{Interface: "up0", IP: addr("192.0.2.9")}, dataplane.Neighbour{}, nil, "MAC"},
		{"route", dataplane.RouteKey{Prefix: prefix("10.0.0.0/8")}, dataplane.Route{NextHops: []dataplane.NextHop{via("absent1", "")}}, dataplane.ErrNotReady, "absent1"},
		{"host bits", dataplane.RouteKey{Prefix: prefix("10.0.0.1/8")}, dataplane.Route{}, nil, "10.0.0.1/8"},
		{"IPv4 gateway for IPv6", dataplane.RouteKey{Prefix: prefix("fd01::/64")}, dataplane.Route{NextHops: []dataplane.NextHop{via("up0", "192.0.2.9")}}, dataplane.ErrUnsupported, "gateway"},
		{"several without gateway", dataplane.RouteKey{Prefix: prefix("fd02::/64")}, dataplane.Route{NextHops: []dataplane.NextHop{via("far0", ""), via("up0", "")}}, dataplane.ErrUnsupported, "gateway"},
		{"uN length", dataplane.LocalSIDKey{SID: prefix("fcbb:bb00:1::/64")}, dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}, dataplane.ErrUnsupported, "/48"},
		{"behaviour", dataplane.LocalSIDKey{SID: prefix("fcbb:bb00:1::1/128")}, dataplane.LocalSID{Behaviour: "End.X"}, dataplane.ErrUnsupported, "End.X"},
		{"IPv4 SID", dataplane.LocalSIDKey{SID: prefix("192.0.2.0/24")}, dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}, nil, "IPv6"},
		{"policy without lists", dataplane.PolicyKey{BSID: addr("fcbb::1")}, dataplane.Policy{}, nil, "segment list"},
		{"IPv4 segment", dataplane.PolicyKey{BSID: addr("fcbb::2")}, policy(list(1, "fcbb:bb00:2::"), list(1, "192.0.2.1")), nil, "192.0.2.1"},
		{"steering", dataplane.SteeringKey{Prefix: prefix("10.5.0.0/24")}, dataplane.Steering{BSID: addr("fcbb::3")}, dataplane.ErrNotReady, "fcbb::3"},
		{"value of another kind", dataplane.SteeringKey{Prefix: prefix("10.6.0.0/24")}, dataplane.Route{}, nil, "Route"},
	}
	if vrfErr != nil {
		cases = append(cases, cases[0], cases[0])
		n := len(cases)
		cases[n-2].name, cases[n-2].key, cases[n-2].give, cases[n-2].says = "End.DT46", dataplane.LocalSIDKey{SID: prefix("fcbb:bb00:1::2/128")}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT46, Table: 7}, "VRF"
		cases[n-1].name, cases[n-1].key, cases[n-1].give, cases[n-1].says = "End.DT4", dataplane.LocalSIDKey{SID: prefix("fcbb:bb00:1::3/128")}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4, Table: 7}, "VRF"
	}
	good := dataplane.RouteKey{Prefix: prefix("10.77.0.0/16")}
	var changes []dataplane.Change
	for _, c := range cases {
		changes = append(changes, dataplane.Change{Op: dataplane.OpAdd, Key: c.key, New: c.give})
	}
	changes = append(changes, dataplane.Change{Op: dataplane.OpAdd, Key: good, New: dataplane.Route{}})
	failed, rest := dataplane.Failures(b.Apply(testContext(t), changes))
	require.NoError(t, rest)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			require.Contains(t, failed, c.key)
			require.ErrorContains(t, failed[c.key], c.says)
			for _, e := range []error{dataplane.ErrUnsupported, dataplane.ErrNotReady} {
				require.Equal(t, errors.Is(c.is, e), errors.Is(failed[c.key], e), "%v is %v", failed[c.key], e)
			}
		})
	}
	require.Len(t, failed, len(cases))
	have, err := b.Dump(testContext(t))
	require.NoError(t, err)
	require.Equal(t, "route/10.77.0.0/16 = drop", have.Text())
	require.NoError(t, b.conn.dumpNexthops(func(n nexthop) { t.Errorf("nexthop %d is left of a policy that failed", n.id) }, nil))
}

// TestUplinkDown: what needs the uplink waits for it, with a reason.
func TestUplinkDown(t *testing.T) {
	node, _ := oneNode(t)
	b := node.backend("up0")
	node.down("up0")
	k := dataplane.LocalSIDKey{SID: prefix("fcbb:bb00:1::/48")}
	add := []dataplane.Change{{Op: dataplane.OpAdd, Key: k, New: dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}}}
	require.ErrorIs(t, b.Apply(testContext(t), add), dataplane.ErrNotReady)
	node.up("up0")
	require.NoError(t, b.Apply(testContext(t), add))
}

func TestSettings(t *testing.T) {
	node := newSpace(t)
	b := node.backend("up0")
	want := dataplane.New()
	for _, mode := range []dataplane.Setting{dataplane.FlowLabelNone, dataplane.FlowLabelInnerHash, dataplane.FlowLabelNone} {
		want.Settings[dataplane.SettingFlowLabel] = mode
		// Not the usual spelling: what was applied is what a dump says.
		want.Settings[dataplane.SettingEncapSource] = "fd00:0::1"
		ownSource(t, want)
		reach(t, b, want)
		require.Equal(t, map[dataplane.Setting]int{dataplane.FlowLabelNone: 0, dataplane.FlowLabelInnerHash: 1}[mode], node.sysctl(sysctlFlowLabel))
	}
	// A fresh instance sees the kernel's default, and agrees once it was told.
	fresh := node.backend("up0")
	reach(t, fresh, want)
	reach(t, b, dataplane.New())
	reach(t, fresh, dataplane.New())
	src, err := fresh.conn.tunnelSource()
	require.NoError(t, err)
	require.True(t, src.IsUnspecified())
}

// TestBelongsToItsNamespace: whatever thread calls, the backend works where it
// was made.
func TestBelongsToItsNamespace(t *testing.T) {
	one, two := newSpace(t), newSpace(t)
	for _, s := range []*space{one, two} {
		veth(t, s, "up0", s, "far0", 1500)
	}
	b := one.backend("up0")
	want := dataplane.New()
	want.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	want.Interfaces["up0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	two.in(func() error { return b.Apply(testContext(t), dataplane.Diff(want, dataplane.New())) })
	reach(t, b, want)
	require.Equal(t, 1, one.sysctl(sysctlFlowLabel))
	require.Zero(t, two.sysctl(sysctlFlowLabel))
	require.Equal(t, 1, one.sysctl("ipv4/ip_forward"))
	require.Zero(t, two.sysctl("ipv4/ip_forward"))
}

func TestClosed(t *testing.T) {
	b := newSpace(t).backend("up0")
	require.NotEmpty(t, b.Version())
	require.NoError(t, b.Close())
	require.NoError(t, b.Close(), "twice is harmless")
	ctx := context.Background()
	_, err := b.Dump(ctx)
	require.ErrorIs(t, err, dataplane.ErrDisconnected)
	require.ErrorIs(t, b.Apply(ctx, nil), dataplane.ErrDisconnected)
	_, err = b.Watch(ctx)
	require.ErrorIs(t, err, dataplane.ErrDisconnected)
}
