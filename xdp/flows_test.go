package xdp

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	pod4, local4, peer4, node4, service4 = "10.1.0.5", "10.1.0.6", "10.2.0.5", "10.2.0.1", "10.96.0.10"
	pod6, peer6, world6                  = "fd01::5", "fd02::5", "2001:db8:1::1"
)

// step is one frame on one interface of the node.
type step struct {
	on    Role
	frame []byte
	want  string
}

func out(src, dst string, proto byte, payload []byte, want string) step {
	return step{RolePod, framed(between(src, dst, proto, payload)), want}
}

func in(src, dst string, proto byte, payload []byte, want string) step {
	packet := between(src, dst, proto, payload)
	if packet[0]>>4 == 4 {
		return step{RoleUplink, frame6(to4(packet)), want}
	}
	return step{RoleUplink, frame6(to6(packet)), want}
}

// A connection that the kernel translates (a service's, by kube-proxy) comes
// back from an address that the pod never spoke to: its packets must find the
// kernel, whichever way they come.
func TestFlows(t *testing.T) {
	for name, steps := range map[string][]step{
		"service on another node": {
			in(peer4, pod4, 6, tcp(80, 40000, ack), "vpp"),
			out(pod4, service4, 6, tcp(40000, 80, syn), "kernel-table"),
			in(peer4, pod4, 6, tcp(80, 40000, syn|ack), "kernel-flow"),
			in(peer4, pod4, 6, tcp(80, 40001, ack), "vpp"),
			in(peer4, pod4, 17, udp(80, 40000), "vpp"),
			in(peer4, local4, 6, tcp(80, 40000, ack), "vpp"),
		},
		"service, IPv6 and UDP": {
			out(pod6, world6, 17, udp(40000, 53), "kernel-table"),
			in(peer6, pod6, 17, udp(53, 40000), "kernel-flow"),
			in(peer6, pod6, 6, tcp(53, 40000, ack), "vpp"),
		},
		"service, SCTP": {
			out(pod4, service4, 132, sctp(40000, 53), "kernel-table"),
			in(peer4, pod4, 132, sctp(53, 40000), "kernel-flow"),
		},
		"service whose backend is on this node": {
			out(pod4, service4, 6, tcp(40000, 80, syn), "kernel-table"),
			out(local4, pod4, 6, tcp(8080, 40000, syn|ack), "kernel-flow"),
			out(local4, pod4, 6, tcp(8080, 40001, syn|ack), "vpp"),
		},
		"a port that the kernel has stays whole with it": {
			out(pod4, service4, 17, udp(5000, 53), "kernel-table"),
			out(pod4, peer4, 17, udp(5000, 53), "kernel-flow"),
			out(pod4, peer4, 17, udp(5001, 53), "vpp"),
		},
		"a probe of a server does not take its port from VPP": {
			out(pod4, node4, 6, tcp(8080, 50000, syn|ack), "kernel-table"),
			out(pod4, node4, 6, tcp(8080, 50000, ack|psh), "kernel-table"),
			out(pod4, node4, 6, tcp(8080, 50000, ack|fin), "kernel-table"),
			in(peer4, pod4, 6, tcp(40000, 8080, syn), "vpp"),
			out(pod4, peer4, 6, tcp(8080, 40000, syn|ack), "vpp"),
		},
		"a refused probe is not remembered": {
			out(pod4, node4, 6, tcp(8080, 50000, rst|ack), "kernel-table"),
			in(peer4, pod4, 6, tcp(40000, 8080, syn), "vpp"),
		},
		"a connection that was there before": {
			out(pod4, service4, 6, tcp(40000, 80, ack), "kernel-table"),
			in(peer4, pod4, 6, tcp(80, 40000, ack), "kernel-flow"),
		},
		"a listener that was there before": {
			out(pod4, node4, 6, tcp(8080, 50000, ack), "kernel-table"),
			in(peer4, pod4, 6, tcp(40000, 8080, ack), "kernel-flow"),
			out(pod4, node4, 6, tcp(8080, 50001, syn|ack), "kernel-table"),
			in(peer4, pod4, 6, tcp(40000, 8080, ack), "vpp"),
		},
		"closing, and the port used again": {
			out(pod4, service4, 6, tcp(40000, 80, syn), "kernel-table"),
			out(pod4, service4, 6, tcp(40000, 80, ack|psh), "kernel-table"),
			out(pod4, service4, 6, tcp(40000, 80, ack|fin), "kernel-table"),
			in(peer4, pod4, 6, tcp(80, 40000, ack|fin), "kernel-flow"),
			out(pod4, service4, 6, tcp(40000, 80, ack), "kernel-table"),
			out(pod4, service4, 6, tcp(40000, 80, syn), "kernel-table"),
			out(pod4, service4, 6, tcp(40000, 80, rst), "kernel-table"),
			out(pod4, service4, 6, tcp(40000, 81, ack|psh), "kernel-table"),
		},
		"fragments": {
			in(peer4, pod4, 17, udp(1, 2), "vpp"),
			{RoleUplink, frame6(to4(ip4(peer4, pod4, 17, 5, nil, []byte("x")))), "vpp"},
			out(pod4, service4, 17, udp(40000, 53), "kernel-table"),
			{RoleUplink, frame6(to4(ip4(peer4, pod4, 17, 5, nil, []byte("x")))), "kernel-flow"},
			{RoleUplink, frame6(to4(ip4(peer4, pod4, 17, 0x2000, nil, udp(1, 2)))), "kernel-flow"},
			{RoleUplink, frame6(to4(ip4(peer4, pod4, 6, 5, nil, []byte("x")))), "vpp"},
			in(peer4, pod4, 17, udp(1, 2), "vpp"),
		},
		"fragments sent": {
			{RolePod, framed(ip6(pod6, world6, 44, fragment6(17, 1, udp(40000, 53)))), "kernel-table"},
			{RolePod, framed(ip6(pod6, world6, 44, fragment6(17, 0x100, []byte("x")))), "kernel-table"},
			in(peer6, pod6, 17, udp(53, 40000), "kernel-flow"),
			{RoleUplink, frame6(to6(ip6(peer6, pod6, 44, fragment6(17, 0x100, []byte("x"))))), "kernel-flow"},
			{RolePod, framed(ip6(pod6, peer6, 44, fragment6(17, 0x100, []byte("x")))), "kernel-flow"},
		},
		"ICMP errors go with what they quote": {
			out(pod4, service4, 17, udp(40000, 53), "kernel-table"),
			in(peer4, pod4, 1, icmp(3, between(pod4, peer4, 17, udp(40000, 53))), "kernel-flow"),
			in(peer4, pod4, 1, icmp(3, between(pod4, peer4, 17, udp(40001, 53))), "vpp"),
			in(peer4, pod4, 1, icmp(0, between(pod4, peer4, 17, udp(40000, 53))), "vpp"),
			in(peer4, pod4, 1, icmp(11, ip4(pod4, peer4, 17, 0, []byte{7, 4, 4, 0}, udp(40000, 53))), "kernel-flow"),
			out(pod4, peer4, 1, icmp(3, between(peer4, pod4, 17, udp(53, 40000))), "kernel-flow"),
			// Not remembered by themselves.
			out(pod4, node4, 1, icmp(3, between(node4, pod4, 17, udp(53, 41000))), "kernel-table"),
			in(peer4, pod4, 17, udp(53, 41000), "vpp"),
		},
		"ICMPv6 errors": {
			out(pod6, world6, 6, tcp(40000, 53, syn), "kernel-table"),
			in(peer6, pod6, 58, icmp(2, between(pod6, peer6, 6, tcp(40000, 53, 0))), "kernel-flow"),
			in(peer6, pod6, 58, icmp(129, between(pod6, peer6, 6, tcp(40000, 53, 0))), "vpp"),
		},
		"IPv4 options take the whole connection to the kernel": {
			{RolePod, framed(ip4(pod4, peer4, 17, 0, []byte{7, 4, 4, 0}, udp(40000, 53))), "options"},
			out(pod4, peer4, 17, udp(40000, 53), "kernel-flow"),
			in(peer4, pod4, 17, udp(53, 40000), "kernel-flow"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, RolePod, ModeVPP)
			for i, s := range steps {
				g.model.role = s.on
				require.NoError(t, g.shim.Bind(s.on, g.tables))
				require.Equal(t, s.want, g.runBoth(t, s.frame), "step %d", i+1)
			}
		})
	}
}

// What begins while the kernel carries everything is known when VPP takes over.
func TestFlowsBeginInKernelMode(t *testing.T) {
	g := newRig(t, RolePod, ModeKernel)
	require.Equal(t, "kernel-mode", g.runBoth(t, framed(between(pod4, service4, 17, udp(40000, 53)))))
	require.Equal(t, "kernel-mode", g.runBoth(t, framed(between(pod4, peer4, 17, udp(40001, 53)))))
	g.model.mode = ModeVPP
	require.NoError(t, g.shim.SetMode(ModeVPP))
	require.Equal(t, "kernel-flow", g.runBoth(t, framed(between(local4, pod4, 17, udp(53, 40000)))))
	require.Equal(t, "vpp", g.runBoth(t, framed(between(local4, pod4, 17, udp(53, 40001)))))
}

func TestFlowsExpire(t *testing.T) {
	g := newRig(t, RolePod, ModeVPP)
	reply := framed(between(local4, pod4, 17, udp(53, 40000)))
	require.Equal(t, "kernel-table", g.runBoth(t, framed(between(pod4, service4, 17, udp(40000, 53)))))
	require.Equal(t, "kernel-flow", g.runBoth(t, reply))

	// A reply puts the end off when an eighth of the time has gone.
	k := flowKey{Addr: addr(pod4).As16(), Port: [2]byte{40000 >> 8, 40000 & 0xff}, Proto: 17}
	var f flow
	require.NoError(t, g.tables.flows.Lookup(k, &f))
	f.Expires -= uint64(udpTimeout / 2)
	require.NoError(t, g.tables.flows.Put(k, f))
	require.Equal(t, "kernel-flow", g.run(t, reply))
	require.InDelta(t, udpTimeout.Seconds(), g.flows(t)[k].left.Seconds(), 5)

	f.Expires = 1
	require.NoError(t, g.tables.flows.Put(k, f))
	require.Equal(t, "vpp", g.run(t, reply))
	require.Equal(t, "kernel-table", g.run(t, framed(between(pod4, service4, 17, udp(40000, 53)))))
	require.Equal(t, "kernel-flow", g.run(t, reply), "a flow that had ended begins anew")
}

// A full memory forgets the oldest, and goes on.
func TestFlowsOverflow(t *testing.T) {
	needsBPF(t)
	g := newRig(t, RolePod, ModeVPP)
	for port := range 1 << 15 {
		require.Equal(t, uint32(actionPass), must(g.shim.program.Run(runOf(framed(between(pod4, service4, 17, udp(uint16(port+1), 53)))))))
	}
	have := g.flows(t)
	require.LessOrEqual(t, len(have), 1<<14)
	require.Greater(t, len(have), 1<<13)
	require.Equal(t, "kernel-flow", g.run(t, framed(between(local4, pod4, 17, udp(53, 1<<15)))))
}
