package binapi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stats reads VPP's statistics segment: memory that VPP shares, so that reading
// asks nothing of VPP and works while it hangs. It is safe for concurrent use.
//
// GoVPP has a client for it as well, which reconnects by itself with its lock
// held and without a bound on the wait for VPP: what watches a VPP that may hang
// needs one that does neither.
type Stats struct {
	mu  sync.Mutex
	mem []byte // nil once closed

	// Where the vitals are, found at this epoch of the segment; 0: not yet.
	epoch            uint64
	heartbeat, loops int
}

// Vitals are signs of life.
type Vitals struct {
	// Heartbeat counts the rounds of VPP's statistics collector, which the main
	// thread runs every update-interval (startup.conf, statseg).
	Heartbeat uint64
	// Loops of each thread, the main one first: the rounds a second that it
	// made of late. Of a thread that stands still the value stays the same.
	// There may be more values than threads.
	Loops []uint64
}

// ErrStatsBusy: VPP was changing the segment's layout while it was read.
var ErrStatsBusy = errors.New("VPP is changing its statistics")

// Layout of version 2: VPP's src/vlib/stats/shared.h. Pointers are those of
// VPP's own address space, relative to base.
const (
	statsVersion = 2

	offVersion, offBase, offEpoch, offBusy, offEntries = 0, 8, 16, 24, 32
	statsHeader                                        = 40

	// An entry: type, value or pointer, name.
	entrySize, entryValue, entryName, entryNameSize = 144, 8, 16, 128
	// A vector's length, 32 bits, stands this far before its first element.
	vecLength = 8
	// mostElements bounds what is read of one vector.
	mostElements = 1 << 20
)

// OpenStats maps the segment behind VPP's statistics socket. VPP hands it over
// from its main loop; ctx bounds the wait for that.
func OpenStats(ctx context.Context, socket string) (*Stats, error) {
	mem, err := mapStats(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("%w: statistics: %s: %w", ErrNotConnectable, socket, err)
	}
	s := &Stats{mem: mem}
	if v := s.word(offVersion); v != statsVersion {
		_ = s.Close()
		return nil, fmt.Errorf("statistics: %s: layout version %d, this program knows %d", socket, v, statsVersion)
	}
	return s, nil
}

func mapStats(ctx context.Context, socket string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 16), oob)
	// The message has no content beside the descriptor, which looks like an end.
	if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, got...)
	}
	if len(fds) == 0 {
		return nil, errors.New("VPP sent no file descriptor")
	}
	f := os.NewFile(uintptr(fds[0]), "statistics")
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < statsHeader {
		return nil, fmt.Errorf("the segment has %d bytes only", st.Size())
	}
	return unix.Mmap(fds[0], 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
}

// Vitals reads the signs of life.
func (s *Stats) Vitals() (Vitals, error) {
	var v Vitals
	err := s.read(func(epoch uint64) error {
		if s.epoch != epoch {
			s.epoch, s.heartbeat, s.loops = 0, -1, -1
			if err := s.find(map[string]*int{"/sys/heartbeat": &s.heartbeat, "/sys/loops_per_worker": &s.loops}); err != nil {
				return err
			}
			if s.heartbeat < 0 {
				return errors.New("VPP's statistics have no /sys/heartbeat")
			}
			s.epoch = epoch
		}
		var err error
		if v.Heartbeat, err = s.at(s.heartbeat + entryValue); err != nil || s.loops < 0 {
			return err
		}
		// Of the counters there is one for each thread, all in the first row.
		row, n, err := s.vector(s.loops + entryValue)
		if err != nil || n == 0 {
			return err
		}
		v.Loops, err = s.words(row)
		return err
	})
	return v, err
}

// Packets counts what all interfaces together have received and sent since
// their counters were cleared.
func (s *Stats) Packets() (rx, tx uint64, err error) {
	err = s.read(func(uint64) error {
		in, out := -1, -1
		if err := s.find(map[string]*int{"/if/rx": &in, "/if/tx": &out}); err != nil {
			return err
		}
		var err error
		if rx, err = s.packets(in); err != nil {
			return err
		}
		tx, err = s.packets(out)
		return err
	})
	return rx, tx, err
}

// Close unmaps the segment.
func (s *Stats) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return nil
	}
	mem := s.mem
	s.mem = nil
	return unix.Munmap(mem)
}

// read calls f, which reads, and sees to it that VPP changed nothing meanwhile.
func (s *Stats) read(f func(epoch uint64) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return fmt.Errorf("%w: statistics: closed", ErrDisconnected)
	}
	epoch := s.word(offEpoch)
	if s.word(offBusy) != 0 {
		return ErrStatsBusy
	}
	err := f(epoch)
	if s.word(offBusy) != 0 || s.word(offEpoch) != epoch {
		return ErrStatsBusy // whatever was read
	}
	return err
}

// find sets the positions of the named entries; those that are absent stay as
// they are.
func (s *Stats) find(names map[string]*int) error {
	first, n, err := s.vector(offEntries)
	if err != nil {
		return err
	}
	if n > (len(s.mem)-first)/entrySize {
		return errStatsRange
	}
	for i := range n {
		pos := first + i*entrySize
		name := s.mem[pos+entryName:][:entryNameSize]
		if end := indexZero(name); end > 0 {
			if at, ok := names[string(name[:end])]; ok {
				*at = pos
			}
		}
	}
	return nil
}

func indexZero(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return -1
}

// packets adds up the combined counters (packets, bytes) of an entry, by thread
// and interface. An entry that is absent (-1) has none.
func (s *Stats) packets(entry int) (sum uint64, err error) {
	if entry < 0 {
		return 0, nil
	}
	if v, err := s.at(entry + entryValue); err != nil || v == 0 {
		return 0, err
	}
	threads, n, err := s.vector(entry + entryValue)
	if err != nil {
		return 0, err
	}
	for t := range n {
		first, m, err := s.vector(threads + 8*t)
		if err != nil {
			return 0, err
		}
		for i := range m {
			v, err := s.at(first + 16*i)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// words reads the vector of 64-bit numbers that the pointer at a position
// leads to.
func (s *Stats) words(pos int) ([]uint64, error) {
	first, n, err := s.vector(pos)
	if err != nil {
		return nil, err
	}
	out := make([]uint64, n)
	for i := range out {
		if out[i], err = s.at(first + 8*i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// errStatsRange: a pointer leads out of the segment.
var errStatsRange = errors.New("VPP's statistics lead out of their segment")

// vector follows the pointer at a position to a vector: where its elements
// begin, and how many there are.
func (s *Stats) vector(pos int) (first, n int, err error) {
	p, err := s.at(pos)
	if err != nil {
		return 0, 0, err
	}
	p -= s.word(offBase)
	if p < statsHeader+vecLength || p > uint64(len(s.mem)) {
		return 0, 0, errStatsRange
	}
	first = int(p)
	n = int(binary.NativeEndian.Uint32(s.mem[first-vecLength:]))
	if n > mostElements {
		return 0, 0, errStatsRange
	}
	return first, n, nil
}

// at reads 64 bits at a position that VPP gave.
func (s *Stats) at(pos int) (uint64, error) {
	if pos < 0 || pos > len(s.mem)-8 || pos%8 != 0 {
		return 0, errStatsRange
	}
	return s.word(pos), nil
}

// word reads 64 bits that VPP may be writing.
func (s *Stats) word(pos int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.mem[pos])))
}
