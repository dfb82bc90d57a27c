package xdp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// model is the shim in Go, written from the package comment: what the program
// is held against.
type model struct {
	mode         Mode
	role         Role
	uplink, pods map[netip.Prefix]Verdict // nil: not bound
	flows        map[flowKey]modelFlow    // nil: not bound
	socket       bool
}

type modelFlow struct {
	state uint32
	left  time.Duration
}

// What the shim's flow timeouts are to be.
const (
	streamTimeout  = 5 * 24 * time.Hour
	udpTimeout     = 5 * time.Minute
	closingTimeout = 2 * time.Minute
)

func longest(table map[netip.Prefix]Verdict, a netip.Addr) Verdict {
	a = a.Unmap() // ::ffff:a.b.c.d is a.b.c.d's key
	best, verdict := -1, Verdict(0)
	for p, v := range table {
		if p.Contains(a) && p.Bits() > best {
			best, verdict = p.Bits(), v
		}
	}
	return verdict
}

// run decides on one frame, and takes note of what the shim is to remember.
func (m *model) run(frame []byte) (counter int) {
	counter = m.decide(frame)
	if counter == countVPP && !m.socket {
		return countNoSocket
	}
	return counter
}

func (m *model) decide(frame []byte) int {
	switch {
	case m.role == RoleUplink && m.mode == ModeVPP:
		return m.link(frame, m.onUplink)
	case m.role == RolePod && m.mode == ModeVPP:
		return m.link(frame, m.onPod)
	case m.role == RolePod:
		m.link(frame, m.onPod)
	}
	return countKernelMode
}

func (m *model) link(frame []byte, ip func(etherType uint16, packet []byte) int) int {
	if len(frame) < 14 {
		return countMalformed
	}
	switch etherType := binary.BigEndian.Uint16(frame[12:]); {
	case etherType == 0x8100, etherType == 0x88a8:
		return countVLAN
	case etherType != 0x0800 && etherType != 0x86dd:
		return countNotIP
	case frame[0]&1 == 1:
		return countMulticast
	default:
		return ip(etherType, frame[14:])
	}
}

func (m *model) onUplink(etherType uint16, packet []byte) int {
	if etherType != 0x86dd {
		return countKernelTable
	}
	h, ok := ipv6(packet, len(packet))
	switch {
	case !ok:
		return countMalformed
	case packet[24] == 0xff:
		return countMulticast
	case h.next == 0:
		return countOptions
	}
	switch longest(m.uplink, h.dst) {
	case VerdictVPP:
		return countVPP
	case VerdictVPPInner:
		return m.inner(h)
	}
	return countKernelTable
}

func (m *model) inner(outer header) int {
	next, payload := outer.next, outer.payload
	if next == 44 {
		return countFragment
	}
	if next == 43 {
		if len(payload) < 8 || len(payload) < 8*(int(payload[1])+1) {
			return countMalformed
		}
		if payload[2] != 4 || payload[3] != 0 {
			return countOptions
		}
		next, payload = payload[0], payload[8*(int(payload[1])+1):]
	}
	var etherType uint16
	switch {
	case next == 4:
		etherType = 0x0800
	case next == 41:
		etherType = 0x86dd
	case isExtension(next):
		return countOptions
	default:
		return countKernelInner
	}
	p, counter := read(etherType, payload, outer.beyond)
	if counter != countVPP {
		return counter
	}
	if longest(m.pods, p.src) != VerdictVPP || longest(m.pods, p.dst) != VerdictVPP {
		return countKernelInner
	}
	if p.ended && m.carried(p.to()) {
		m.touch(p.to())
		return countKernelFlow
	}
	return countVPP
}

func (m *model) onPod(etherType uint16, packet []byte) int {
	p, counter := read(etherType, packet, nil)
	if counter != countVPP && counter != countOptions {
		return counter
	}
	if counter == countVPP && longest(m.pods, p.dst) != VerdictVPP {
		counter = countKernelTable
	}
	if counter != countVPP {
		if p.ended && !p.quotes {
			m.record(p)
		}
		return counter
	}
	if p.ended && m.carried(p.to()) {
		m.touch(p.to())
		return countKernelFlow
	}
	if p.ended && m.carried(p.from()) {
		return countKernelFlow
	}
	return countVPP
}

func (m *model) carried(k flowKey) bool {
	f, ok := m.flows[k]
	return ok && f.state != flowServer
}

// touch puts the end of a flow off, if that is due.
func (m *model) touch(k flowKey) {
	f := m.flows[k]
	if t := timeoutOf(k.Proto); f.state == 0 && f.left < t-t/8 {
		f.left = t
		m.flows[k] = f
	}
}

func timeoutOf(proto uint8) time.Duration {
	if proto == 17 {
		return udpTimeout
	}
	return streamTimeout
}

func (m *model) record(p packet) {
	if m.flows == nil {
		return
	}
	const fin, syn, rst, psh, ack = 1, 2, 4, 8, 16
	k := p.from()
	if p.fragment {
		k.Port = p.firstPort
	}
	t := timeoutOf(k.Proto)
	f, known := m.flows[k]
	old := f
	switch {
	case p.flags&syn != 0 && p.flags&ack != 0:
		f = modelFlow{flowServer, t}
		if !known && p.flags&rst != 0 {
			return
		}
	case !known && p.flags&rst != 0:
		return
	case p.flags&syn != 0 && (known || p.flags&fin == 0):
		f = modelFlow{0, t}
	case p.flags&(fin|rst) != 0:
		if !known || f.state == 0 {
			f = modelFlow{flowClosing, closingTimeout}
		}
		if known {
			m.flows[k] = f
			return
		}
	case f.state == flowClosing && p.flags&psh == 0:
		return
	case f.state == flowClosing:
		f = modelFlow{0, t}
	default:
		f.left = t
	}
	if known && f.state == old.state && old.left >= t-t/8 {
		return
	}
	m.flows[k] = f
	if f.state != flowServer && k.Port != [2]byte{} {
		k.Port = [2]byte{}
		m.flows[k] = modelFlow{0, t}
	}
}

// header is an IPv6 header.
type header struct {
	src, dst netip.Addr
	next     byte
	payload  []byte
	// beyond is what comes after the packet in its frame.
	beyond []byte
}

func ipv6(b []byte, room int) (h header, ok bool) {
	if room < 40 || b[0]>>4 != 6 {
		return h, false
	}
	n := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if n > room {
		return h, false
	}
	h.src, h.dst, h.next = addr16(b[8:]), addr16(b[24:]), b[6]
	h.payload, h.beyond = b[40:n], b[n:]
	return h, true
}

func addr16(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:16])) }

func isExtension(next byte) bool {
	return slices.Contains([]byte{0, 43, 44, 51, 60, 135, 139, 140}, next)
}

// packet is what counts of an IP packet.
type packet struct {
	src, dst     netip.Addr
	proto        byte // of the flow: for an ICMP error, of the packet it quotes
	sport, dport [2]byte
	// ended: has two ends, and so may be of a connection.
	ended     bool
	quotes    bool // is an ICMP error about a connection
	fragment  bool
	firstPort [2]byte
	flags     byte
}

func (p packet) from() flowKey { return flowKey{Addr: p.src.As16(), Port: p.sport, Proto: p.proto} }
func (p packet) to() flowKey   { return flowKey{Addr: p.dst.As16(), Port: p.dport, Proto: p.proto} }

// read reads an IP packet. beyond is what follows b in the frame.
func read(etherType uint16, b, beyond []byte) (packet, int) {
	if etherType == 0x0800 {
		return read4(b, beyond)
	}
	return read6(b, beyond)
}

func read4(b, beyond []byte) (p packet, counter int) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, countMalformed
	}
	ihl, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if ihl < 20 || total < ihl || total > len(b) {
		return p, countMalformed
	}
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	if p.dst.IsMulticast() || p.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return p, countMulticast
	}
	frag := binary.BigEndian.Uint16(b[6:])
	p.fragment = frag&0x3fff != 0
	if !p.l4(b[9], b[ihl:total], frag&0x1fff != 0) {
		return p, countMalformed
	}
	if ihl != 20 {
		return p, countOptions
	}
	if b[9] == 1 && !p.fragment {
		p.quote4(slices.Concat(b[ihl:], beyond))
	}
	return p, countVPP
}

func read6(b, beyond []byte) (p packet, counter int) {
	h, ok := ipv6(b, len(b))
	if !ok {
		return p, countMalformed
	}
	p.src, p.dst = h.src, h.dst
	if b[24] == 0xff {
		return p, countMulticast
	}
	if h.next == 44 {
		if len(h.payload) < 8 {
			return p, countMalformed
		}
		if isExtension(h.payload[0]) {
			return p, countOptions
		}
		p.fragment = true
		later := binary.BigEndian.Uint16(h.payload[2:])&0xfff8 != 0
		if !p.l4(h.payload[0], h.payload[8:], later) {
			return p, countMalformed
		}
		return p, countVPP
	}
	if isExtension(h.next) {
		return p, countOptions
	}
	if !p.l4(h.next, h.payload, false) {
		return p, countMalformed
	}
	if h.next == 58 {
		p.quote6(slices.Concat(b[40:], beyond))
	}
	return p, countVPP
}

// l4 reads ports, false if they are cut off.
func (p *packet) l4(proto byte, b []byte, later bool) bool {
	need, ok := map[byte]int{6: 20, 17: 8, 132: 12}[proto]
	if !ok {
		return true
	}
	p.proto, p.ended = proto, true
	if later {
		return true
	}
	if len(b) < need {
		return false
	}
	if p.fragment {
		p.firstPort = [2]byte(b[:2])
	} else {
		p.sport, p.dport = [2]byte(b[:2]), [2]byte(b[2:4])
	}
	if proto == 6 {
		p.flags = b[13]
	}
	return true
}

func (p *packet) quote4(icmp []byte) {
	if len(icmp) < 28 || !slices.Contains([]byte{3, 4, 5, 11, 12}, icmp[0]) {
		return
	}
	b := icmp[8:]
	ihl := int(b[0]&15) * 4
	if b[0]>>4 != 4 || ihl < 20 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 || len(b) < ihl {
		return
	}
	p.quote(b[9], b[ihl:])
}

func (p *packet) quote6(icmp []byte) {
	if len(icmp) < 48 || icmp[0] >= 128 || icmp[8]>>4 != 6 {
		return
	}
	p.quote(icmp[8+6], icmp[48:])
}

func (p *packet) quote(proto byte, b []byte) {
	if !slices.Contains([]byte{6, 17, 132}, proto) || len(b) < 4 {
		return
	}
	p.proto, p.ended, p.quotes = proto, true, true
	p.dport, p.sport = [2]byte(b[:2]), [2]byte(b[2:4])
}
