package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// attribute is one netlink attribute, its flag bits removed from the type.
type attribute struct {
	kind uint16
	data []byte
}

// attributes splits a run of netlink attributes; a malformed end is dropped.
func attributes(b []byte) []attribute {
	var out []attribute
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		out = append(out, attribute{kind, b[unix.SizeofRtAttr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

// u32 is the attribute as a number, 0 when it is too short.
func (a attribute) u32() uint32 {
	switch {
	case len(a.data) >= 4:
		return binary.NativeEndian.Uint32(a.data)
	case len(a.data) >= 2:
		return uint32(binary.NativeEndian.Uint16(a.data))
	case len(a.data) == 1:
		return uint32(a.data[0])
	}
	return 0
}

// addr is the attribute as an address; the zero Addr when it is none.
func (a attribute) addr() netip.Addr {
	ip, _ := netip.AddrFromSlice(a.data)
	return ip
}

// text is the attribute as a string that may end in NUL.
func (a attribute) text() string {
	return unix.ByteSliceToString(append([]byte(nil), append(a.data, 0)...))
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// prefixOf makes a prefix of the address attribute of a route or interface
// address; without one it is the family's default prefix.
func prefixOf(family uint8, ip netip.Addr, bits uint8) netip.Prefix {
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			ip = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(ip, int(bits))
}

// checkPrefix refuses what the kernel cannot hold as a route.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("prefix %s is not valid", p)
	case p.Masked() != p:
		return fmt.Errorf("prefix %s has bits set beyond its length", p)
	case p.Addr().Is4In6():
		return fmt.Errorf("prefix %s is an IPv4-mapped one", p)
	}
	return nil
}
