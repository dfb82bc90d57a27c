package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// linux/if_addr.h
const (
	ifaProto  = 11
	ifaFlags  = 8
	ifaFNoDAD = 0x02
)

// kernelAddress is an address as the kernel says it.
type kernelAddress struct {
	index    int
	prefix   netip.Prefix
	protocol uint8
}

func (c *conn) addressMessage(kind, flags int, index int, p netip.Prefix) message {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = familyOf(p.Addr()), uint8(p.Bits())
	// A link-local IPv4 address must not become the source of traffic to
	// elsewhere (RFC 3927 §2.7).
	if p.Addr().Is4() && p.Addr().IsLinkLocalUnicast() {
		h[3] = unix.RT_SCOPE_LINK
	}
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	m := c.message(kind, flags, h)
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return m
}

// addresses yields the addresses of an interface, or of all for index 0.
func (c *conn) addresses(family uint8, index int, reset func(), f func(kernelAddress)) error {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0] = family
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return c.dump(unix.RTM_GETADDR, h, nil, unix.RTM_NEWADDR, reset, func(b []byte) error {
		a, err := parseAddress(b)
		if err == nil && (index == 0 || a.index == index) {
			f(a)
		}
		return err
	})
}

func parseAddress(b []byte) (kernelAddress, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return kernelAddress{}, errors.New("short address message from the kernel")
	}
	a := kernelAddress{index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	var local, peer netip.Addr
	for _, at := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch at.kind {
		case unix.IFA_LOCAL:
			local = at.addr()
		case unix.IFA_ADDRESS:
			peer = at.addr()
		case ifaProto:
			a.protocol = uint8(at.u32())
		}
	}
	if !local.IsValid() { // IPv6 without a peer
		local = peer
	}
	a.prefix = prefixOf(b[0], local, b[1])
	return a, nil
}

// holder is the protocol of the address on the interface.
func (t *tx) holder(index int, p netip.Prefix) (protocol uint8, found bool, err error) {
	err = t.conn.addresses(familyOf(p.Addr()), index, func() { found = false }, func(a kernelAddress) {
		if a.prefix == p {
			protocol, found = a.protocol, true
		}
	})
	return protocol, found, err
}

func (t *tx) setAddress(k dataplane.AddressKey) error {
	if !k.Prefix.IsValid() || k.Prefix.Addr().Is4In6() {
		return fmt.Errorf("address %s is not valid", k.Prefix)
	}
	l, err := t.links.need(k.Interface)
	if err != nil {
		return err
	}
	m := t.conn.addressMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, l.index, k.Prefix)
	m.attr(ifaProto, []byte{Protocol})
	if k.Prefix.Addr().Is6() {
		m.u32(ifaFlags, ifaFNoDAD)
	}
	err = m.do()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	protocol, found, err := t.holder(l.index, k.Prefix)
	switch {
	case err != nil:
		return err
	case found && protocol == Protocol:
		return nil
	}
	return fmt.Errorf("address %s on %q is the host's: %w", k.Prefix, k.Interface, ErrConflict)
}

func (t *tx) deleteAddress(k dataplane.AddressKey) error {
	l := t.links.byName[k.Interface]
	if l == nil || !k.Prefix.IsValid() {
		return nil
	}
	protocol, found, err := t.holder(l.index, k.Prefix)
	if err != nil || !found || protocol != Protocol {
		return err
	}
	err = t.conn.addressMessage(unix.RTM_DELADDR, unix.NLM_F_ACK, l.index, k.Prefix).do()
	if absent(err) {
		return nil
	}
	return err
}

// readAddresses adds our addresses.
func (b *Backend) readAddresses(s dataplane.State, links *linkTable) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := b.conn.addresses(family, 0, nil, func(a kernelAddress) {
			if a.protocol == Protocol {
				s.Addresses[dataplane.AddressKey{Interface: links.nameOf(a.index), Prefix: a.prefix}] = dataplane.Address{}
			}
		})
		if err != nil {
			return fmt.Errorf("reading addresses: %w", err)
		}
	}
	return nil
}
