// Package xsktest has a plain AF_XDP socket: what stands in VPP's place where a
// test has no VPP.
package xsktest

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of a socket: half of the frames are for receiving.
const (
	frameSize = 2048
	ringSize  = 1024
	frames    = 2 * ringSize
)

// Socket is a plain AF_XDP socket in copy mode, on one queue of one link, with
// memory of its own. It is used from one goroutine.
type Socket struct {
	fd             int
	memory         []byte
	rx, tx         ring
	fill, complete ring
	free           []uint64 // frames for sending
	// taken are frames that Receive has yet to give.
	taken [][]byte
}

// Open makes a socket on a queue. The calling thread must be in the link's
// network namespace. Nothing comes in before the link's XDP program knows the
// socket.
func Open(ifindex int, queue uint32) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("AF_XDP socket: %w", err)
	}
	s := &Socket{fd: fd}
	if err := s.prepare(ifindex, queue); err != nil {
		return nil, errors.Join(fmt.Errorf("AF_XDP socket on link %d, queue %d: %w", ifindex, queue, err), s.Close())
	}
	return s, nil
}

func (s *Socket) prepare(ifindex int, queue uint32) error {
	var err error
	if s.memory, err = unix.Mmap(-1, 0, frames*frameSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("packet memory: %w", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.memory)))), Len: frames * frameSize, Size: frameSize}
	if err := setOption(s.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return fmt.Errorf("register packet memory: %w", err)
	}
	for _, option := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, option, ringSize); err != nil {
			return fmt.Errorf("ring %d: %w", option, err)
		}
	}
	var at unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(at))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return fmt.Errorf("offsets of the rings: %w", errno)
	}
	const address, descriptor = uint32(unsafe.Sizeof(uint64(0))), uint32(unsafe.Sizeof(unix.XDPDesc{}))
	for _, r := range []struct {
		into      *ring
		page      int64
		at        unix.XDPRingOffset
		entrySize uint32
	}{
		{&s.rx, unix.XDP_PGOFF_RX_RING, at.Rx, descriptor},
		{&s.tx, unix.XDP_PGOFF_TX_RING, at.Tx, descriptor},
		{&s.fill, unix.XDP_UMEM_PGOFF_FILL_RING, at.Fr, address},
		{&s.complete, unix.XDP_UMEM_PGOFF_COMPLETION_RING, at.Cr, address},
	} {
		if *r.into, err = mapRing(s.fd, r.page, r.at, ringSize, r.entrySize); err != nil {
			return err
		}
	}
	for i := range uint32(ringSize) {
		*s.fill.address(i) = uint64(i) * frameSize
		s.free = append(s.free, uint64(ringSize+i)*frameSize)
	}
	atomic.StoreUint32(s.fill.producer, ringSize)
	if err := unix.Bind(s.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifindex), QueueID: queue}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func setOption(fd, option int, value unsafe.Pointer, size uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(value), size, 0); errno != 0 {
		return errno
	}
	return nil
}

// FD is the descriptor, for the XDP program's map of sockets.
func (s *Socket) FD() int { return s.fd }

// Receive waits for one frame; none within the time is unix.ETIMEDOUT.
func (s *Socket) Receive(within time.Duration) ([]byte, error) {
	for end := time.Now().Add(within); len(s.taken) == 0; {
		if s.Drain(func(frame []byte) { s.taken = append(s.taken, bytes.Clone(frame)) }) > 0 {
			break
		}
		left := time.Until(end)
		if left <= 0 {
			return nil, unix.ETIMEDOUT
		}
		WaitReadable(left+time.Millisecond, s)
	}
	frame := s.taken[0]
	s.taken = s.taken[1:]
	return frame, nil
}

// Drain calls handle with each frame that is there. A frame is valid during the
// call.
func (s *Socket) Drain(handle func(frame []byte)) int {
	n := s.rx.ready()
	at := atomic.LoadUint32(s.rx.consumer)
	fill := atomic.LoadUint32(s.fill.producer)
	for i := range n {
		d := *s.rx.descriptor(at + i)
		handle(s.memory[d.Addr : d.Addr+uint64(d.Len)])
		// The frame begins behind the headroom.
		*s.fill.address(fill + i) = d.Addr / frameSize * frameSize
	}
	atomic.StoreUint32(s.rx.consumer, at+n)
	atomic.StoreUint32(s.fill.producer, fill+n)
	return int(n)
}

// Send queues a frame that write fills in, which is given the frame's memory and
// returns its length. False when there is no room: the frame is lost. Flush sends
// what is queued.
func (s *Socket) Send(write func(frame []byte) int) bool {
	s.collect()
	if len(s.free) == 0 || s.tx.room() == 0 {
		return false
	}
	addr := s.free[len(s.free)-1]
	length := write(s.memory[addr : addr+frameSize])
	if length <= 0 {
		return false
	}
	s.free = s.free[:len(s.free)-1]
	at := atomic.LoadUint32(s.tx.producer)
	*s.tx.descriptor(at) = unix.XDPDesc{Addr: addr, Len: uint32(length)}
	atomic.StoreUint32(s.tx.producer, at+1)
	return true
}

// collect takes back the frames that have been sent.
func (s *Socket) collect() {
	n := s.complete.ready()
	at := atomic.LoadUint32(s.complete.consumer)
	for i := range n {
		s.free = append(s.free, *s.complete.address(at + i)/frameSize*frameSize)
	}
	atomic.StoreUint32(s.complete.consumer, at+n)
}

// Flush has the kernel send what is queued; it takes a limited number at a time.
func (s *Socket) Flush() {
	for range ringSize {
		if s.tx.ready() == 0 {
			return
		}
		err := unix.Sendto(s.fd, nil, unix.MSG_DONTWAIT, nil)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// Close ends the socket at once: what is in its rings is lost.
func (s *Socket) Close() error {
	err := unix.Close(s.fd)
	for _, r := range []*ring{&s.rx, &s.tx, &s.fill, &s.complete} {
		r.unmap()
	}
	if s.memory != nil {
		err = errors.Join(err, unix.Munmap(s.memory))
		s.memory = nil
	}
	return err
}

// WaitReadable waits until one of the sockets has frames, or the time is over.
func WaitReadable(limit time.Duration, sockets ...*Socket) {
	fds := make([]unix.PollFd, len(sockets))
	for i, s := range sockets {
		fds[i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	}
	_, _ = unix.Poll(fds, int(limit.Milliseconds()))
}
