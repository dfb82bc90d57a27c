package xdp

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/require"
)

// benchPrefixes fill the pods' table of the benchmark, and as many flows.
const benchPrefixes = 10_000

// BenchmarkShim says what one packet costs by its verdict, in nanoseconds of the
// program's own (BPF_PROG_TEST_RUN), beside an empty XDP program, with 10,000
// prefixes in the pods' table and 10,000 flows remembered.
func BenchmarkShim(b *testing.B) {
	needsBPF(b)
	b.Run("empty program", func(b *testing.B) {
		empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.XDP, License: "Apache-2.0",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, actionPass), asm.Return()},
		})
		require.NoError(b, err)
		defer empty.Close()
		measure(b, empty, make([]byte, 64))
	})

	g := newRig(b, RoleUplink, ModeVPP)
	pods := testPods()
	random := rand.New(rand.NewPCG(1, 2))
	for len(pods) < benchPrefixes {
		a := [4]byte{10}
		binary.BigEndian.PutUint16(a[1:], uint16(random.Uint32()))
		bits := 24
		if len(pods)%2 == 0 {
			a[3], bits = byte(random.Uint32()), 32
		}
		p := netip.PrefixFrom(netip.AddrFrom4(a), bits)
		if _, ok := pods[p]; !ok && p.Addr() != addr(peer4) {
			pods[p] = VerdictVPP
		}
	}
	require.NoError(b, g.tables.SetPods(pods))
	for i := range benchPrefixes {
		k := flowKey{Addr: addr(pod4).As16(), Port: [2]byte{byte(i >> 8), byte(i)}, Proto: 6}
		require.NoError(b, g.tables.flows.Put(k, flow{Expires: 1 << 62}))
	}

	inner := between(peer4, pod4, 6, tcp(80, 60000, ack))
	for _, c := range []struct {
		name, want string
		role       Role
		mode       Mode
		frame      []byte
	}{
		{"uplink vpp transit", "vpp", RoleUplink, ModeVPP, frame6(ip6(remoteNode, uSID, 4, inner))},
		{"uplink vpp End.DT4", "vpp", RoleUplink, ModeVPP, frame6(to4(inner))},
		{"uplink vpp End.DT6", "vpp", RoleUplink, ModeVPP, frame6(to6(between(peer6, pod6, 6, tcp(80, 60000, ack))))},
		{"uplink vpp End.DT4 behind SRH", "vpp", RoleUplink, ModeVPP, frame6(ip6(remoteNode, dt4, 43, srh(4, 2, 0, inner)))},
		{"uplink kernel-table", "kernel-table", RoleUplink, ModeVPP, frame6(between(remoteNode, "2001:db8::1", 6, tcp(80, 60000, ack)))},
		{"uplink kernel-inner", "kernel-inner", RoleUplink, ModeVPP, frame6(to4(between(peer4, "10.1.0.9", 6, tcp(80, 60000, ack))))},
		{"uplink kernel-flow", "kernel-flow", RoleUplink, ModeVPP, frame6(to4(between(peer4, pod4, 6, tcp(80, 999, ack))))},
		{"uplink kernel-mode", "kernel-mode", RoleUplink, ModeKernel, frame6(to4(inner))},
		{"uplink not-ip", "not-ip", RoleUplink, ModeVPP, ether(0x0806, make([]byte, 46))},
		{"uplink vlan", "vlan", RoleUplink, ModeVPP, ether(0x8100, make([]byte, 46))},
		{"uplink multicast", "multicast", RoleUplink, ModeVPP, frame6(ip6(remoteNode, "ff02::1", 17, udp(1, 2)))},
		{"uplink options", "options", RoleUplink, ModeVPP, frame6(ip6(remoteNode, dt4, 0, options6(4, inner)))},
		{"uplink fragment", "fragment", RoleUplink, ModeVPP, frame6(ip6(remoteNode, dt4, 44, fragment6(4, 1, inner)))},
		{"uplink malformed", "malformed", RoleUplink, ModeVPP, frame6(to4(inner))[:60]},
		{"pod vpp IPv4", "vpp", RolePod, ModeVPP, framed(between(pod4, peer4, 6, tcp(60000, 80, ack)))},
		{"pod vpp IPv6", "vpp", RolePod, ModeVPP, framed(between(pod6, peer6, 6, tcp(60000, 80, ack)))},
		{"pod kernel-table, known flow", "kernel-table", RolePod, ModeVPP, framed(between(pod4, service4, 6, tcp(999, 80, ack)))},
		{"pod kernel-flow", "kernel-flow", RolePod, ModeVPP, framed(between(local4, pod4, 6, tcp(80, 999, ack)))},
		{"pod kernel-mode", "kernel-mode", RolePod, ModeKernel, framed(between(pod4, peer4, 6, tcp(60000, 80, ack)))},
	} {
		b.Run(c.name, func(b *testing.B) {
			require.NoError(b, g.shim.Bind(c.role, g.tables))
			require.NoError(b, g.shim.SetMode(c.mode))
			require.Equal(b, c.want, g.run(b, c.frame))
			measure(b, g.shim.program, c.frame)
		})
	}
}

// measure reports the fastest of some runs: what else the machine does only adds
// to a program's time.
func measure(b *testing.B, p *ebpf.Program, frame []byte) {
	const runs, repeat = 20, 200_000 // or the call itself is measured
	fastest := time.Hour
	for range runs {
		_, each, err := p.Benchmark(frame, max(b.N, repeat), nil)
		require.NoError(b, err)
		fastest = min(fastest, each)
	}
	b.ReportMetric(float64(fastest.Nanoseconds()), "ns/op")
}
