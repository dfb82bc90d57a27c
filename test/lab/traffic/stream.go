package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// streamSize is a stream packet's payload: an 8-byte number and filling.
const streamSize = 256

// StreamResult is what became of a stream's packets.
type StreamResult struct {
	Sent     int `json:"sent"`
	Received int `json:"received"`
	Lost     int `json:"lost"`
	// MaxGap is the longest time between two arrivals.
	MaxGap time.Duration `json:"-"`
	// SendErrors are packets that the sender's own kernel refused.
	SendErrors int `json:"sendErrors,omitempty"`
}

// Add joins the results of streams that ran side by side.
func (r StreamResult) Add(o StreamResult) StreamResult {
	return StreamResult{
		Sent: r.Sent + o.Sent, Received: r.Received + o.Received, Lost: r.Lost + o.Lost,
		MaxGap: max(r.MaxGap, o.MaxGap), SendErrors: r.SendErrors + o.SendErrors,
	}
}

// Stream is numbered UDP packets at a constant rate in one direction.
type Stream struct {
	tx, rx *net.UDPConn
	stop   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	result StreamResult
	seen   map[uint64]bool
	last   time.Time
}

// StartStream sends rate packets a second from one namespace to an address in
// another until Stop.
func StartStream(fromNS, toNS string, to netip.Addr, rate int) (*Stream, error) {
	if rate < 1 {
		return nil, fmt.Errorf("rate %d: want 1 or more packets a second", rate)
	}
	rx, err := listenUDP(toNS, netip.AddrPortFrom(wildcard(to), 0))
	if err != nil {
		return nil, err
	}
	if err := growBuffer(rx); err != nil {
		rx.Close()
		return nil, err
	}
	port := rx.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	tx, err := dialUDP(fromNS, 0, netip.AddrPortFrom(to, port))
	if err != nil {
		rx.Close()
		return nil, err
	}
	s := &Stream{tx: tx, rx: rx, stop: make(chan struct{}), seen: map[uint64]bool{}}
	s.wg.Add(1)
	go s.send(time.Second / time.Duration(rate))
	go s.receive()
	return s, nil
}

func (s *Stream) send(interval time.Duration) {
	defer s.wg.Done()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	buf := make([]byte, streamSize)
	for n := uint64(0); ; n++ {
		binary.BigEndian.PutUint64(buf, n)
		_, err := s.tx.Write(buf)
		s.mu.Lock()
		s.result.Sent++
		if err != nil {
			s.result.SendErrors++
		}
		s.mu.Unlock()
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
	}
}

func (s *Stream) receive() {
	buf := make([]byte, 2048)
	for {
		n, err := s.rx.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != streamSize {
			continue
		}
		now := time.Now()
		number := binary.BigEndian.Uint64(buf)
		s.mu.Lock()
		if !s.last.IsZero() {
			s.result.MaxGap = max(s.result.MaxGap, now.Sub(s.last))
		}
		s.last = now
		if !s.seen[number] {
			s.seen[number] = true
			s.result.Received++
		}
		s.mu.Unlock()
	}
}

// Received is the number of packets that have arrived so far.
func (s *Stream) Received() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.result.Received
}

// Stop ends the stream, waits for what is on the way, and counts.
func (s *Stream) Stop() StreamResult {
	close(s.stop)
	s.wg.Wait()
	for range 50 {
		s.mu.Lock()
		all := s.result.Received == s.result.Sent
		s.mu.Unlock()
		if all {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = s.tx.Close()
	_ = s.rx.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Lost = s.result.Sent - s.result.Received
	return s.result
}
