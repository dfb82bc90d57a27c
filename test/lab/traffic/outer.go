package traffic

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// outerPacket is what a router in the underlay sees of an encapsulated UDP
// packet, and of the flow inside it what tells one from another.
type outerPacket struct {
	src, dst  netip.Addr
	flowLabel uint32
	hasSRH    bool
	// Of the inner packet.
	inner4           bool
	srcPort, dstPort uint16
}

const (
	ipv6Header   = 40
	headerIPv4   = unix.IPPROTO_IPIP
	headerIPv6   = unix.IPPROTO_IPV6
	headerUDP    = unix.IPPROTO_UDP
	headerRoute  = unix.IPPROTO_ROUTING
	minIPv4Bytes = 20
)

// parseOuter reads an IPv6 packet (RFC 8200 §3) that carries an IPv4 or IPv6
// UDP packet, with or without a routing header between; false when it is
// something else.
func parseOuter(b []byte) (outerPacket, bool) {
	var p outerPacket
	if len(b) < ipv6Header || b[0]>>4 != 6 {
		return p, false
	}
	p.flowLabel = binary.BigEndian.Uint32(b) & 0xfffff
	p.src = netip.AddrFrom16([16]byte(b[8:24]))
	p.dst = netip.AddrFrom16([16]byte(b[24:40]))
	next, b := b[6], b[ipv6Header:]
	if next == headerRoute {
		if len(b) < 8 {
			return p, false
		}
		length := 8 + int(b[1])*8
		if len(b) < length {
			return p, false
		}
		p.hasSRH = true
		next, b = b[0], b[length:]
	}
	switch next {
	case headerIPv4:
		if len(b) < minIPv4Bytes || b[9] != headerUDP {
			return p, false
		}
		p.inner4 = true
		ihl := int(b[0]&0xf) * 4
		if ihl < minIPv4Bytes || len(b) < ihl {
			return p, false
		}
		b = b[ihl:]
	case headerIPv6:
		if len(b) < ipv6Header || b[6] != headerUDP {
			return p, false
		}
		b = b[ipv6Header:]
	default:
		return p, false
	}
	if len(b) < 4 {
		return p, false
	}
	p.srcPort, p.dstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	return p, true
}
