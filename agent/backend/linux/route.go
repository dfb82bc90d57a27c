package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rtaNexthopID is RTA_NH_ID (linux/rtnetlink.h).
const rtaNexthopID = 30

// slot is a place in a route table: the kernel tells routes of one prefix apart
// by their metric.
type slot struct {
	prefix netip.Prefix
	table  uint32 // the kernel's number, 254 for main
	metric uint32
}

func (s slot) String() string {
	return fmt.Sprintf("route %s table %d metric %d", s.prefix, s.table, s.metric)
}

// tableID names a table of one family.
type tableID struct {
	family uint8
	table  uint32
}

func (s slot) tableID() tableID { return tableID{familyOf(s.prefix.Addr()), s.table} }

// hop is a next hop of a route.
type hop struct {
	index   int
	gateway netip.Addr
	weight  uint32 // 1 or more
}

// kernelRoute is a route as the kernel says it.
type kernelRoute struct {
	slot
	kind      uint8 // RTN_*
	protocol  uint8
	nexthopID uint32
	// lockedMTU in bytes, 0 when there is none.
	lockedMTU uint32
	hops      []hop
	encapType uint32
	encap     []byte
}

// routeMessage is a request about the route in s. kind is its type, RTN_UNSPEC
// in a deletion for "any".
func (c *conn) routeMessage(request, flags int, s slot, kind uint8) message {
	h := make([]byte, unix.SizeofRtMsg)
	h[0] = familyOf(s.prefix.Addr())
	h[1] = uint8(s.prefix.Bits())
	h[4] = unix.RT_TABLE_UNSPEC
	if s.table < 256 {
		h[4] = uint8(s.table)
	}
	h[5] = Protocol
	h[6] = unix.RT_SCOPE_UNIVERSE
	if request == unix.RTM_DELROUTE {
		h[6] = unix.RT_SCOPE_NOWHERE
	}
	h[7] = kind
	m := c.message(request, flags, h)
	m.attr(unix.RTA_DST, s.prefix.Addr().AsSlice())
	m.u32(unix.RTA_TABLE, s.table)
	m.u32(unix.RTA_PRIORITY, s.metric)
	return m
}

// addHops adds one path as plain attributes or several as RTA_MULTIPATH. The
// next hops are taken as on the link, as the state says: the kernel does not
// look for a route to the gateway.
func (m message) addHops(family uint8, hops []hop) {
	if len(hops) == 1 {
		h := m.Data[0].(fixed)
		m.u32(unix.RTA_OIF, uint32(hops[0].index))
		if a := gatewayAttr(family, hops[0].gateway); a != nil {
			m.AddData(a)
			binary.NativeEndian.PutUint32(h[8:], unix.RTNH_F_ONLINK)
		} else if family == unix.AF_INET {
			h[6] = unix.RT_SCOPE_LINK
		}
		return
	}
	var b []byte
	for _, h := range hops {
		var gw []byte
		flags := byte(0)
		if a := gatewayAttr(family, h.gateway); a != nil {
			gw, flags = a.Serialize(), unix.RTNH_F_ONLINK
		}
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtNexthop+len(gw)))
		b = append(b, flags, byte(h.weight-1))
		b = binary.NativeEndian.AppendUint32(b, uint32(h.index))
		b = append(b, gw...)
	}
	m.attr(unix.RTA_MULTIPATH, b)
}

// gatewayAttr is nil without a gateway. An IPv6 gateway of an IPv4 route is an
// RTA_VIA (RFC 5549).
func gatewayAttr(family uint8, gw netip.Addr) *nl.RtAttr {
	if !gw.IsValid() {
		return nil
	}
	if familyOf(gw) != family {
		via := binary.NativeEndian.AppendUint16(nil, uint16(familyOf(gw)))
		return nl.NewRtAttr(unix.RTA_VIA, append(via, gw.AsSlice()...))
	}
	return nl.NewRtAttr(unix.RTA_GATEWAY, gw.AsSlice())
}

// dumpRoutes yields the routes of a family that match; table 0 and protocol 0
// match all.
func (c *conn) dumpRoutes(family uint8, table uint32, protocol uint8, reset func(), f func(kernelRoute)) error {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[5] = family, protocol
	attrs := func(m message) {
		if table != 0 {
			m.u32(unix.RTA_TABLE, table)
		}
	}
	err := c.dump(unix.RTM_GETROUTE, h, attrs, unix.RTM_NEWROUTE, reset, func(b []byte) error {
		r, err := parseRoute(b)
		if err != nil {
			return err
		}
		// Cached routes (exceptions of path MTU discovery) are no routes.
		cloned := binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0
		if !cloned && (protocol == 0 || r.protocol == protocol) && (table == 0 || r.table == table) {
			f(r)
		}
		return nil
	})
	if table != 0 && absent(err) { // the table was never made
		return nil
	}
	return err
}

func parseRoute(b []byte) (kernelRoute, error) {
	if len(b) < unix.SizeofRtMsg {
		return kernelRoute{}, errors.New("short route message from the kernel")
	}
	family := b[0]
	r := kernelRoute{protocol: b[5], kind: b[7]}
	r.table = uint32(b[4])
	var dst netip.Addr
	var single hop
	for _, a := range attributes(b[unix.SizeofRtMsg:]) {
		switch a.kind {
		case unix.RTA_DST:
			dst = a.addr()
		case unix.RTA_TABLE:
			r.table = a.u32()
		case unix.RTA_PRIORITY:
			r.metric = a.u32()
		case rtaNexthopID:
			r.nexthopID = a.u32()
		case unix.RTA_ENCAP_TYPE:
			r.encapType = a.u32()
		case unix.RTA_ENCAP:
			r.encap = a.data
		case unix.RTA_METRICS:
			r.lockedMTU = parseLockedMTU(a.data)
		case unix.RTA_OIF:
			single.index = int(a.u32())
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			single.gateway = parseGateway(a)
		case unix.RTA_MULTIPATH:
			r.hops = parseMultipath(a.data)
		}
	}
	if r.hops == nil && single.index != 0 {
		single.weight = 1
		r.hops = []hop{single}
	}
	r.prefix = prefixOf(family, dst, b[1])
	return r, nil
}

func parseGateway(a attribute) netip.Addr {
	if a.kind == unix.RTA_VIA && len(a.data) > 2 {
		return attribute{data: a.data[2:]}.addr()
	}
	return a.addr()
}

func parseMultipath(b []byte) []hop {
	var out []hop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		h := hop{weight: uint32(b[3]) + 1, index: int(binary.NativeEndian.Uint32(b[4:]))}
		for _, a := range attributes(b[unix.SizeofRtNexthop:n]) {
			if a.kind == unix.RTA_GATEWAY || a.kind == unix.RTA_VIA {
				h.gateway = parseGateway(a)
			}
		}
		out = append(out, h)
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

// lockMTU adds a route MTU that no path MTU discovery changes.
func (m message) lockMTU(mtu uint32) {
	metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
	metrics.AddRtAttr(unix.RTAX_LOCK, nl.Uint32Attr(1<<unix.RTAX_MTU))
	metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(mtu))
	m.AddData(metrics)
}

func parseLockedMTU(b []byte) uint32 {
	var lock, mtu uint32
	for _, a := range attributes(b) {
		switch a.kind {
		case unix.RTAX_LOCK:
			lock = a.u32()
		case unix.RTAX_MTU:
			mtu = a.u32()
		}
	}
	if lock&(1<<unix.RTAX_MTU) == 0 {
		return 0
	}
	return mtu
}
