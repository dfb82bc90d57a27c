package xdp

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	remoteNode = "2001:db8::2"
	uSID       = "fcbb:bb00:1:7::"
	dt4        = "fcbb:bb00:1:e004::"
	dt6        = "fcbb:bb00:1:e006::"
)

// to4 and to6 encapsulate for this node's decapsulating SIDs.
func to4(inner []byte) []byte { return ip6(remoteNode, dt4, 4, inner) }
func to6(inner []byte) []byte { return ip6(remoteNode, dt6, 41, inner) }

type frameCase struct {
	name  string
	frame []byte
	want  string
}

func uplinkCases() []frameCase {
	in4 := between("10.2.0.5", "10.1.0.5", 17, udp(1000, 2000))
	in6 := between("fd02::5", "fd01::5", 6, tcp(1000, 2000, syn))
	return []frameCase{
		{"transit uN", frame6(ip6(remoteNode, uSID, 4, in4)), "vpp"},
		{"transit uN behind an SRH", frame6(ip6(remoteNode, uSID, 43, srh(4, 2, 1, in4))), "vpp"},
		{"transit fragment", frame6(ip6(remoteNode, uSID, 44, fragment6(4, 1, in4))), "vpp"},
		{"End.DT4", frame6(to4(in4)), "vpp"},
		{"End.DT4 with padding", append(frame6(to4(in4)), 0, 0, 0, 0), "vpp"},
		{"End.DT6", frame6(to6(in6)), "vpp"},
		{"End.DT6 with IPv4 inside", frame6(ip6(remoteNode, dt6, 4, in4)), "vpp"},
		{"End.DT4 behind an SRH", frame6(ip6(remoteNode, dt4, 43, srh(4, 2, 0, in4))), "vpp"},
		{"End.DT6 behind a long SRH", frame6(ip6(remoteNode, dt6, 43, srh(41, 30, 0, in6))), "vpp"},
		{"inner ICMP echo", frame6(to4(between("10.2.0.5", "10.1.0.5", 1, icmp(8, nil)))), "vpp"},
		{"inner fragment of a pod without kernel flows", frame6(to4(ip4("10.2.0.5", "10.1.0.5", 17, 100, nil, []byte("rest")))), "vpp"},
		{"inner IPv6 fragment", frame6(to6(ip6("fd02::5", "fd01::5", 44, fragment6(17, 0x108, []byte("rest"))))), "vpp"},

		{"SID of the kernel's inside the locator", frame6(ip6(remoteNode, "fcbb:bb00:1:e0ff::", 4, in4)), "kernel-table"},
		{"the host's own IPv6", frame6(ip6(remoteNode, "2001:db8::1", 6, tcp(1, 22, ack))), "kernel-table"},
		{"another node's SID", frame6(ip6(remoteNode, "fcbb:bb00:2:e004::", 4, in4)), "kernel-table"},
		{"the host's own IPv4", frame4(between("192.0.2.2", "192.0.2.1", 6, tcp(1, 22, ack))), "kernel-table"},
		{"IPv4 to a pod without encapsulation", frame4(in4), "kernel-table"},

		{"inner destination that VPP does not hold", frame6(to4(between("10.2.0.5", "10.1.0.9", 17, udp(1, 2)))), "kernel-inner"},
		{"inner destination unknown", frame6(to4(between("10.2.0.5", "10.7.0.1", 17, udp(1, 2)))), "kernel-inner"},
		{"inner source is a node", frame6(to4(between("10.2.0.1", "10.1.0.5", 17, udp(1, 2)))), "kernel-inner"},
		{"inner source unknown", frame6(to6(between("2001:db8::9", "fd01::5", 17, udp(1, 2)))), "kernel-inner"},
		{"ping of a SID", frame6(ip6(remoteNode, dt4, 58, icmp(128, nil))), "kernel-inner"},
		{"SRH without a packet inside", frame6(ip6(remoteNode, dt4, 43, srh(59, 1, 0, nil))), "kernel-inner"},

		{"ARP", ether(0x0806, make([]byte, 28)), "not-ip"},
		{"LLDP", with(ether(0x88cc, make([]byte, 40)), 0, 1), "not-ip"},
		{"802.1Q", ether(0x8100, append([]byte{0, 5, 0x86, 0xdd}, to4(in4)...)), "vlan"},
		{"802.1ad", ether(0x88a8, append([]byte{0, 5, 0x81, 0}, to4(in4)...)), "vlan"},
		{"neighbour solicitation", with(frame6(ip6("fe80::1", "ff02::1:ff00:1", 58, icmp(135, make([]byte, 16)))), 0, 0x33), "multicast"},
		{"multicast in a unicast frame", frame6(ip6(remoteNode, "ff02::1", 17, udp(1, 2))), "multicast"},
		{"a SID in a broadcast frame", with(frame6(to4(in4)), 0, 0xff), "multicast"},
		{"inner multicast", frame6(to4(between("10.2.0.5", "224.0.0.9", 17, udp(1, 2)))), "multicast"},
		{"hop-by-hop options", frame6(ip6(remoteNode, dt4, 0, options6(4, in4))), "options"},
		{"hop-by-hop options to uN", frame6(ip6(remoteNode, uSID, 0, options6(4, in4))), "options"},
		{"destination options", frame6(ip6(remoteNode, dt4, 60, options6(4, in4))), "options"},
		{"SRH with segments left", frame6(ip6(remoteNode, dt4, 43, srh(4, 2, 1, in4))), "options"},
		{"routing header that is no SRH", frame6(ip6(remoteNode, dt4, 43, with(srh(4, 1, 0, in4), 2, 3))), "options"},
		{"SRH and then destination options", frame6(ip6(remoteNode, dt4, 43, srh(60, 1, 0, options6(4, in4)))), "options"},
		{"inner IPv4 options", frame6(to4(ip4("10.2.0.5", "10.1.0.5", 17, 0, []byte{7, 4, 4, 0}, udp(1, 2)))), "options"},
		{"inner hop-by-hop options", frame6(to6(ip6("fd02::5", "fd01::5", 0, options6(17, udp(1, 2))))), "options"},
		{"inner SRH", frame6(to6(ip6("fd02::5", "fd01::5", 43, srh(17, 1, 0, udp(1, 2))))), "options"},
		{"fragment to a SID", frame6(ip6(remoteNode, dt4, 44, fragment6(4, 1, in4))), "fragment"},

		{"outer header cut off", frame6(to4(in4))[:14+39], "malformed"},
		{"outer length too long", frame6(to4(in4))[:14+40+20], "malformed"},
		{"outer version", with(frame6(to4(in4)), 14, 0x50), "malformed"},
		{"inner header cut off", frame6(to4(in4[:19])), "malformed"},
		{"inner length too long", frame6(to4(in4[:len(in4)-1])), "malformed"},
		{"inner length beyond the outer, inside the frame", append(frame6(to4(in4[:len(in4)-1])), 0), "malformed"},
		{"inner version", frame6(to4(with(in4, 0, 0x65))), "malformed"},
		{"inner header length below 20", frame6(to4(with(in4, 0, 0x44))), "malformed"},
		{"inner header length beyond the packet", frame6(to4(with(in4, 0, 0x4f))), "malformed"},
		{"inner UDP header cut off", frame6(to4(between("10.2.0.5", "10.1.0.5", 17, udp(1, 2)[:7]))), "malformed"},
		{"inner TCP header cut off", frame6(to6(between("fd02::5", "fd01::5", 6, tcp(1, 2, ack)[:19]))), "malformed"},
		{"SRH cut off", frame6(ip6(remoteNode, dt4, 43, srh(4, 1, 0, nil)[:7])), "malformed"},
		{"SRH longer than the packet", frame6(ip6(remoteNode, dt4, 43, with(srh(4, 1, 0, in4), 1, 200))), "malformed"},
		{"inner IPv6 fragment header cut off", frame6(to6(ip6("fd02::5", "fd01::5", 44, fragment6(17, 0, nil)[:6]))), "malformed"},
	}
}

// The pod is 10.1.0.5 and fd01::5.
func podCases() []frameCase {
	return []frameCase{
		{"to a pod of this node", framed(between("10.1.0.5", "10.1.0.6", 6, tcp(1, 2, syn))), "vpp"},
		{"to a pod of another node", framed(between("10.1.0.5", "10.2.0.6", 6, tcp(1, 2, syn))), "vpp"},
		{"IPv6", framed(between("fd01::5", "fd02::6", 17, udp(1, 2))), "vpp"},
		{"SCTP", framed(between("fd01::5", "fd02::6", 132, sctp(1, 2))), "vpp"},
		{"ICMP echo", framed(between("10.1.0.5", "10.2.0.6", 1, icmp(8, nil))), "vpp"},
		{"ICMP error", framed(between("10.1.0.5", "10.2.0.6", 1, icmp(3, between("10.2.0.6", "10.1.0.5", 17, udp(1, 2))))), "vpp"},
		{"ICMP error that quotes little", framed(between("10.1.0.5", "10.2.0.6", 1, icmp(3, []byte{0x45}))), "vpp"},
		{"ESP", framed(between("10.1.0.5", "10.2.0.6", 50, make([]byte, 8))), "vpp"},
		{"no next header", framed(between("fd01::5", "fd02::6", 59, nil)), "vpp"},
		{"IP in IP", framed(between("10.1.0.5", "10.2.0.6", 4, between("1.1.1.1", "2.2.2.2", 17, udp(1, 2)))), "vpp"},
		{"first fragment", framed(ip4("10.1.0.5", "10.2.0.6", 17, 0x2000, nil, udp(1, 2))), "vpp"},
		{"later fragment", framed(ip4("10.1.0.5", "10.2.0.6", 17, 3, nil, []byte("x"))), "vpp"},
		{"IPv6 first fragment", framed(ip6("fd01::5", "fd02::6", 44, fragment6(17, 1, udp(1, 2)))), "vpp"},
		{"IPv6 later fragment", framed(ip6("fd01::5", "fd02::6", 44, fragment6(6, 0x80, []byte("x")))), "vpp"},
		{"don't fragment is no fragment", framed(ip4("10.1.0.5", "10.2.0.6", 17, 0x4000, nil, udp(1, 2))), "vpp"},
		{"padding", append(framed(between("10.1.0.5", "10.2.0.6", 17, udp(1, 2))), 0, 0), "vpp"},

		{"to the world", framed(between("10.1.0.5", "192.0.2.1", 1, icmp(8, nil))), "kernel-table"},
		{"to a node inside a pod prefix", framed(between("10.1.0.5", "10.2.0.1", 1, icmp(8, nil))), "kernel-table"},
		{"to a pod that VPP does not hold", framed(between("fd01::5", "fd01::9", 58, icmp(128, nil))), "kernel-table"},
		{"to its gateway", framed(between("fe80::5", "fe80::1", 58, icmp(135, nil))), "kernel-table"},

		{"ARP", with(ether(0x0806, make([]byte, 28)), 0, 0xff), "not-ip"},
		{"802.1Q", ether(0x8100, make([]byte, 46)), "vlan"},
		{"IPv4 broadcast", framed(between("0.0.0.0", "255.255.255.255", 17, udp(68, 67))), "multicast"},
		{"IPv4 multicast", framed(between("10.1.0.5", "239.1.1.1", 17, udp(1, 2))), "multicast"},
		{"IPv6 multicast", framed(between("fd01::5", "ff02::fb", 17, udp(5353, 5353))), "multicast"},
		{"IPv4 options", framed(ip4("10.1.0.5", "10.2.0.6", 1, 0, []byte{7, 4, 4, 0}, icmp(8, nil))), "options"},
		{"hop-by-hop options", framed(ip6("fd01::5", "fd02::6", 0, options6(17, udp(1, 2)))), "options"},
		{"destination options", framed(ip6("fd01::5", "fd02::6", 60, options6(17, udp(1, 2)))), "options"},
		{"SRH", framed(ip6("fd01::5", "fd02::6", 43, srh(41, 1, 0, nil))), "options"},
		{"authentication header", framed(ip6("fd01::5", "fd02::6", 51, make([]byte, 24))), "options"},
		{"fragment of an extension header", framed(ip6("fd01::5", "fd02::6", 44, fragment6(60, 1, make([]byte, 16)))), "options"},

		{"Ethernet alone", ether(0x0800, nil), "malformed"},
		{"IPv4 header cut off", framed(between("10.1.0.5", "10.2.0.6", 17, nil))[:33], "malformed"},
		{"IPv4 length too long", framed(between("10.1.0.5", "10.2.0.6", 17, udp(1, 2)))[:44], "malformed"},
		{"IPv4 length below its header", with(with(framed(between("10.1.0.5", "10.2.0.6", 17, udp(1, 2))), 16, 0), 17, 19), "malformed"},
		{"IPv4 in an IPv6 frame", frame6(between("10.1.0.5", "10.2.0.6", 17, append(udp(1, 2), make([]byte, 40)...))), "malformed"},
		{"IPv6 in an IPv4 frame", frame4(between("fd01::5", "fd02::6", 17, udp(1, 2))), "malformed"},
		{"IPv6 length too long", framed(between("fd01::5", "fd02::6", 17, udp(1, 2)))[:60], "malformed"},
		{"TCP header cut off", framed(between("10.1.0.5", "10.2.0.6", 6, tcp(1, 2, syn)[:12])), "malformed"},
		{"SCTP header cut off", framed(between("fd01::5", "fd02::6", 132, sctp(1, 2)[:10])), "malformed"},
		{"first fragment without ports", framed(ip4("10.1.0.5", "10.2.0.6", 17, 0x2000, nil, []byte("xx"))), "malformed"},
	}
}

func TestPackets(t *testing.T) {
	for role, cases := range map[Role][]frameCase{RoleUplink: uplinkCases(), RolePod: podCases()} {
		t.Run(role.String(), func(t *testing.T) {
			g := newRig(t, role, ModeVPP)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					require.Equal(t, c.want, g.runBoth(t, c.frame))
				})
			}
		})
	}
}

func TestNothingLeavesTheKernelWithoutModeAndRole(t *testing.T) {
	for _, c := range []struct {
		role Role
		mode Mode
	}{{RoleNone, ModeVPP}, {RoleUplink, ModeKernel}, {RoleUplink, ModeHeld}, {RolePod, ModeKernel}, {RolePod, ModeHeld}, {7, ModeVPP}, {RolePod, 9}, {RoleUplink, 9}} {
		g := newRig(t, RoleUplink, ModeVPP)
		g.model.role, g.model.mode = c.role, c.mode
		require.NoError(t, g.shim.settings.put(settingRole, uint32(c.role)))
		require.NoError(t, g.shim.settings.put(settingMode, uint32(c.mode)))
		for _, f := range append(uplinkCases(), podCases()...) {
			require.Equal(t, "kernel-mode", g.runBoth(t, f.frame), "role %s mode %s: %s", c.role, c.mode, f.name)
		}
	}
}

func TestWithoutTablesAndSocket(t *testing.T) {
	needsBPF(t)
	s := &Shim{linkName: "none"}
	require.NoError(t, s.load())
	defer s.Close()
	g := &rig{shim: s, out: make([]byte, 1<<12)}
	require.NoError(t, s.SetMode(ModeVPP))
	frame := frame6(to4(between("10.2.0.5", "10.1.0.5", 17, udp(1, 2))))
	require.Equal(t, "kernel-mode", g.run(t, frame), "no role")
	for _, r := range []Role{RoleUplink, RolePod} {
		require.NoError(t, s.settings.put(settingRole, uint32(r)))
		require.Equal(t, "kernel-table", g.run(t, frame), "no tables, role %s", r)
	}

	tables, err := NewTables(TablesOptions{MaxPrefixes: 10, MaxFlows: 10})
	require.NoError(t, err)
	defer tables.Close()
	require.NoError(t, tables.SetUplink(testUplink()))
	require.NoError(t, tables.SetPods(testPods()))
	require.NoError(t, s.Bind(RoleUplink, tables))
	require.Equal(t, "no-socket", g.run(t, frame))
}
