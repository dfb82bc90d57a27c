package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// linux/neighbour.h
const (
	sizeofNdMsg = 12
	ndaProtocol = 12
)

// kernelNeighbour is an entry of the ARP or neighbour discovery table.
type kernelNeighbour struct {
	index    int
	ip       netip.Addr
	mac      dataplane.MAC
	state    uint16
	protocol uint8
}

func (c *conn) neighbourMessage(kind, flags, index int, ip netip.Addr, state uint16) message {
	h := make([]byte, sizeofNdMsg)
	h[0] = familyOf(ip)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint16(h[8:], state)
	m := c.message(kind, flags, h)
	m.attr(unix.NDA_DST, ip.AsSlice())
	return m
}

func parseNeighbour(b []byte) (kernelNeighbour, error) {
	if len(b) < sizeofNdMsg {
		return kernelNeighbour{}, errors.New("short neighbour message from the kernel")
	}
	n := kernelNeighbour{
		index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		state: binary.NativeEndian.Uint16(b[8:]),
	}
	for _, a := range attributes(b[sizeofNdMsg:]) {
		switch a.kind {
		case unix.NDA_DST:
			n.ip = a.addr()
		case unix.NDA_LLADDR:
			if len(a.data) == len(n.mac) {
				n.mac = dataplane.MAC(a.data)
			}
		case ndaProtocol:
			n.protocol = uint8(a.u32())
		}
	}
	return n, nil
}

// neighbour reads one entry; false when there is none.
func (c *conn) neighbour(index int, ip netip.Addr) (n kernelNeighbour, found bool, err error) {
	m := c.neighbourMessage(unix.RTM_GETNEIGH, 0, index, ip, 0)
	out, err := m.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err = meaning(err); absent(err) {
		return n, false, nil
	}
	if err != nil || len(out) == 0 {
		return n, false, err
	}
	n, err = parseNeighbour(out[0])
	return n, err == nil, err
}

func (t *tx) setNeighbour(k dataplane.NeighbourKey, v dataplane.Neighbour) error {
	l, err := t.links.need(k.Interface)
	if err != nil {
		return err
	}
	if !k.IP.IsValid() || v.MAC.IsZero() {
		return fmt.Errorf("neighbour %q at %s: address and MAC are needed", k.IP, v.MAC)
	}
	ip := k.IP.WithZone("")
	is, found, err := t.conn.neighbour(l.index, ip)
	if err != nil {
		return err
	}
	// What the kernel learned by itself may be replaced; a static entry of
	// another's may not.
	if found && is.protocol != Protocol && is.state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 {
		return fmt.Errorf("static neighbour %s on %q: %w", ip, k.Interface, ErrConflict)
	}
	return t.conn.putNeighbour(l.index, ip, v.MAC)
}

// putNeighbour makes or changes an entry of ours.
func (c *conn) putNeighbour(index int, ip netip.Addr, mac dataplane.MAC) error {
	m := c.neighbourMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, index, ip, unix.NUD_PERMANENT)
	m.attr(unix.NDA_LLADDR, mac[:])
	m.attr(ndaProtocol, []byte{Protocol})
	return m.do()
}

func (t *tx) deleteNeighbour(k dataplane.NeighbourKey) error {
	l := t.links.byName[k.Interface]
	if l == nil || !k.IP.IsValid() {
		return nil
	}
	ip := k.IP.WithZone("")
	is, found, err := t.conn.neighbour(l.index, ip)
	if err != nil || !found || is.protocol != Protocol {
		return err
	}
	err = t.conn.neighbourMessage(unix.RTM_DELNEIGH, unix.NLM_F_ACK, l.index, ip, 0).do()
	if absent(err) {
		return nil
	}
	return err
}

// neighbours yields our entries, on all interfaces.
func (c *conn) neighbours(f func(kernelNeighbour)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := make([]byte, sizeofNdMsg)
		h[0] = family
		err := c.dump(unix.RTM_GETNEIGH, h, nil, unix.RTM_NEWNEIGH, nil, func(m []byte) error {
			n, err := parseNeighbour(m)
			// An entry that is not permanent any more is as good as absent:
			// adding it again repairs it.
			if err == nil && n.protocol == Protocol && n.state&unix.NUD_PERMANENT != 0 {
				f(n)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("reading neighbours: %w", err)
		}
	}
	return nil
}

// neighboursOn is our entries on one interface.
func (t *tx) neighboursOn(index int) ([]kernelNeighbour, error) {
	var out []kernelNeighbour
	err := t.conn.neighbours(func(n kernelNeighbour) {
		if n.index == index {
			out = append(out, n)
		}
	})
	return out, err
}

// readNeighbours adds our entries.
func (b *Backend) readNeighbours(s dataplane.State, links *linkTable) error {
	return b.conn.neighbours(func(n kernelNeighbour) {
		s.Neighbours[dataplane.NeighbourKey{Interface: links.nameOf(n.index), IP: n.ip}] = dataplane.Neighbour{MAC: n.mac}
	})
}
