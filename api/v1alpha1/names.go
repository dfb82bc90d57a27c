package v1alpha1

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The F3216 layout of SIDs (RFC 9800 §4.1): a 32-bit block shared by the
// cluster, 16 bits for the node, 16 for the function.
const (
	BlockBits   = 32
	LocatorBits = 48
)

// Node IDs that a node can hold: 0 is not used, and 0xE000 and above is the
// range of local C-SIDs, the functions (RFC 9800 §7.2, LIB).
const (
	MinNodeID uint16 = 0x0001
	MaxNodeID uint16 = 0xDFFF
)

// Locator is the locator of a node ID in a block. The block is a /32 and the ID
// between MinNodeID and MaxNodeID; anything else gives an invalid prefix.
func Locator(block netip.Prefix, id uint16) netip.Prefix {
	if !block.IsValid() || !block.Addr().Is6() || block.Bits() != BlockBits || id < MinNodeID || id > MaxNodeID {
		return netip.Prefix{}
	}
	b := block.Masked().Addr().As16()
	binary.BigEndian.PutUint16(b[4:], id)
	return netip.PrefixFrom(netip.AddrFrom16(b), LocatorBits)
}

// NodeID is the node ID of a locator, a /48.
func NodeID(locator netip.Prefix) uint16 {
	b := locator.Addr().As16()
	return binary.BigEndian.Uint16(b[4:])
}

// LocatorName is the name of the SRv6Locator for a locator, a /48: its three
// groups in full, so that equal locators have equal names: fcbb-bb00-0001. It
// is a DNS-1123 label. Anything but an IPv6 /48 gives the empty string.
func LocatorName(locator netip.Prefix) string {
	if !locator.IsValid() || !locator.Addr().Is6() || locator.Bits() != LocatorBits {
		return ""
	}
	b := locator.Addr().As16()
	return fmt.Sprintf("%02x%02x-%02x%02x-%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// ParseLocatorName is LocatorName backwards.
func ParseLocatorName(name string) (netip.Prefix, error) {
	groups := strings.Split(name, "-")
	if len(groups) != LocatorBits/16 {
		return netip.Prefix{}, fmt.Errorf("%q is not a locator's name: want three groups of four hexadecimal digits, like fcbb-bb00-0001", name)
	}
	var b [16]byte
	for i, g := range groups {
		v, err := strconv.ParseUint(g, 16, 16)
		if err != nil || len(g) != 4 || strings.ToLower(g) != g {
			return netip.Prefix{}, fmt.Errorf("%q is not a locator's name: %q is not four lower case hexadecimal digits", name, g)
		}
		binary.BigEndian.PutUint16(b[2*i:], uint16(v))
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), LocatorBits), nil
}
