package v1alpha1

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrNotCanonical: the text is an address or a prefix, but not in the one form
// that is compared and stored.
var ErrNotCanonical = errors.New("not canonical")

// ParsePrefix reads a CIDR prefix strictly: IPv4 or IPv6, no host bits set, no
// zone, not IPv4-mapped IPv6, not every address. The error quotes the text and
// says what to write instead where that is known; it matches ErrNotCanonical
// when only the form is wrong.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR prefix", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4-mapped IPv6 prefix; write it as IPv4", s)
	case p.Masked() != p:
		return netip.Prefix{}, fmt.Errorf("%q has bits set beyond its length; write %q: %w", s, p.Masked(), ErrNotCanonical)
	case p.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%q holds every address", s)
	case p.Addr().IsMulticast(), p.Addr().IsLoopback(), p.Addr().IsLinkLocalUnicast():
		return netip.Prefix{}, fmt.Errorf("%q is not a prefix of routed unicast addresses", s)
	}
	return p, nil
}

// ParseAddr reads the address of a host strictly: IPv4 or IPv6 unicast, no zone,
// not IPv4-mapped IPv6, neither loopback nor unspecified.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q has a zone, which means something on one host only", s)
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is an IPv4-mapped IPv6 address; write %q", s, a.Unmap())
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%q is not a host's unicast address", s)
	}
	return a, nil
}

// ParseLocator reads a locator: a prefix as by ParsePrefix that is an IPv6 /48
// with a node ID between MinNodeID and MaxNodeID.
func ParseLocator(s string) (netip.Prefix, error) {
	p, err := ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !p.Addr().Is6() || p.Bits() != LocatorBits {
		return netip.Prefix{}, fmt.Errorf("%q is not an IPv6 /%d (F3216)", s, LocatorBits)
	}
	if id := NodeID(p); id < MinNodeID || id > MaxNodeID {
		return netip.Prefix{}, fmt.Errorf("%q: node ID 0x%04x is not between 0x%04x and 0x%04x", s, id, MinNodeID, MaxNodeID)
	}
	return p, nil
}
