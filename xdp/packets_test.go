package xdp

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Frames for the tests, built from the inside out. Lengths are right unless
// something is cut off on purpose; checksums are not filled in, as the shim
// reads none.

func ether(etherType uint16, payload []byte) []byte {
	b := []byte{0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2}
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

func frame4(packet []byte) []byte { return ether(0x0800, packet) }
func frame6(packet []byte) []byte { return ether(0x86dd, packet) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// ip4 makes an IPv4 packet. options come in units of four bytes.
func ip4(src, dst string, proto byte, fragment uint16, options, payload []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(payload))
	b[0] = 0x40 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = 64, proto
	s, d := addr(src).As4(), addr(dst).As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	return append(append(b, options...), payload...)
}

func ip6(src, dst string, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, 64
	s, d := addr(src).As16(), addr(dst).As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

// between makes a packet of the family of its addresses.
func between(src, dst string, proto byte, payload []byte) []byte {
	if addr(dst).Is4() {
		return ip4(src, dst, proto, 0, nil, payload)
	}
	return ip6(src, dst, proto, payload)
}

// framed puts an IP packet into a frame of its family.
func framed(packet []byte) []byte {
	if packet[0]>>4 == 4 {
		return frame4(packet)
	}
	return frame6(packet)
}

func ports(source, dest uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, source), dest)
}

func udp(source, dest uint16) []byte {
	return append(ports(source, dest), 0, 12, 0, 0, 'd', 'a', 't', 'a')
}

func sctp(source, dest uint16) []byte { return append(ports(source, dest), make([]byte, 8)...) }

func tcp(source, dest uint16, flags byte) []byte {
	b := append(ports(source, dest), make([]byte, 16)...)
	b[12], b[13] = 5<<4, flags
	return b
}

const (
	fin, syn, rst, psh, ack = 1, 2, 4, 8, 16
)

// icmp makes an ICMP or ICMPv6 message that quotes a packet.
func icmp(kind byte, quoted []byte) []byte {
	return append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, quoted...)
}

// srh makes a segment routing header (RFC 8754) of n segments.
func srh(next byte, n int, left byte, payload []byte) []byte {
	b := append([]byte{next, byte(2 * n), 4, left, byte(n - 1), 0, 0, 0}, make([]byte, 16*n)...)
	return append(b, payload...)
}

// fragment6 makes an IPv6 fragment header; offset and more are its third word.
func fragment6(next byte, offset uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{next, 0}, offset)
	return append(append(b, 0, 0, 0, 1), payload...)
}

// options6 makes a hop-by-hop or destination options header without options.
func options6(next byte, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// with is a copy of b with one byte changed.
func with(b []byte, at int, v byte) []byte {
	b = slices.Clone(b)
	b[at] = v
	return b
}
