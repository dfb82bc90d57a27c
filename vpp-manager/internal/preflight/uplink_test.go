package preflight

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// with changes the good link.
func with(change func(*Link)) Link {
	l := goodLink()
	change(&l)
	return l
}

func TestUplink(t *testing.T) {
	o := goodOptions()
	expect(t, "uplink", goodMachine(t, nil), o, OK, "eth0: device (ice, 0000:03:00.0), up")
	down := with(func(l *Link) { l.Up = false })
	expect(t, "uplink", goodMachine(t, nil, down), o, Failure, "is down")
	require.NoError(t, QuickReport(t.Context(), goodMachine(t, nil, down), o).Err(false), "it may come up in time")
	o.Driver = AFPacket
	expect(t, "uplink", goodMachine(t, nil, down), o, Warning, "is down")

	o = goodOptions()
	o.Uplinks = []string{"eth0", "eth7"}
	got := result(t, "uplink", goodMachine(t, nil), o)
	require.Len(t, got, 2)
	require.Equal(t, "uplink eth7: there is no such interface", got[0].String()[:len("uplink eth7: there is no such interface")])
	require.Equal(t, Failure, got[0].Verdict)
	require.Equal(t, OK, got[1].Verdict)

	m := goodMachine(t, nil)
	m.Defaults = func() ([]string, error) { return nil, nil }
	expect(t, "uplink", m, goodOptions(), Warning, "no default IPv6 route")
	expect(t, "uplink-mtu", m, goodOptions(), Skipped, "no uplink")
	m.Defaults = func() ([]string, error) { return nil, errTest }
	expect(t, "uplink", m, goodOptions(), Failure, errTest.Error())
	m.Links = func() ([]Link, error) { return nil, errTest }
	expect(t, "uplink", m, goodOptions(), Failure, errTest.Error())
}

func TestUplinkByPCIAddress(t *testing.T) {
	o := goodOptions()
	o.Driver, o.Uplinks = DPDK, []string{"0000:03:00.0"}
	expect(t, "uplink", goodMachine(t, nil), o, OK, "eth0: device")
	// Bound to VFIO already, it has no interface.
	m := goodMachine(t, map[string]string{"sys/bus/pci/devices/0000:04:00.0/driver": "-> ../../../bus/pci/drivers/vfio-pci"})
	o.Uplinks = []string{"0000:04:00.0"}
	expect(t, "uplink", m, o, OK, "a PCI device (driver vfio-pci)")
	for _, name := range []string{"uplink-stacking", "uplink-manager", "ipv6"} {
		require.Equal(t, OK, result(t, name, m, o)[0].Verdict, name)
	}
	o.Uplinks = []string{"0000:05:00.0"}
	expect(t, "uplink", m, o, Failure, "no such interface")
}

func TestUplinkAddress(t *testing.T) {
	o := goodOptions()
	expect(t, "uplink-address", goodMachine(t, nil), o, Warning, "no global")
	has := with(func(l *Link) { l.Addresses = []netip.Addr{addr("2001:db8::1")} })
	expect(t, "uplink-address", goodMachine(t, nil, has), o, OK, "2001:db8::1 on eth0")
	m := goodMachine(t, nil)
	m.Links = func() ([]Link, error) {
		return []Link{goodLink(), {Name: "dummy0", Addresses: []netip.Addr{addr("fd00::1")}}}, nil
	}
	o.Uplinks = []string{"eth0"}
	expect(t, "uplink-address", m, o, OK, "fd00::1 on dummy0, none on an uplink")
}

func TestUplinkDriver(t *testing.T) {
	o := goodOptions()
	expect(t, "uplink-driver", goodMachine(t, nil), o, OK, "without copying")
	expect(t, "uplink-driver", goodMachine(t, nil, with(func(l *Link) { l.ZeroCopy = false })), o, OK, "copies each packet")
	expect(t, "uplink-driver", goodMachine(t, nil, with(func(l *Link) { l.Native, l.ZeroCopy = false, false })), o, Warning, "generic XDP")
	expect(t, "uplink-driver", goodMachine(t, nil, with(func(l *Link) { l.Native, l.ZeroCopy, l.Told = false, false, false })), o, Warning, "not known")
	for driver, want := range map[string][3]bool{
		"ice": {true, true, true}, "virtio_net": {true, false, true}, "e1000e": {false, false, true}, "unheard": {},
	} {
		native, zero, told := driverKnown(driver)
		require.Equal(t, want, [3]bool{native, zero, told}, driver)
	}
}

func TestUplinkQueues(t *testing.T) {
	queues := func(have, most int) Link { return with(func(l *Link) { l.Queues, l.MaxQueues = have, most }) }
	o := goodOptions()
	expect(t, "uplink-queues", goodMachine(t, nil, queues(0, 0)), o, OK, "does not tell")
	expect(t, "uplink-queues", goodMachine(t, nil, queues(4, 8)), o, OK, "4 (of 8 possible)")
	o.Workers = 4
	expect(t, "uplink-queues", goodMachine(t, nil, queues(8, 8)), o, OK, "some serve several")
	expect(t, "uplink-queues", goodMachine(t, nil, queues(1, 8)), o, Warning, "ethtool -L eth0 combined 4")
	expect(t, "uplink-queues", goodMachine(t, nil, queues(2, 2)), o, Warning, "--workers 2")
}

func TestUplinkMTU(t *testing.T) {
	mtu := func(n int) Link { return with(func(l *Link) { l.MTU = n }) }
	for _, tc := range []struct {
		mtu    int
		change func(*Options)
		want   Verdict
		text   string
	}{
		{1500, nil, OK, "encapsulated packets of up to 1500 bytes; VPP gets up to 1778"},
		{1778, nil, OK, ""},
		{1779, nil, Failure, "podMTU: 1738"},
		{1779, nil, Failure, "default data-size 2049"},
		{3400, func(o *Options) { o.PodMTU = 1738 }, OK, ""},
		{3400, func(o *Options) { o.PodMTU = 1739 }, Failure, "podMTU: 1738"},
		{3400, func(o *Options) { o.BufferData = 3840 }, OK, "up to 3570"},
		{1500, func(o *Options) { o.BufferData = 3841 }, Failure, "must fit into a page"},
		{9000, func(o *Options) { o.PodMTU = 1500 }, Failure, "refuse native XDP above"},
		{9000, func(o *Options) { o.Driver = AFPacket }, Failure, "pods get 8960"},
		{9000, func(o *Options) { o.Driver, o.PodMTU = AFPacket, 1778 }, OK, "packets of pods of up to 1778"},
		{9000, func(o *Options) { o.Driver, o.PodMTU = AFPacket, 1779 }, Failure, "podMTU: 1778"},
		{9000, func(o *Options) { o.Driver, o.PodDriver = AFPacket, AFPacket }, Skipped, "only for af_xdp"},
	} {
		o := goodOptions()
		if tc.change != nil {
			tc.change(&o)
		}
		expect(t, "uplink-mtu", goodMachine(t, nil, mtu(tc.mtu)), o, tc.want, tc.text)
	}
	generic := with(func(l *Link) { l.MTU, l.Native = 9000, false })
	o := goodOptions()
	o.PodMTU = 1500
	expect(t, "uplink-mtu", goodMachine(t, nil, generic), o, OK, "up to 1540")
}
