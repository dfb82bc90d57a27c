package preflight

import "testing"

func TestUplinkStacking(t *testing.T) {
	member := func(kind string) Link { return with(func(l *Link) { l.Master, l.MasterKind = "master0", kind }) }
	kind := func(kind string) Link { return with(func(l *Link) { l.Kind = kind }) }
	for _, tc := range []struct {
		link   Link
		driver Driver
		want   Verdict
		text   string
	}{
		{goodLink(), AFXDP, OK, "a device of its own"},
		{member("bond"), AFXDP, Failure, "name master0 as the uplink"},
		{member("bridge"), AFPacket, Failure, "member of the bridge"},
		{member("vrf"), AFXDP, Warning, "main table"},
		{member("openvswitch"), AFXDP, Warning, "openvswitch"},
		{kind("bond"), AFXDP, Warning, "kernels differ"},
		{kind("bond"), AFPacket, OK, ""},
		{kind("vlan"), AFXDP, Warning, "generic XDP only"},
		{kind("vlan"), DPDK, Failure, "not a NIC"},
		{kind("veth"), AFXDP, OK, ""},
	} {
		o := goodOptions()
		o.Driver = tc.driver
		expect(t, "uplink-stacking", goodMachine(t, nil, tc.link), o, tc.want, tc.text)
	}
}

func TestPrograms(t *testing.T) {
	carries := func(name string) Link {
		return with(func(l *Link) { l.XDP = &Program{ID: 7, Name: name, Mode: "native"} })
	}
	o := goodOptions()
	expect(t, "uplink-xdp", goodMachine(t, nil), o, OK, "none")
	expect(t, "uplink-xdp", goodMachine(t, nil, carries("sidewinder_shim")), o, OK, "ours")
	expect(t, "uplink-xdp", goodMachine(t, nil, carries("xsk_def_prog")), o, OK, "ours")
	expect(t, "uplink-xdp", goodMachine(t, nil, carries("cil_xdp_entry")), o, Failure, "native program cil_xdp_entry of somebody else")
	expect(t, "uplink-xdp", goodMachine(t, nil, carries("")), o, Failure, "without a name")

	m := goodMachine(t, nil)
	other := carries("calico_xdp")
	other.Name = "eth1"
	m.Links = func() ([]Link, error) { return []Link{goodLink(), other}, nil }
	o.Uplinks = []string{"eth0"}
	expect(t, "other-xdp", m, o, OK, "on eth1 (calico_xdp); they stay")
	expect(t, "other-xdp", goodMachine(t, nil, carries("cil_xdp_entry")), o, OK, "none")
}

func TestUplinkManager(t *testing.T) {
	const state = "run/systemd/netif/links/2"
	o := goodOptions()
	dpdk := o
	dpdk.Driver = DPDK
	expect(t, "uplink-manager", goodMachine(t, nil), o, OK, "neither")
	configured := map[string]string{state: "ADMIN_STATE=configured\nOPER_STATE=routable\n"}
	expect(t, "uplink-manager", goodMachine(t, configured), o, Warning, "systemd-networkd (configured), which removes the routes of others")
	expect(t, "uplink-manager", goodMachine(t, configured), dpdk, Warning, "while VPP has it")
	expect(t, "uplink-manager", goodMachine(t, map[string]string{state: "ADMIN_STATE=unmanaged\n"}), o, OK, "neither")

	configured["etc/systemd/networkd.conf"] = "[Network]\n#ManageForeignRoutes=no\nManageForeignRoutes = no\n"
	expect(t, "uplink-manager", goodMachine(t, configured), o, OK, "leaves the routes of others alone")
	configured["etc/systemd/networkd.conf.d/20-x.conf"] = "[Network]\nManageForeignRoutes=yes\n"
	expect(t, "uplink-manager", goodMachine(t, configured), o, Warning, "removes")
	configured["etc/systemd/networkd.conf.d/10-y.conf"] = "[Network]\nManageForeignRoutes=no\n"
	expect(t, "uplink-manager", goodMachine(t, configured), o, Warning, "removes")

	const nm = "run/NetworkManager/devices/2"
	expect(t, "uplink-manager", goodMachine(t, map[string]string{nm: "[device]\nmanaged=true\n"}), o, OK, "NetworkManager")
	expect(t, "uplink-manager", goodMachine(t, map[string]string{nm: "[device]\nmanaged=true\n"}), dpdk, Warning, "NetworkManager")
	expect(t, "uplink-manager", goodMachine(t, map[string]string{nm: "[device]\nmanaged=false\n"}), o, OK, "neither")
}

func TestIPv6(t *testing.T) {
	const conf = "proc/sys/net/ipv6/conf/"
	o := goodOptions()
	expect(t, "ipv6", goodMachine(t, nil), o, OK, "on")
	expect(t, "ipv6", goodMachine(t, map[string]string{conf + "all/disable_ipv6": "1\n"}), o, Failure, "all.disable_ipv6 is 1")
	again := map[string]string{conf + "all/disable_ipv6": "1\n", conf + "eth0/disable_ipv6": "0\n"}
	expect(t, "ipv6", goodMachine(t, again), o, Warning, "turned on again on single interfaces only")
	expect(t, "ipv6", goodMachine(t, map[string]string{conf + "default/disable_ipv6": "1\n"}), o, Warning, "default.disable_ipv6 is 1")
	expect(t, "ipv6", goodMachine(t, map[string]string{conf + "eth0/disable_ipv6": "1\n"}), o, Failure, "eth0: IPv6 is off")
	dotted := with(func(l *Link) { l.Name = "eth0.100" })
	expect(t, "ipv6", goodMachine(t, map[string]string{conf + "eth0.100/disable_ipv6": "1\n"}, dotted), o, Failure, "sysctl -w net/ipv6/conf/eth0.100/disable_ipv6=0")
	m := goodMachine(t, nil)
	m.Root = t.TempDir()
	expect(t, "ipv6", m, o, Failure, "no IPv6")
}

func TestForwarding(t *testing.T) {
	o := goodOptions()
	expect(t, "forwarding", goodMachine(t, nil), o, OK, "on for IPv4 and IPv6")
	off := map[string]string{"proc/sys/net/ipv4/ip_forward": "0\n"}
	expect(t, "forwarding", goodMachine(t, off), o, OK, "the agent turns it on")
	m := goodMachine(t, off)
	m.Space = func(string) (uint64, uint64, bool, error) { return 0, 0, true, nil }
	expect(t, "forwarding", m, o, Failure, "read-only")
}

func TestRPFilter(t *testing.T) {
	const all, eth0 = "proc/sys/net/ipv4/conf/all/rp_filter", "proc/sys/net/ipv4/conf/eth0/rp_filter"
	second := with(func(l *Link) { l.Name, l.Index = "eth1", 3 })
	o := goodOptions()
	expect(t, "rp-filter", goodMachine(t, nil), o, OK, "off")
	expect(t, "rp-filter", goodMachine(t, map[string]string{all: "0\n", eth0: "1\n"}), o, OK, "strict")
	expect(t, "rp-filter", goodMachine(t, map[string]string{all: "2\n", eth0: "1\n"}), o, OK, "loose")
	got := result(t, "rp-filter", goodMachine(t, map[string]string{all: "1\n"}, goodLink(), second), o)
	if len(got) != 2 || got[0].Verdict != Warning || got[1].Verdict != Warning {
		t.Errorf("two uplinks, strict: %v", got)
	}
}
