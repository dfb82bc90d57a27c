// Package standin stands in VPP's place where there is none: AF_XDP sockets that
// the XDP shim redirects to, and a small forwarder behind them that encapsulates
// and decapsulates SRv6 as VPP does for pods. It shows the shim's own path; it is
// no dataplane.
package standin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/xdp/xsktest"
)

const (
	etherHeader  = 14
	ipv6Header   = 40
	ipv4Header   = 20
	etherTypeIP4 = unix.ETH_P_IP
	etherTypeIP6 = unix.ETH_P_IPV6
)

// Link is one of the forwarder's two: the uplink or the pod's.
type Link struct {
	Index int
	// MAC is the link's own, Peer that of who is at its other end.
	MAC, Peer net.HardwareAddr
}

// Config is one pod with its way out.
type Config struct {
	Uplink, Pod Link
	// PodIPs are the pod's addresses.
	PodIPs []netip.Addr
	// Source of the outer header.
	Source netip.Addr
	// SIDs are where the pods of another node are behind: by their prefix.
	SIDs map[netip.Prefix]netip.Addr
	// HopLimit of the outer header.
	HopLimit uint8
}

// Counts are frames.
type Counts struct{ Encapsulated, Decapsulated, Unknown, NoRoom uint64 }

// Forwarder forwards until it is closed.
type Forwarder struct {
	conf        Config
	uplink, pod *xsktest.Socket
	stop        chan struct{}
	done        sync.WaitGroup
	counts      struct{ encapsulated, decapsulated, unknown, noRoom atomic.Uint64 }
}

// Start opens the sockets and begins. The calling thread must be in the links'
// network namespace.
func Start(c Config) (*Forwarder, error) {
	if len(c.PodIPs) == 0 || !c.Source.Is6() || len(c.SIDs) == 0 || c.HopLimit == 0 {
		return nil, fmt.Errorf("forwarder: %d pod addresses, source %s, %d SIDs, hop limit %d: something is missing", len(c.PodIPs), c.Source, len(c.SIDs), c.HopLimit)
	}
	f := &Forwarder{conf: c, stop: make(chan struct{})}
	var err error
	if f.uplink, err = xsktest.Open(c.Uplink.Index, 0); err != nil {
		return nil, err
	}
	if f.pod, err = xsktest.Open(c.Pod.Index, 0); err != nil {
		return nil, errors.Join(err, f.uplink.Close())
	}
	f.done.Go(f.run)
	return f, nil
}

// Sockets are the descriptors of the uplink's and the pod's socket, for the
// shims.
func (f *Forwarder) Sockets() (uplink, pod int) { return f.uplink.FD(), f.pod.FD() }

// Counts are the frames so far.
func (f *Forwarder) Counts() Counts {
	return Counts{f.counts.encapsulated.Load(), f.counts.decapsulated.Load(), f.counts.unknown.Load(), f.counts.noRoom.Load()}
}

// Close ends the forwarder as a crash would: the sockets go, with what is in
// their rings. The kernel closes one after the other, as it does for a process
// that is killed, and waits for packets under way each time: what comes to a
// socket meanwhile is lost.
func (f *Forwarder) Close() error {
	close(f.stop)
	f.done.Wait()
	return errors.Join(f.uplink.Close(), f.pod.Close())
}

// patience is how long the forwarder sleeps without frames, and so how long
// Close takes at most.
const patience = time.Millisecond

// nice is the forwarder's priority where the system allows that: it stands for a
// VPP with a processor of its own.
const nice = -20

func (f *Forwarder) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice)
	for {
		select {
		case <-f.stop:
			return
		default:
		}
		if f.pod.Drain(f.encapsulate)+f.uplink.Drain(f.decapsulate) == 0 {
			xsktest.WaitReadable(patience, f.uplink, f.pod)
			continue
		}
		f.uplink.Flush()
		f.pod.Flush()
	}
}

// encapsulate sends a pod's frame to the node of its destination
// (H.Encaps.Red with one segment, RFC 8986 §5.2).
func (f *Forwarder) encapsulate(frame []byte) {
	dst, next, ok := destination(frame)
	if !ok {
		f.counts.unknown.Add(1)
		return
	}
	for prefix, sid := range f.conf.SIDs {
		if !prefix.Contains(dst) {
			continue
		}
		inner := frame[etherHeader:]
		sent := f.uplink.Send(func(out []byte) int {
			n := etherHeader + ipv6Header + len(inner)
			if n > len(out) {
				return 0
			}
			ether(out, f.conf.Uplink.Peer, f.conf.Uplink.MAC, etherTypeIP6)
			h := out[etherHeader:]
			binary.BigEndian.PutUint32(h, 6<<28|flowLabel(inner))
			binary.BigEndian.PutUint16(h[4:], uint16(len(inner)))
			h[6], h[7] = next, f.conf.HopLimit
			copy(h[8:24], f.conf.Source.AsSlice())
			copy(h[24:40], sid.AsSlice())
			lowerHops(h[ipv6Header:], inner)
			return n
		})
		f.count(sent, &f.counts.encapsulated)
		return
	}
	f.counts.unknown.Add(1)
}

// decapsulate sends what is inside an uplink's frame to the pod (End.DT4 and
// End.DT6, RFC 8986 §4.6 and §4.7).
func (f *Forwarder) decapsulate(frame []byte) {
	if len(frame) < etherHeader+ipv6Header || binary.BigEndian.Uint16(frame[12:]) != etherTypeIP6 {
		f.counts.unknown.Add(1)
		return
	}
	kind := uint16(0)
	switch frame[etherHeader+6] {
	case unix.IPPROTO_IPIP:
		kind = etherTypeIP4
	case unix.IPPROTO_IPV6:
		kind = etherTypeIP6
	}
	inner := frame[etherHeader+ipv6Header:]
	dst, ok := innerDestination(kind, inner)
	if !ok || !f.isPod(dst) {
		f.counts.unknown.Add(1)
		return
	}
	sent := f.pod.Send(func(out []byte) int {
		if etherHeader+len(inner) > len(out) {
			return 0
		}
		ether(out, f.conf.Pod.Peer, f.conf.Pod.MAC, kind)
		lowerHops(out[etherHeader:], inner)
		return etherHeader + len(inner)
	})
	f.count(sent, &f.counts.decapsulated)
}

func (f *Forwarder) count(sent bool, as *atomic.Uint64) {
	if !sent {
		as = &f.counts.noRoom
	}
	as.Add(1)
}

func (f *Forwarder) isPod(a netip.Addr) bool {
	for _, ip := range f.conf.PodIPs {
		if ip == a {
			return true
		}
	}
	return false
}

// destination of the packet in a frame, and the number by which an outer header
// names its family.
func destination(frame []byte) (dst netip.Addr, next byte, ok bool) {
	if len(frame) < etherHeader {
		return dst, 0, false
	}
	kind := binary.BigEndian.Uint16(frame[12:])
	dst, ok = innerDestination(kind, frame[etherHeader:])
	if kind == etherTypeIP4 {
		return dst, unix.IPPROTO_IPIP, ok
	}
	return dst, unix.IPPROTO_IPV6, ok
}

func innerDestination(kind uint16, packet []byte) (netip.Addr, bool) {
	switch {
	case kind == etherTypeIP4 && len(packet) >= ipv4Header && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case kind == etherTypeIP6 && len(packet) >= ipv6Header && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, false
}

func ether(out []byte, dst, src net.HardwareAddr, kind uint16) {
	copy(out, dst)
	copy(out[6:], src)
	binary.BigEndian.PutUint16(out[12:], kind)
}

// lowerHops copies a packet with one hop less, as a router forwards it.
func lowerHops(out, packet []byte) {
	copy(out, packet)
	if out[0]>>4 == 6 {
		out[7]--
		return
	}
	out[8]--
	// RFC 1141: the checksum of a header whose TTL is one lower.
	sum := uint32(binary.BigEndian.Uint16(out[10:])) + 0x100
	binary.BigEndian.PutUint16(out[10:], uint16(sum+sum>>16))
}

// flowLabel is 20 bits that are the same for all packets of a flow.
func flowLabel(packet []byte) uint32 {
	addresses, ports := packet[8:ipv6Header], ipv6Header
	if packet[0]>>4 == 4 {
		addresses, ports = packet[12:ipv4Header], ipv4Header
	}
	h := uint32(2166136261) // FNV-1a
	add := func(b byte) { h = (h ^ uint32(b)) * 16777619 }
	for _, b := range addresses {
		add(b)
	}
	if len(packet) >= ports+4 {
		for _, b := range packet[ports : ports+4] {
			add(b)
		}
	}
	return (h^h>>20)&0xfffff | 1
}
