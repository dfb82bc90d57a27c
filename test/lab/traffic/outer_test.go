package traffic

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// ipv6 makes a header of version 6 with a flow label.
func ipv6(label uint32, next byte) []byte {
	b := make([]byte, ipv6Header)
	binary.BigEndian.PutUint32(b, 6<<28|label)
	b[6] = next
	copy(b[8:], netip.MustParseAddr("fd53:77:0:1::2").AsSlice())
	copy(b[24:], netip.MustParseAddr("fcbb:bb00:2:e004::").AsSlice())
	return b
}

func ipv4(next byte, options int) []byte {
	b := make([]byte, minIPv4Bytes+options)
	b[0], b[9] = byte(4<<4|len(b)/4), next
	return b
}

func udp(src, dst uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src), dst)
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestParseOuter(t *testing.T) {
	srh := make([]byte, 8+2*16)
	srh[0], srh[1] = headerIPv4, 4
	want := outerPacket{
		src: netip.MustParseAddr("fd53:77:0:1::2"), dst: netip.MustParseAddr("fcbb:bb00:2:e004::"),
		flowLabel: 0xabcde, inner4: true, srcPort: 1000, dstPort: 2000,
	}
	for name, c := range map[string]struct {
		packet []byte
		want   func(*outerPacket)
	}{
		"IPv4":              {join(ipv6(0xabcde, headerIPv4), ipv4(headerUDP, 0), udp(1000, 2000)), func(*outerPacket) {}},
		"IPv4 with options": {join(ipv6(0xabcde, headerIPv4), ipv4(headerUDP, 8), udp(1000, 2000)), func(*outerPacket) {}},
		"IPv6":              {join(ipv6(0xabcde, headerIPv6), ipv6(7, headerUDP), udp(1000, 2000)), func(p *outerPacket) { p.inner4 = false }},
		"SRH":               {join(ipv6(0xabcde, headerRoute), srh, ipv4(headerUDP, 0), udp(1000, 2000)), func(p *outerPacket) { p.hasSRH = true }},
	} {
		t.Run(name, func(t *testing.T) {
			w := want
			c.want(&w)
			got, ok := parseOuter(c.packet)
			require.True(t, ok)
			require.Equal(t, w, got)
			for n := range c.packet {
				_, ok := parseOuter(c.packet[:n])
				require.False(t, ok, "cut to %d bytes", n)
			}
		})
	}
	for name, packet := range map[string][]byte{
		"not encapsulated": join(ipv6(1, headerUDP), udp(1, 2)),
		"inner TCP":        join(ipv6(1, headerIPv4), ipv4(6, 0), udp(1, 2)),
		"IPv4":             ipv4(headerUDP, 40),
		"short IHL":        join(ipv6(1, headerIPv4), append([]byte{0x41}, ipv4(headerUDP, 0)[1:]...), udp(1, 2)),
	} {
		t.Run(name, func(t *testing.T) {
			_, ok := parseOuter(packet)
			require.False(t, ok)
		})
	}
}

func TestCounterTellsFlowsApart(t *testing.T) {
	c := &counter{dstPort: 9, flows: map[flowID]*flowSeen{}}
	c.result.Paths, c.result.FlowsByPath = map[string]int{"a": 0, "b": 0}, map[string]int{}
	for _, p := range []struct {
		path  string
		four  bool
		port  uint16
		label uint32
	}{
		{"a", true, 1, 11}, {"a", true, 1, 11}, // steady
		{"a", false, 1, 12},                    // same port, other family: another flow
		{"a", true, 2, 0},                      // no label
		{"b", true, 3, 13}, {"b", true, 3, 14}, // changes its label
		{"a", true, 4, 11}, {"b", true, 4, 11}, // two paths
	} {
		c.add(p.path, outerPacket{inner4: p.four, srcPort: p.port, flowLabel: p.label})
	}
	r := c.sum()
	require.Equal(t, 8, r.Packets)
	require.Equal(t, map[string]int{"a": 5, "b": 3}, r.Paths)
	require.Equal(t, map[string]int{"a": 4, "b": 2}, r.FlowsByPath)
	require.Equal(t, 5, r.Distinct, "0, 11, 12, 13, 14")
	require.Equal(t, 1, r.Unlabelled)
	require.Equal(t, 1, r.Changing)
	require.Equal(t, 1, r.Split)
	require.InDelta(t, 5.0/8, r.MaxPathShare, 1e-9)
}
