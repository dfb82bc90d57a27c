package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linux/nexthop.h
const (
	sizeofNhMsg  = 8
	nhaID        = 1
	nhaGroup     = 2
	nhaOIF       = 5
	nhaEncapType = 7
	nhaEncap     = 8
	sizeofNhGrp  = 8
)

// nexthop is a nexthop object of ours: a segment list, or a group.
type nexthop struct {
	id uint32
	// segments in the order of travel; nil for a group, and for an object with
	// another encapsulation.
	segments []netip.Addr
	// group is nil when the object is not a group.
	group []weighted
}

// weighted is a member of a nexthop group.
type weighted struct {
	id     uint32
	weight uint32 // 1 or more
}

func (c *conn) nexthopMessage(kind, flags int, family uint8, protocol uint8) message {
	h := make([]byte, sizeofNhMsg)
	h[0], h[2] = family, protocol
	return c.message(kind, flags, h)
}

// addSegmentList makes a nexthop object that encapsulates. loopback is the index
// of lo.
func (c *conn) addSegmentList(id uint32, segments []netip.Addr, loopback int) error {
	encap, err := encodeSeg6(segments)
	if err != nil {
		return err
	}
	m := c.nexthopMessage(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, unix.AF_INET6, Protocol)
	m.u32(nhaID, id)
	m.attr(nhaEncapType, nl.Uint16Attr(encapSeg6))
	m.attr(nhaEncap|unix.NLA_F_NESTED, encap)
	m.u32(nhaOIF, uint32(loopback))
	return m.do()
}

// setGroup makes a group, or replaces its members in one step. A new group must
// not exist yet.
func (c *conn) setGroup(id uint32, members []weighted, isNew bool) error {
	flags := unix.NLM_F_CREATE | unix.NLM_F_REPLACE | unix.NLM_F_ACK
	if isNew {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_ACK
	}
	b := make([]byte, 0, sizeofNhGrp*len(members))
	for _, w := range members {
		b = binary.NativeEndian.AppendUint32(b, w.id)
		// The kernel holds the weight less one; the second byte is its high
		// part from Linux 6.12 on and must be 0 before.
		b = append(b, byte(w.weight-1), byte((w.weight-1)>>8), 0, 0)
	}
	m := c.nexthopMessage(unix.RTM_NEWNEXTHOP, flags, unix.AF_UNSPEC, Protocol)
	m.u32(nhaID, id)
	m.attr(nhaGroup, b)
	return m.do()
}

// deleteNexthop removes an object; the kernel removes the routes that still
// refer to it as well. An absent one is no error.
func (c *conn) deleteNexthop(id uint32) error {
	m := c.nexthopMessage(unix.RTM_DELNEXTHOP, unix.NLM_F_ACK, unix.AF_UNSPEC, 0)
	m.u32(nhaID, id)
	if err := m.do(); err != nil && !absent(err) {
		return fmt.Errorf("deleting nexthop %d: %w", id, err)
	}
	return nil
}

// dumpNexthops yields our nexthop objects.
func (c *conn) dumpNexthops(f func(nexthop), reset func()) error {
	return c.dump(unix.RTM_GETNEXTHOP, make([]byte, sizeofNhMsg), nil, unix.RTM_NEWNEXTHOP, reset, func(b []byte) error {
		if len(b) < sizeofNhMsg {
			return errors.New("short nexthop message from the kernel")
		}
		if n, ours := parseNexthop(b); ours {
			f(n)
		}
		return nil
	})
}

func parseNexthop(b []byte) (n nexthop, ours bool) {
	var encapType uint32
	var encap []byte
	protocol := b[2]
	for _, a := range attributes(b[sizeofNhMsg:]) {
		switch a.kind {
		case nhaID:
			n.id = a.u32()
		case nhaGroup:
			n.group = make([]weighted, 0, len(a.data)/sizeofNhGrp)
			for d := a.data; len(d) >= sizeofNhGrp; d = d[sizeofNhGrp:] {
				n.group = append(n.group, weighted{
					id:     binary.NativeEndian.Uint32(d),
					weight: (uint32(d[4]) | uint32(d[5])<<8) + 1,
				})
			}
		case nhaEncapType:
			encapType = a.u32()
		case nhaEncap:
			encap = a.data
		}
	}
	if encapType == encapSeg6 {
		n.segments, _ = decodeSeg6(encap)
	}
	return n, protocol == Protocol && n.id >= NexthopIDFirst && n.id <= NexthopIDLast
}
