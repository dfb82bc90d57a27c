package fabric

import (
	"fmt"
	"net"
	"net/netip"
)

// UplinkName is the interface of every node that faces its top-of-rack router.
const UplinkName = "uplink0"

// Interface names in the routers.
const (
	torNodePort      = "node"
	spineOutsidePort = "outside"
)

// TorName is the namespace of a node's router; nodes count from 1.
func TorName(node int) string { return fmt.Sprintf("tor%d", node) }

// SpineName is a spine's namespace.
func SpineName(path int) string { return fmt.Sprintf("spine%d", path) }

// SpinePort is the interface of every spine towards a node's ToR.
func SpinePort(node int) string { return fmt.Sprintf("tor%d", node) }

func torPort(path int) string { return fmt.Sprintf("spine%d", path) }

// NodePrefix is the underlay link of a node, a /64. The number is written in
// decimal, so that node 12 is found at fd53:77:0:12::.
func NodePrefix(node int) netip.Prefix {
	return netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd53:77:0:%d::", node)), 64)
}

// NodeAddr is a node's underlay address, and TorAddr its router's on that link.
func NodeAddr(node int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd53:77:0:%d::2", node)) }

// TorAddr is the address of a node's router on the node's link.
func TorAddr(node int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd53:77:0:%d::1", node)) }

// NodeAddr4 is a node's IPv4 address. Nothing in the underlay has one beside the
// nodes and the outside: routers send IPv4 by way of IPv6 next hops (RFC 8950
// does so in BGP).
func NodeAddr4(node int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(node)}) }

// OutsideName is the namespace of a host behind the fabric that is no node.
const OutsideName = "outside"

// OutsideAddr and OutsideAddr4 are that host's addresses.
func OutsideAddr() netip.Addr { return netip.MustParseAddr("2001:db8:53::2") }

// OutsideAddr4 is its IPv4 address.
func OutsideAddr4() netip.Addr { return netip.MustParseAddr("198.51.100.2") }

// linkAddrs are the two ends of the link between a ToR and a spine.
func linkAddrs(node, path int) (tor, spine netip.Addr) {
	net := fmt.Sprintf("fd53:77:1:%d%02d::", node, path)
	return netip.MustParseAddr(net + "1"), netip.MustParseAddr(net + "2")
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
