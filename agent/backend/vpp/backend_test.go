package vpp

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

func TestOptions(t *testing.T) {
	good := Options{Socket: "/nowhere/api.sock", Locator: locator(0), Log: testLog(t), DialTimeout: 50 * time.Millisecond}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"driver":        {func(o *Options) { o.UplinkDriver = "rdma" }, `UplinkDriver: "rdma"`},
		"pod driver":    {func(o *Options) { o.PodDriver = "tap" }, `PodDriver: "tap"`},
		"socket":        {func(o *Options) { o.Socket = "" }, "Socket"},
		"no locator":    {func(o *Options) { o.Locator = netip.Prefix{} }, "Locator"},
		"wide locator":  {func(o *Options) { o.Locator = netip.MustParsePrefix("fcbb::/16") }, "Locator"},
		"long locator":  {func(o *Options) { o.Locator = netip.MustParsePrefix("fcbb:bb00:1:2::/64") }, "Locator"},
		"dirty locator": {func(o *Options) { o.Locator = netip.MustParsePrefix("fcbb:bb00:1::1/48") }, "Locator"},
		"log":           {func(o *Options) { o.Log = nil }, "Log"},
	} {
		o := good
		c.change(&o)
		_, err := New(context.Background(), o)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestVPPThatIsNotThere(t *testing.T) {
	b, err := New(context.Background(), Options{
		Socket: filepath.Join(t.TempDir(), "api.sock"), Locator: locator(0), Log: testLog(t), DialTimeout: 100 * time.Millisecond,
	})
	require.NoError(t, err, "VPP may come later")
	defer b.Close()
	begin := time.Now()
	_, err = b.Dump(context.Background())
	require.ErrorIs(t, err, dataplane.ErrDisconnected)
	err = b.Apply(context.Background(), dataplane.Diff(manyNodes(1), dataplane.New()))
	require.ErrorIs(t, err, dataplane.ErrDisconnected)
	byKey, rest := dataplane.Failures(err)
	require.Empty(t, byKey)
	require.Error(t, rest)
	require.Less(t, time.Since(begin), 2*time.Second)
	require.Empty(t, b.Version())
}

func TestTag(t *testing.T) {
	long := tag{role: "uplink", name: "enp0s31f6abcdef", ifindex: 2147483647}.with(flagMACAsIs, true).with(flagMTUAsIs, true)
	require.Less(t, len(long.String()), 64, "VPP keeps 63 bytes")
	require.Equal(t, "sidewinder:uplink:enp0s31f6abcdef:2147483647:at", long.String())
	got, ok := parseTag(long.String())
	require.True(t, ok)
	require.Equal(t, long, got)
	require.Equal(t, "a", long.with(flagMTUAsIs, false).flags)
	long = long.with(flagRxRefused, true)
	long.rx = dataplane.Rx{Mode: dataplane.RxAdaptive, Queues: 255, Ring: 32768, TxRing: 32768}
	long.detail = programOf(linkInfo{program: ^uint32(0)})
	require.Less(t, len(long.String()), 64, "%s: VPP keeps 63 bytes", long)
	got, ok = parseTag(long.String())
	require.True(t, ok)
	require.Equal(t, long, got)

	short, ok := parseTag("sidewinder:pod:sw0123")
	require.True(t, ok)
	require.Equal(t, tag{role: "pod", name: "sw0123"}, short)
	for _, foreign := range []string{"", "mine", "sidewinder:", "sidewinder:pod", "sidewinder:pod:", "sidewinder:pod:x:y"} {
		_, ok := parseTag(foreign)
		require.False(t, ok, foreign)
	}
}

func TestReadingTheCommandLine(t *testing.T) {
	require.Equal(t, "fd00::1", lastWord("SR encaps source addr = fd00::1\n"))
	require.Equal(t, "", lastWord("\n"))
	h, ok := flowHashOf("ipv6-VRF:0, fib_index:0, flow hash:[src dst proto flowlabel ] epoch:0 flags:none locks:[default-route:1, ]\n::/0 fib:0")
	require.True(t, ok)
	require.Equal(t, dataplane.FlowHashWithLabel, h)
	_, ok = flowHashOf("something else")
	require.False(t, ok)
}

func TestRunsOfChanges(t *testing.T) {
	s := manyNodes(3)
	changes := dataplane.Diff(s, dataplane.New())
	require.Equal(t, 3, run(changes), "policies, then steerings")
	require.Equal(t, 3, run(changes[3:]))
	both := append([]dataplane.Change{{Op: dataplane.OpDelete, Key: changes[0].Key}}, changes...)
	require.Equal(t, 1, run(both), "deletions and additions are not mixed")
}

// What VPP would do without a word: forward what is steered into a policy that
// was deleted to whichever policy comes next.
func TestPolicyInUseIsNotDeleted(t *testing.T) {
	needVPP(t)
	inNetns(t)
	b := newBackend(t, startVPP(t), Options{})
	want := manyNodes(2)
	apply(t, b, want)
	var changes []dataplane.Change
	for k, v := range want.Policies {
		changes = append(changes, dataplane.Change{Op: dataplane.OpDelete, Key: k, Old: v})
	}
	failed, rest := dataplane.Failures(b.Apply(context.Background(), changes))
	require.NoError(t, rest)
	require.Len(t, failed, 2)
	for _, e := range failed {
		require.ErrorIs(t, e, dataplane.ErrNotReady)
		require.ErrorContains(t, e, "is still steered into policy")
	}
	apply(t, b, want)
	apply(t, b, dataplane.New())
}

func TestUnsupportedObjects(t *testing.T) {
	needVPP(t)
	inNetns(t)
	addVeth(t, "uplink0", "fabric0")
	b := newBackend(t, startVPP(t), Options{})
	segments := make([]netip.Addr, binapi.MaxSegments+1)
	for i := range segments {
		segments[i] = sid(i, 0)
	}
	s := dataplane.New()
	s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelNone
	s.Settings["else"] = "x"
	s.Settings[dataplane.SettingEncapHopLimit] = "0"
	s.Settings[dataplane.SettingEncapSource] = "192.0.2.1"
	s.Settings[dataplane.SettingFlowHash] = "colour"
	s.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink, MAC: dataplane.MAC{2, 9, 9, 9, 9, 9}}
	s.Addresses[dataplane.AddressKey{Interface: "uplink0", Prefix: netip.MustParsePrefix("192.0.2.1/24")}] = dataplane.Address{}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(0, 0xe046), 128)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT46}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(0, 1), 64)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(8, 1), 128)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}
	s.Policies[dataplane.PolicyKey{BSID: bsid(0, 1)}] = onePath(segments...)
	s.Policies[dataplane.PolicyKey{BSID: bsid(0, 2)}] = dataplane.Policy{}
	s.Policies[dataplane.PolicyKey{BSID: bsid(8, 3)}] = onePath(sid(1, 0))
	changes := dataplane.Diff(s, dataplane.New())
	failed, rest := dataplane.Failures(b.Apply(context.Background(), changes))
	require.NoError(t, rest)
	for _, ch := range changes {
		require.Contains(t, failed, ch.Key)
		require.ErrorIs(t, failed[ch.Key], dataplane.ErrUnsupported, "%s", ch.Key)
	}
	have, err := b.Dump(context.Background())
	require.NoError(t, err)
	require.Empty(t, have.Text())
}

// Tables other than the main one come and go with what uses them.
func TestTables(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{})
	s := dataplane.New()
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(0, 0xe104), 128)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4, Table: 104}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid(0, 0xe106), 128)}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6, Table: 106}
	s.Routes[dataplane.RouteKey{Table: 107, Prefix: netip.MustParsePrefix("10.9.0.0/16")}] = dataplane.Route{}
	s.Policies[dataplane.PolicyKey{BSID: bsid(0, 4)}] = onePath(sid(1, 0xe004))
	s.Steerings[dataplane.SteeringKey{Table: 108, Prefix: netip.MustParsePrefix("10.8.0.0/16")}] = dataplane.Steering{BSID: bsid(0, 4)}
	apply(t, b, s)
	require.Contains(t, m.cli(t, "show ip table"), "107")
	apply(t, b, dataplane.New())
	for _, table := range []string{"104", "107", "108"} {
		require.NotContains(t, m.cli(t, "show ip table"), table)
	}
	require.NotContains(t, m.cli(t, "show ip6 table"), "106")
}

// A link that was replaced by another of the same name is not the one that VPP
// holds.
func TestReplacedLinkIsTakenUpAgain(t *testing.T) {
	for _, driver := range []string{DriverAFXDP, DriverAFPacket} {
		t.Run(driver, func(t *testing.T) {
			needVPP(t)
			inNetns(t)
			b := newBackend(t, startVPP(t), Options{PodDriver: driver})
			want := dataplane.New()
			want.Interfaces["sw00000000001"] = dataplane.Interface{Role: dataplane.RolePod, MTU: podMTU, MAC: gatewayMAC}
			for range 2 {
				addVeth(t, "sw00000000001", "pod0")
				apply(t, b, want)
				delVeth(t, "sw00000000001")
				have, err := b.Dump(context.Background())
				require.NoError(t, err)
				require.Len(t, dataplane.Diff(want, have), 1, "the interface needs attention")
				failed, rest := dataplane.Failures(b.Apply(context.Background(), dataplane.Diff(want, have)))
				require.NoError(t, rest)
				require.ErrorIs(t, failed[dataplane.InterfaceKey("sw00000000001")], dataplane.ErrNotReady)
			}
			apply(t, b, dataplane.New())
		})
	}
}
