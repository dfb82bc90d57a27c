package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// streamSize is a stream packet's payload: an 8-byte number, the time of its
// sending in 8 bytes, and filling.
const streamSize = 256

// Stream is numbered UDP packets at a constant rate in one direction.
type Stream struct {
	tx, rx *net.UDPConn
	stop   chan struct{}
	wg     sync.WaitGroup
	line   *timeline
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
	if err := errors.Join(growBuffer(rx), stampArrivals(rx)); err != nil {
		rx.Close()
		return nil, err
	}
	port := rx.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	tx, err := dialUDP(fromNS, 0, netip.AddrPortFrom(to, port))
	if err != nil {
		rx.Close()
		return nil, err
	}
	s := &Stream{tx: tx, rx: rx, stop: make(chan struct{}), line: newTimeline()}
	s.wg.Add(1)
	go s.send(time.Second / time.Duration(rate))
	go s.receive()
	return s, nil
}

func (s *Stream) send(interval time.Duration) {
	defer s.wg.Done()
	buf := make([]byte, streamSize)
	paced(interval, s.stop, func(n int) {
		binary.BigEndian.PutUint64(buf, uint64(n))
		binary.BigEndian.PutUint64(buf[8:], uint64(s.line.depart()))
		if _, err := s.tx.Write(buf); err != nil {
			s.line.refused()
		}
	})
}

func (s *Stream) receive() {
	buf, oob := make([]byte, 2048), make([]byte, 128)
	for {
		n, oobn, _, _, err := s.rx.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != streamSize {
			continue
		}
		s.line.arrive(binary.BigEndian.Uint64(buf), arrival(oob[:oobn]))
	}
}

// stampArrivals asks the kernel for the time at which a packet reached the
// receiver's namespace: how long the receiving program then takes to read it is
// no part of the measurement.
func stampArrivals(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	})
	return errors.Join(ctl, err)
}

// arrival is the kernel's stamp in a packet's control messages, or now.
func arrival(oob []byte) int64 {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return clock()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			return ts.Nano()
		}
	}
	return clock()
}

// Received is the number of packets that have arrived so far.
func (s *Stream) Received() int {
	_, received := s.line.counts()
	return received
}

// settleTime is how long a stream waits for packets that are on the way.
const settleTime = time.Second

// Stop ends the stream, waits for what is on the way, and counts.
func (s *Stream) Stop() StreamResult {
	close(s.stop)
	s.wg.Wait()
	s.line.settle(settleTime)
	_ = s.tx.Close()
	_ = s.rx.Close()
	return s.line.result(Window{})
}

// Result is what became of the packets sent within a window. Before Stop, what is
// on the way counts as lost.
func (s *Stream) Result(w Window) StreamResult { return s.line.result(w) }

// ClockMoved says why a stream's times cannot be trusted; nil when they can.
func (s *Stream) ClockMoved() error { return s.line.clockMoved() }
