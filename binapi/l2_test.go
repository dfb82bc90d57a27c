package binapi

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTakingMatchesWhereTheHeadersAre(t *testing.T) {
	k := Taking{MAC: MAC{2, 0, 0, 0, 0, 1}, Prefix: netip.MustParsePrefix("fcbb:bb00:1::/48")}
	m, mask := k.match(), takeMask()
	require.Len(t, m, 48)
	require.Len(t, mask, 48)
	// An Ethernet header without a VLAN tag, then an IPv6 header (RFC 8200 §3).
	frame := make([]byte, 14+40)
	copy(frame, []byte{2, 0, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 0x86, 0xdd, 0x60})
	dst := netip.MustParseAddr("fcbb:bb00:1:e006::").As16()
	copy(frame[14+24:], dst[:])
	hits := func() bool {
		for i := range mask {
			if frame[i]&mask[i] != m[i] {
				return false
			}
		}
		return true
	}
	require.True(t, hits())
	for _, at := range []int{0, 5, 12, 13, 14 + 24, 14 + 24 + 5} {
		frame[at] ^= 1
		require.False(t, hits(), "byte %d counts", at)
		frame[at] ^= 1
	}
	for _, at := range []int{6, 11, 14, 20, 14 + 8, 14 + 24 + 6} {
		frame[at] ^= 1
		require.True(t, hits(), "byte %d does not count", at)
		frame[at] ^= 1
	}
}

func TestWireState(t *testing.T) {
	w := Wire{NIC: "dpdk-eth0", HostLink: "swh-eth0"}
	nic, host := Interface{Index: 1, Name: "dpdk-eth0", AdminUp: true}, Interface{Index: 2, Name: "host-swh-eth0", AdminUp: true}
	bridge := Bridge{ID: 8301, Tag: w.tag(), Members: []Index{1, 2}}
	whole := func(i []Interface, b ...Bridge) bool { return w.State(i, b).Whole() }
	require.True(t, whole([]Interface{nic, host}, Bridge{ID: 1, Tag: "another"}, bridge))
	require.False(t, whole([]Interface{nic}, bridge))
	require.False(t, whole([]Interface{nic, host}))
	down := host
	down.AdminUp = false
	require.False(t, whole([]Interface{nic, down}, bridge))
	for _, wrong := range []Bridge{
		{Tag: w.tag(), Members: []Index{1}},
		{Tag: w.tag(), Members: []Index{1, 3}},
		{Tag: w.tag(), Members: []Index{1, 2, 3}},
		{Tag: w.tag(), Members: []Index{1, 2}, Learn: true},
	} {
		require.False(t, whole([]Interface{nic, host}, wrong))
	}
	require.NotEqual(t, w.hostMAC(), Wire{HostLink: "swh-eth1"}.hostMAC())
	require.Zero(t, w.hostMAC()[0]&1, "it is no group's address")
}
