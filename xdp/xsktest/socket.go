// Package xsktest has a plain AF_XDP socket: what stands in VPP's place where a
// test has no VPP.
package xsktest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	frameSize  = 2048
	ringFrames = 256 // of each ring
	umemSize   = 2 * ringFrames * frameSize
)

// Socket is an AF_XDP socket in copy mode on one queue of a link. It is for one
// goroutine.
type Socket struct {
	fd                       int
	umem                     []byte
	rx, tx, fill, completion ring
	// free are the frames for transmission.
	free []uint64
}

// Open makes a socket on a queue of a link of this network namespace. Packets
// come once an XDP program redirects them to it: see xdp.Shim.RegisterSocket.
func Open(ifindex int, queue uint32) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("AF_XDP socket: %w", err)
	}
	s := &Socket{fd: fd}
	if err := s.setUp(ifindex, queue); err != nil {
		return nil, errors.Join(fmt.Errorf("AF_XDP socket on queue %d of link %d: %w", queue, ifindex, err), s.Close())
	}
	return s, nil
}

func (s *Socket) setUp(ifindex int, queue uint32) error {
	var err error
	s.umem, err = unix.Mmap(-1, 0, umemSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("frame memory: %w", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&s.umem[0]))), Len: umemSize, Size: frameSize}
	if err := setsockopt(s.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return fmt.Errorf("register frame memory: %w", err)
	}
	for _, option := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, option, ringFrames); err != nil {
			return fmt.Errorf("ring %d: %w", option, err)
		}
	}
	var at unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(at))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return fmt.Errorf("ring offsets: %w", errno)
	}
	for _, r := range []struct {
		ring  *ring
		at    unix.XDPRingOffset
		page  int64
		entry uintptr
	}{
		{&s.fill, at.Fr, unix.XDP_UMEM_PGOFF_FILL_RING, 8},
		{&s.completion, at.Cr, unix.XDP_UMEM_PGOFF_COMPLETION_RING, 8},
		{&s.rx, at.Rx, unix.XDP_PGOFF_RX_RING, unsafe.Sizeof(unix.XDPDesc{})},
		{&s.tx, at.Tx, unix.XDP_PGOFF_TX_RING, unsafe.Sizeof(unix.XDPDesc{})},
	} {
		if err := r.ring.mmap(s.fd, r.at, r.page, r.entry); err != nil {
			return fmt.Errorf("map ring: %w", err)
		}
	}
	for i := range uint64(ringFrames) {
		s.refill(i * frameSize)
		s.free = append(s.free, (ringFrames+i)*frameSize)
	}
	return unix.Bind(s.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifindex), QueueID: queue})
}

func setsockopt(fd, option int, value unsafe.Pointer, size uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(value), size, 0); errno != 0 {
		return errno
	}
	return nil
}

// FD is the socket's descriptor.
func (s *Socket) FD() int { return s.fd }

// Receive waits for one frame; none within the time is unix.ETIMEDOUT.
func (s *Socket) Receive(within time.Duration) ([]byte, error) {
	for end := time.Now().Add(within); ; {
		if frame, ok := s.take(); ok {
			return frame, nil
		}
		left := time.Until(end)
		if left <= 0 {
			return nil, unix.ETIMEDOUT
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("poll: %w", err)
		}
	}
}

func (s *Socket) take() ([]byte, bool) {
	consumed := *s.rx.consumer // ours
	if atomic.LoadUint32(s.rx.producer) == consumed {
		return nil, false
	}
	desc := (*unix.XDPDesc)(s.rx.entry(consumed))
	frame := append([]byte(nil), s.umem[desc.Addr:desc.Addr+uint64(desc.Len)]...)
	at := desc.Addr
	atomic.StoreUint32(s.rx.consumer, consumed+1)
	s.refill(at &^ (frameSize - 1))
	return frame, true
}

func (s *Socket) refill(frame uint64) {
	produced := *s.fill.producer // ours
	*(*uint64)(s.fill.entry(produced)) = frame
	atomic.StoreUint32(s.fill.producer, produced+1)
}

// Transmit sends one frame out of the link.
func (s *Socket) Transmit(frame []byte) error {
	if len(frame) > frameSize {
		return fmt.Errorf("a frame of %d bytes, at most %d fit: %w", len(frame), frameSize, unix.EMSGSIZE)
	}
	for consumed := *s.completion.consumer; consumed != atomic.LoadUint32(s.completion.producer); consumed++ {
		s.free = append(s.free, *(*uint64)(s.completion.entry(consumed)))
		atomic.StoreUint32(s.completion.consumer, consumed+1)
	}
	if len(s.free) == 0 {
		return unix.ENOBUFS
	}
	at := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	copy(s.umem[at:], frame)
	produced := *s.tx.producer // ours
	*(*unix.XDPDesc)(s.tx.entry(produced)) = unix.XDPDesc{Addr: at, Len: uint32(len(frame))}
	atomic.StoreUint32(s.tx.producer, produced+1)
	err := unix.Sendto(s.fd, nil, unix.MSG_DONTWAIT, nil)
	if err == unix.EAGAIN || err == unix.EBUSY {
		return nil // it is on its way
	}
	return err
}

// Close ends the socket: packets for it go on to the kernel from now on.
func (s *Socket) Close() error {
	errs := []error{unix.Close(s.fd)}
	for _, r := range []*ring{&s.rx, &s.tx, &s.fill, &s.completion} {
		if r.memory != nil {
			errs = append(errs, unix.Munmap(r.memory))
		}
	}
	if s.umem != nil {
		errs = append(errs, unix.Munmap(s.umem))
	}
	return errors.Join(errs...)
}

// ring is one of a socket's four rings, shared with the kernel.
type ring struct {
	memory             []byte
	producer, consumer *uint32
	entries            unsafe.Pointer
	size               uintptr // of an entry
}

func (r *ring) mmap(fd int, at unix.XDPRingOffset, page int64, size uintptr) error {
	memory, err := unix.Mmap(fd, page, int(at.Desc)+ringFrames*int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	base := unsafe.Pointer(&memory[0])
	r.memory, r.size = memory, size
	r.producer, r.consumer = (*uint32)(unsafe.Add(base, at.Producer)), (*uint32)(unsafe.Add(base, at.Consumer))
	r.entries = unsafe.Add(base, at.Desc)
	return nil
}

func (r *ring) entry(i uint32) unsafe.Pointer {
	return unsafe.Add(r.entries, uintptr(i%ringFrames)*r.size)
}
