package binapi

import (
	"net/netip"

	"go.fd.io/govpp/binapi/ethernet_types"
	"go.fd.io/govpp/binapi/ip_types"
)

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) api() ethernet_types.MacAddress { return ethernet_types.MacAddress(m) }

// apiAddr writes an address in VPP's form. IPv4-mapped IPv6 addresses are
// IPv4's; a zone is dropped: VPP takes it from the interface.
func apiAddr(a netip.Addr) ip_types.Address {
	a = a.Unmap()
	if a.Is4() {
		return ip_types.Address{Af: ip_types.ADDRESS_IP4, Un: ip_types.AddressUnionIP4(a.As4())}
	}
	return ip_types.Address{Af: ip_types.ADDRESS_IP6, Un: ip_types.AddressUnionIP6(apiAddr6(a))}
}

// apiAddr6 writes an IPv6 address; the zero Addr gives ::.
func apiAddr6(a netip.Addr) ip_types.IP6Address {
	if !a.IsValid() {
		return ip_types.IP6Address{}
	}
	return ip_types.IP6Address(a.As16())
}

func goAddr(a ip_types.Address) netip.Addr { return goUnion(a.Un, a.Af) }

func goUnion(u ip_types.AddressUnion, af ip_types.AddressFamily) netip.Addr {
	if af == ip_types.ADDRESS_IP4 {
		return netip.AddrFrom4(u.GetIP4())
	}
	return netip.AddrFrom16(u.GetIP6())
}

func goAddr6(a ip_types.IP6Address) netip.Addr { return netip.AddrFrom16(a) }

// apiPrefix writes a prefix with the bits beyond its length cleared, as VPP
// wants it: some of its tables take the bits as they come and never match.
func apiPrefix(p netip.Prefix) ip_types.Prefix {
	p = p.Masked()
	return ip_types.Prefix{Address: apiAddr(p.Addr()), Len: uint8(p.Bits())}
}

func goPrefix(p ip_types.Prefix) netip.Prefix {
	return netip.PrefixFrom(goAddr(p.Address), int(p.Len))
}

// apiAddrPrefix writes an interface's address with its prefix length.
func apiAddrPrefix(p netip.Prefix) ip_types.AddressWithPrefix {
	return ip_types.AddressWithPrefix{Address: apiAddr(p.Addr()), Len: uint8(p.Bits())}
}

func goAddrPrefix(p ip_types.AddressWithPrefix) netip.Prefix {
	return netip.PrefixFrom(goAddr(p.Address), int(p.Len))
}

// goFamilyPrefix reads a prefix whose family is known from elsewhere: VPP
// guesses the family of some addresses from their bits, and takes an IPv6
// address that begins with 96 zero bits (the default route's) for IPv4.
func goFamilyPrefix(p ip_types.Prefix, is6 bool) netip.Prefix {
	if is6 && p.Address.Af == ip_types.ADDRESS_IP4 {
		var b [16]byte
		v4 := p.Address.Un.GetIP4()
		copy(b[12:], v4[:])
		return netip.PrefixFrom(netip.AddrFrom16(b), int(p.Len))
	}
	return goPrefix(p)
}

func family(is6 bool) ip_types.AddressFamily {
	if is6 {
		return ip_types.ADDRESS_IP6
	}
	return ip_types.ADDRESS_IP4
}
