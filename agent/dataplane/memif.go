package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RoleMemif is a shared-memory interface (memif) of a pod beside its veth. Only
// a userspace dataplane has it. Its key is MemifKey of the veth's host end.
const RoleMemif InterfaceRole = "memif"

// Memif is what an interface of RoleMemif has besides; zero for the others. All
// of it is text or a number, so that an Interface stays comparable.
type Memif struct {
	// Netns is the path of the pod's network namespace, in which the
	// dataplane listens.
	Netns string
	// Socket is the name of the abstract unix socket, without the leading
	// zero byte that some write as "@".
	Socket string
	// L3: IP packets without an Ethernet header.
	L3 bool
	// PeerMAC is the pod's own address on the interface; zero with L3.
	PeerMAC MAC
	// IPs are the pod's addresses, as FormatIPs writes them.
	IPs string
	// Ports are the destination ports that go here and not to Veth, as
	// FormatPorts writes them.
	Ports string
	// Veth is the host's end of the pod's veth.
	Veth string
}

// MemifKey is the key of the memif beside a pod's veth.
func MemifKey(veth string) InterfaceKey { return InterfaceKey(veth + "-m") }

func (m Memif) String() string {
	mode := "ethernet"
	if m.L3 {
		mode = "ip"
	}
	return fmt.Sprintf("memif %s @%s in %s peer %s: %s to %s, else %s", mode, m.Socket, m.Netns, m.PeerMAC, m.Ports, m.IPs, m.Veth)
}

// Protocol is a transport protocol with ports, by its IANA number.
type Protocol uint8

// The protocols.
const (
	ProtocolTCP Protocol = 6
	ProtocolUDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case ProtocolTCP:
		return "tcp"
	case ProtocolUDP:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

// PortRange is a range of destination ports, both ends included.
type PortRange struct {
	Protocol    Protocol
	First, Last uint16
}

func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprintf("%s:%d", r.Protocol, r.First)
	}
	return fmt.Sprintf("%s:%d-%d", r.Protocol, r.First, r.Last)
}

// MergePorts sorts ranges and joins those that meet or overlap.
func MergePorts(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int {
		if a.Protocol != b.Protocol {
			return int(a.Protocol) - int(b.Protocol)
		}
		return int(a.First) - int(b.First)
	})
	var out []PortRange
	for _, r := range sorted {
		if n := len(out); n > 0 && out[n-1].Protocol == r.Protocol && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// FormatPorts writes ranges as "tcp:4444-20000,udp:5000", merged and sorted.
func FormatPorts(ranges []PortRange) string {
	parts := make([]string, 0, len(ranges))
	for _, r := range MergePorts(ranges) {
		parts = append(parts, r.String())
	}
	return strings.Join(parts, ",")
}

// ParsePorts reads what FormatPorts wrote, and the like in any order, with
// spaces around commas.
func ParsePorts(s string) ([]PortRange, error) {
	var out []PortRange
	for part := range strings.SplitSeq(s, ",") {
		r, err := parsePortRange(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return MergePorts(out), nil
}

func parsePortRange(s string) (PortRange, error) {
	protocol, ports, ok := strings.Cut(s, ":")
	if !ok {
		return PortRange{}, fmt.Errorf("%.64q is not a protocol and a port, such as tcp:4444 or udp:5000-5010", s)
	}
	var r PortRange
	switch protocol {
	case "tcp":
		r.Protocol = ProtocolTCP
	case "udp":
		r.Protocol = ProtocolUDP
	default:
		return PortRange{}, fmt.Errorf("%.64q: protocol %.32q is neither tcp nor udp", s, protocol)
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	var err error
	if r.First, err = parsePort(first); err == nil {
		r.Last, err = parsePort(last)
	}
	if err != nil {
		return PortRange{}, fmt.Errorf("%.64q: %w", s, err)
	}
	if r.First > r.Last {
		return PortRange{}, fmt.Errorf("%.64q: the range ends before it begins", s)
	}
	return r, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("port %.32q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

// FormatIPs writes addresses sorted and without duplicates, with commas.
func FormatIPs(ips []netip.Addr) string {
	ips = slices.Clone(ips)
	slices.SortFunc(ips, netip.Addr.Compare)
	parts := make([]string, 0, len(ips))
	for _, ip := range slices.Compact(ips) {
		parts = append(parts, ip.String())
	}
	return strings.Join(parts, ",")
}

// ParseIPs reads what FormatIPs wrote.
func ParseIPs(s string) ([]netip.Addr, error) {
	if s == "" {
		return nil, nil
	}
	var out []netip.Addr
	for part := range strings.SplitSeq(s, ",") {
		ip, err := netip.ParseAddr(part)
		if err != nil {
			return nil, err
		}
		out = append(out, ip)
	}
	return out, nil
}
