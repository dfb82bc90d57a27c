package xsktest

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one of an AF_XDP socket's four (linux/if_xdp.h), mapped from the
// kernel: one side produces, the other consumes.
type ring struct {
	mem                []byte
	producer, consumer *uint32
	mask               uint32
	entries            unsafe.Pointer
}

// mapRing maps a ring whose entries have entrySize bytes.
func mapRing(fd int, pageOffset int64, at unix.XDPRingOffset, entries, entrySize uint32) (ring, error) {
	mem, err := unix.Mmap(fd, pageOffset, int(at.Desc)+int(entries*entrySize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring{}, fmt.Errorf("map ring: %w", err)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return ring{
		mem:      mem,
		producer: (*uint32)(unsafe.Add(base, at.Producer)),
		consumer: (*uint32)(unsafe.Add(base, at.Consumer)),
		mask:     entries - 1,
		entries:  unsafe.Add(base, at.Desc),
	}, nil
}

// ready are the entries that wait for the consumer.
func (r *ring) ready() uint32 {
	return atomic.LoadUint32(r.producer) - atomic.LoadUint32(r.consumer)
}

// room are the entries that the producer may still fill.
func (r *ring) room() uint32 { return r.mask + 1 - r.ready() }

func (r *ring) address(n uint32) *uint64 {
	return (*uint64)(unsafe.Add(r.entries, uintptr(n&r.mask)*unsafe.Sizeof(uint64(0))))
}

func (r *ring) descriptor(n uint32) *unix.XDPDesc {
	return (*unix.XDPDesc)(unsafe.Add(r.entries, uintptr(n&r.mask)*unsafe.Sizeof(unix.XDPDesc{})))
}

func (r *ring) unmap() {
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
		r.mem = nil
	}
}
