package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// ICMP messages (RFC 792, RFC 4443).
const (
	icmpEcho4, icmpReply4 = 8, 0
	icmpEcho6, icmpReply6 = 128, 129
	icmpHeader            = 8
	pingSize              = icmpHeader + 16
)

// Ping is ICMP echo requests at a constant rate from one namespace to an address
// that the kernel of another answers for.
type Ping struct {
	conn *net.IPConn
	to   netip.Addr
	id   uint16
	stop chan struct{}
	wg   sync.WaitGroup
	line *timeline
}

// StartPing sends rate requests a second until Stop. The namespace's name and the
// id tell its answers from those of other pings.
func StartPing(fromNS string, to netip.Addr, rate int, id uint16) (*Ping, error) {
	if rate < 1 {
		return nil, fmt.Errorf("rate %d: want 1 or more packets a second", rate)
	}
	network := "ip6:ipv6-icmp"
	if to.Is4() {
		network = "ip4:icmp"
	}
	p := &Ping{to: to, id: id, stop: make(chan struct{}), line: newTimeline()}
	err := ns.Do(fromNS, func() error {
		c, err := net.Dial(network, to.String())
		if err != nil {
			return err
		}
		p.conn = c.(*net.IPConn)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: ping %s: %w", fromNS, to, err)
	}
	if err := errors.Join(growBuffer(p.conn), stampArrivals(p.conn)); err != nil {
		p.conn.Close()
		return nil, fmt.Errorf("%s: ping %s: %w", fromNS, to, err)
	}
	p.wg.Add(1)
	go p.send(time.Second / time.Duration(rate))
	go p.receive()
	return p, nil
}

// echoRequest makes a request. The number is whole in the payload: the sequence
// number of the header has 16 bits only.
func echoRequest(v4 bool, id uint16, number uint64, stamp int64) []byte {
	b := make([]byte, pingSize)
	b[0] = icmpEcho6
	if v4 {
		b[0] = icmpEcho4
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], uint16(number))
	binary.BigEndian.PutUint64(b[8:], number)
	binary.BigEndian.PutUint64(b[16:], uint64(stamp))
	if v4 { // the kernel does it for ICMPv6
		binary.BigEndian.PutUint16(b[2:], internetChecksum(b))
	}
	return b
}

// parseReply gives the number of the request that a packet answers, false when
// it answers none of this id.
func parseReply(v4 bool, b []byte, id uint16) (uint64, bool) {
	want := byte(icmpReply6)
	if v4 {
		want = icmpReply4
	}
	if len(b) != pingSize || b[0] != want || binary.BigEndian.Uint16(b[4:]) != id {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[8:]), true
}

// internetChecksum is RFC 1071's.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func (p *Ping) send(interval time.Duration) {
	defer p.wg.Done()
	paced(interval, p.stop, func(n int) {
		stamp := p.line.depart()
		if _, err := p.conn.Write(echoRequest(p.to.Is4(), p.id, uint64(n), stamp)); err != nil {
			p.line.refused()
		}
	})
}

func (p *Ping) receive() {
	buf, oob := make([]byte, 2048), make([]byte, 128)
	for {
		n, oobn, _, _, err := p.conn.ReadMsgIP(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		packet := buf[:n]
		if p.to.Is4() && n >= minIPv4Bytes { // a raw IPv4 socket gives the header too
			packet = packet[min(n, int(packet[0]&0xf)*4):]
		}
		if number, ok := parseReply(p.to.Is4(), packet, p.id); ok {
			p.line.arrive(number, arrival(oob[:oobn]))
		}
	}
}

// Stop ends the pings, waits for answers that are on the way, and counts.
func (p *Ping) Stop() StreamResult {
	close(p.stop)
	p.wg.Wait()
	p.line.settle(settleTime)
	_ = p.conn.Close()
	return p.line.result(Window{})
}

// Result is what became of the requests sent within a window.
func (p *Ping) Result(w Window) StreamResult { return p.line.result(w) }
