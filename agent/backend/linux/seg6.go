package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Lightweight tunnel types (linux/lwtunnel.h).
const (
	encapSeg6      = 5
	encapSeg6Local = 7
)

// linux/seg6_iptunnel.h
const (
	seg6IPTunnelSRH      = 1
	seg6IPTunModeReduced = 3 // SEG6_IPTUN_MODE_ENCAP_RED
)

// linux/seg6_local.h
const (
	seg6LocalAction   = 1
	seg6LocalTable    = 3
	seg6LocalNH4      = 4
	seg6LocalNH6      = 5
	seg6LocalVRFTable = 9
	seg6LocalFlavors  = 11

	seg6ActionEnd   = 1
	seg6ActionDX6   = 5
	seg6ActionDX4   = 6
	seg6ActionDT6   = 7
	seg6ActionDT4   = 8
	seg6ActionDT46  = 16
	seg6FlvOp       = 1
	seg6FlvBlock    = 2
	seg6FlvNodeFunc = 3
	seg6FlvNextCSID = 1 << 4 // SEG6_F_LOCAL_FLV_OP(NEXT_CSID)
)

// F3216: lengths of block and node ID in bits.
const (
	blockBits = 32
	nodeBits  = 16
)

// Sizes of the outer header in bytes (RFC 8200 §3, RFC 8754 §2).
const (
	ipv6Header  = 40
	srhHeader   = 8
	segmentSize = 16

	srhRoutingType = 4
)

// maxSegments fit into a segment routing header: its length field counts units
// of 8 bytes beyond the first 8 in one byte (RFC 8754 §2).
const maxSegments = 127

// reducedOverhead is what H.Encaps.Red adds to a packet in bytes: the first
// segment is in the destination address only (RFC 8986 §5.2).
func reducedOverhead(segments int) uint32 {
	if segments <= 1 {
		return ipv6Header
	}
	return ipv6Header + srhHeader + segmentSize*uint32(segments-1)
}

// kernelHeadroom is what the kernel subtracts from a route's MTU for such an
// encapsulation (seg6_lwt_headroom): the same as without the reduction.
func kernelHeadroom(segments int) uint32 {
	return ipv6Header + srhHeader + segmentSize*uint32(segments)
}

// encodeSeg6 is the content of an encapsulation attribute for H.Encaps.Red.
// segments are in the order of travel.
func encodeSeg6(segments []netip.Addr) ([]byte, error) {
	n := len(segments)
	if n == 0 || n > maxSegments {
		return nil, fmt.Errorf("segment list has %d segments, want 1 to %d", n, maxSegments)
	}
	b := make([]byte, 4+srhHeader+segmentSize*n)
	binary.NativeEndian.PutUint32(b, seg6IPTunModeReduced)
	srh := b[4:]
	srh[1] = byte(2 * n) // length beyond the first 8 bytes, in units of 8
	srh[2] = srhRoutingType
	srh[3] = byte(n - 1) // segments left
	srh[4] = byte(n - 1) // last entry
	for i, s := range segments {
		if !s.Is6() || s.Is4In6() {
			return nil, fmt.Errorf("segment %s is not an IPv6 address", s)
		}
		a := s.As16()
		copy(srh[srhHeader+segmentSize*(n-1-i):], a[:])
	}
	return nl.NewRtAttr(seg6IPTunnelSRH, b).Serialize(), nil
}

// decodeSeg6 is the inverse of encodeSeg6; false when the encapsulation is not
// of that kind.
func decodeSeg6(b []byte) ([]netip.Addr, bool) {
	for _, a := range attributes(b) {
		if a.kind != seg6IPTunnelSRH || len(a.data) < 4+srhHeader {
			continue
		}
		if binary.NativeEndian.Uint32(a.data) != seg6IPTunModeReduced {
			return nil, false
		}
		srh := a.data[4:]
		n := int(srh[1]) / 2
		if n == 0 || len(srh) < srhHeader+segmentSize*n {
			return nil, false
		}
		out := make([]netip.Addr, n)
		for i := range out {
			out[n-1-i] = netip.AddrFrom16([16]byte(srh[srhHeader+segmentSize*i:]))
		}
		return out, true
	}
	return nil, false
}

// encodeLocalSID is the content of a seg6local encapsulation attribute.
func encodeLocalSID(v dataplane.LocalSID) ([]byte, error) {
	var parts []*nl.RtAttr
	add := func(kind int, data []byte) { parts = append(parts, nl.NewRtAttr(kind, data)) }
	action := func(a uint32) { add(seg6LocalAction, nl.Uint32Attr(a)) }
	switch v.Behaviour {
	case dataplane.BehaviourEnd:
		action(seg6ActionEnd)
	case dataplane.BehaviourUN:
		action(seg6ActionEnd)
		flavors := nl.NewRtAttr(seg6LocalFlavors|unix.NLA_F_NESTED, nil)
		flavors.AddRtAttr(seg6FlvOp, nl.Uint32Attr(seg6FlvNextCSID))
		flavors.AddRtAttr(seg6FlvBlock, []byte{blockBits})
		flavors.AddRtAttr(seg6FlvNodeFunc, []byte{nodeBits})
		parts = append(parts, flavors)
	case dataplane.BehaviourDT6:
		if mainAsZero(v.Table) == 0 {
			action(seg6ActionDX6)
			add(seg6LocalNH6, make([]byte, 16))
			break
		}
		action(seg6ActionDT6)
		add(seg6LocalTable, nl.Uint32Attr(tableOrMain(v.Table)))
	case dataplane.BehaviourDT4:
		if mainAsZero(v.Table) == 0 {
			action(seg6ActionDX4)
			add(seg6LocalNH4, []byte{0, 0, 0, 0})
			break
		}
		action(seg6ActionDT4)
		add(seg6LocalVRFTable, nl.Uint32Attr(v.Table))
	case dataplane.BehaviourDT46:
		action(seg6ActionDT46)
		add(seg6LocalVRFTable, nl.Uint32Attr(tableOrMain(v.Table)))
	default:
		return nil, fmt.Errorf("behaviour %q: %w", v.Behaviour, dataplane.ErrUnsupported)
	}
	var out []byte
	for _, p := range parts {
		out = append(out, p.Serialize()...)
	}
	return out, nil
}

// decodeLocalSID is the inverse of encodeLocalSID. A behaviour that this program
// does not make comes out with an empty name, so that it differs from any.
func decodeLocalSID(b []byte) dataplane.LocalSID {
	var (
		action, table, vrf uint32
		nh4, nh6           netip.Addr
		flavors            = map[uint16]uint32{}
	)
	for _, a := range attributes(b) {
		switch a.kind {
		case seg6LocalAction:
			action = a.u32()
		case seg6LocalTable:
			table = a.u32()
		case seg6LocalVRFTable:
			vrf = a.u32()
		case seg6LocalNH4:
			nh4 = a.addr()
		case seg6LocalNH6:
			nh6 = a.addr()
		case seg6LocalFlavors:
			for _, f := range attributes(a.data) {
				flavors[f.kind] = f.u32()
			}
		}
	}
	switch action {
	case seg6ActionEnd:
		if len(flavors) == 0 {
			return dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}
		}
		if flavors[seg6FlvOp] == seg6FlvNextCSID && flavors[seg6FlvBlock] == blockBits && flavors[seg6FlvNodeFunc] == nodeBits {
			return dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}
		}
	case seg6ActionDX4:
		if nh4 == netip.IPv4Unspecified() {
			return dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4}
		}
	case seg6ActionDX6:
		if nh6 == netip.IPv6Unspecified() {
			return dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6}
		}
	case seg6ActionDT6:
		if mainAsZero(table) != 0 {
			return dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6, Table: table}
		}
	case seg6ActionDT4:
		return dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4, Table: vrf}
	case seg6ActionDT46:
		return dataplane.LocalSID{Behaviour: dataplane.BehaviourDT46, Table: mainAsZero(vrf)}
	}
	return dataplane.LocalSID{}
}
