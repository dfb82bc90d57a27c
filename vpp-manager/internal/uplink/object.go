package uplink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes that the netlink library has no name for.
const (
	nhaID  = 1 // NHA_ID, linux/nexthop.h
	nhaOIF = 5 // NHA_OIF

	rtaNHID = 30 // RTA_NH_ID, linux/rtnetlink.h

	ifaCacheInfo = 6 // IFA_CACHEINFO, linux/if_addr.h
	ifaFlags     = 8 // IFA_FLAGS
)

// nhMsgLen is the size of struct nhmsg (linux/nexthop.h).
const nhMsgLen = 8

// agentProtocol is the protocol number of the agent's routes and next hops. It
// puts them back itself, as they are wanted by then.
const agentProtocol = 83

// attr is a netlink attribute.
type attr struct {
	typ   uint16
	value []byte
}

// parseAttrs reads attributes in the order that they came in.
func parseAttrs(b []byte) ([]attr, error) {
	var out []attr
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil, errors.New("a netlink attribute is cut off")
		}
		out = append(out, attr{binary.NativeEndian.Uint16(b[2:]), bytes.Clone(b[unix.SizeofRtAttr:n])})
		b = b[min(align4(n), len(b)):]
	}
	return out, nil
}

func align4(n int) int { return (n + 3) &^ 3 }

func appendAttrs(b []byte, attrs []attr) []byte {
	for _, a := range attrs {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(a.value)))
		b = binary.NativeEndian.AppendUint16(b, a.typ)
		b = append(b, a.value...)
		b = append(b, make([]byte, align4(len(a.value))-len(a.value))...)
	}
	return b
}

func value(attrs []attr, typ uint16) []byte {
	for _, a := range attrs {
		if a.typ&^unix.NLA_F_NESTED == typ {
			return a.value
		}
	}
	return nil
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func bytes32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// dump asks the kernel for all objects of a kind; header is the request's.
func dump(request, reply uint16, header []byte) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(request), unix.NLM_F_DUMP)
	req.AddRawData(header)
	return req.Execute(unix.NETLINK_ROUTE, reply)
}

// add sends an object as a new one.
func add(message uint16, flags int, raw []byte) error {
	req := nl.NewNetlinkRequest(int(message), unix.NLM_F_ACK|unix.NLM_F_CREATE|flags)
	req.AddRawData(raw)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addressesOf dumps the addresses on a link that do not come by themselves.
func addressesOf(index int) ([]Object, error) {
	msgs, err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	var out []Object
	for _, m := range msgs {
		if len(m) < unix.SizeofIfAddrmsg || int(u32(m[4:])) != index {
			continue
		}
		attrs, err := parseAttrs(m[unix.SizeofIfAddrmsg:])
		if err != nil {
			return nil, fmt.Errorf("addresses: %w", err)
		}
		flags := uint32(m[2])
		if f := value(attrs, ifaFlags); f != nil {
			flags = u32(f)
		}
		if m[0] == unix.AF_INET6 && flags&unix.IFA_F_TEMPORARY != 0 {
			continue // the kernel makes these itself from others (RFC 8981)
		}
		out = append(out, Object{addressText(m, attrs), m})
	}
	return out, nil
}

func addressText(m []byte, attrs []attr) string {
	a := value(attrs, unix.IFA_LOCAL)
	if a == nil {
		a = value(attrs, unix.IFA_ADDRESS)
	}
	return fmt.Sprintf("%s/%d", net.IP(a), m[1])
}

// readdress is the address for another link. Lifetimes have gone on since.
// False: it has expired.
func readdress(o Object, index int, age time.Duration) ([]byte, bool, error) {
	attrs, err := parseAttrs(o.Raw[unix.SizeofIfAddrmsg:])
	if err != nil {
		return nil, false, err
	}
	const forever = ^uint32(0)
	for i, a := range attrs {
		if a.typ != ifaCacheInfo || len(a.value) < 8 {
			continue
		}
		// struct ifa_cacheinfo: preferred and valid lifetime in seconds.
		for at := 0; at < 8; at += 4 {
			left := binary.NativeEndian.Uint32(a.value[at:])
			if left == forever {
				continue
			}
			gone := uint32(max(age, 0) / time.Second)
			if at == 4 && left <= gone {
				return nil, false, nil
			}
			binary.NativeEndian.PutUint32(attrs[i].value[at:], left-min(gone, left))
		}
	}
	head := bytes.Clone(o.Raw[:unix.SizeofIfAddrmsg])
	binary.NativeEndian.PutUint32(head[4:], uint32(index))
	return appendAttrs(head, attrs), true, nil
}

// routesOf dumps the routes over a link, of all tables and families, without
// those that the kernel makes for addresses and those of the agent.
func routesOf(index int) ([]Object, error) {
	var out []Object
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		msgs, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, m := range msgs {
			if len(m) < unix.SizeofRtMsg {
				continue
			}
			attrs, err := parseAttrs(m[unix.SizeofRtMsg:])
			if err != nil {
				return nil, fmt.Errorf("routes: %w", err)
			}
			protocol, flags := m[5], u32(m[8:])
			if !slices.Contains(routeLinks(attrs), index) || flags&unix.RTM_F_CLONED != 0 ||
				protocol == unix.RTPROT_KERNEL || protocol == agentProtocol {
				continue
			}
			out = append(out, Object{routeText(m, attrs), m})
		}
	}
	return out, nil
}

// routeLinks are the links that a route leads over.
func routeLinks(attrs []attr) []int {
	var out []int
	if oif := value(attrs, unix.RTA_OIF); oif != nil {
		out = append(out, int(u32(oif)))
	}
	for b := value(attrs, unix.RTA_MULTIPATH); len(b) >= unix.SizeofRtNexthop; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		out = append(out, int(u32(b[4:])))
		b = b[min(align4(n), len(b)):]
	}
	return out
}

func routeText(m []byte, attrs []attr) string {
	var b strings.Builder
	dst := "default"
	if d := value(attrs, unix.RTA_DST); d != nil {
		if a, ok := netip.AddrFromSlice(d); ok {
			dst = netip.PrefixFrom(a, int(m[1])).String()
		}
	}
	b.WriteString(dst)
	if gw := value(attrs, unix.RTA_GATEWAY); gw != nil {
		b.WriteString(" via " + net.IP(gw).String())
	}
	table := uint32(m[4])
	if t := value(attrs, unix.RTA_TABLE); t != nil {
		table = u32(t)
	}
	b.WriteString(" table " + strconv.Itoa(int(table)))
	if p := value(attrs, unix.RTA_PRIORITY); p != nil {
		b.WriteString(" metric " + strconv.Itoa(int(u32(p))))
	}
	return b.String()
}

// unsettable are the flags of a next hop that the kernel tells and does not
// take.
const unsettable = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN | unix.RTNH_F_OFFLOAD | unix.RTNH_F_UNRESOLVED | rtnhFTrap

const rtnhFTrap = 64 // RTNH_F_TRAP, linux/rtnetlink.h

// reroute is the route with one link replaced by another. False: it has
// expired.
func reroute(o Object, from, to int, age time.Duration) ([]byte, bool, error) {
	attrs, err := parseAttrs(o.Raw[unix.SizeofRtMsg:])
	if err != nil {
		return nil, false, err
	}
	byObject := value(attrs, rtaNHID) != nil
	var out []attr
	for _, a := range attrs {
		switch a.typ &^ unix.NLA_F_NESTED {
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			if byObject {
				continue // told beside the object, and not taken beside it
			}
		case unix.RTA_OIF:
			if byObject {
				continue
			}
			if int(u32(a.value)) == from {
				a.value = bytes32(uint32(to))
			}
		case unix.RTA_MULTIPATH:
			if byObject {
				continue
			}
			for b := a.value; len(b) >= unix.SizeofRtNexthop; {
				n := int(binary.NativeEndian.Uint16(b))
				if n < unix.SizeofRtNexthop || n > len(b) {
					break
				}
				b[2] &^= unsettable
				if int(u32(b[4:])) == from {
					binary.NativeEndian.PutUint32(b[4:], uint32(to))
				}
				b = b[min(align4(n), len(b)):]
			}
		case unix.RTA_CACHEINFO:
			// struct rta_cacheinfo: the third word is the lifetime left, in
			// USER_HZ ticks (100 a second), negative once it is over. It is
			// set by another attribute than it is told by.
			if len(a.value) < 12 {
				continue
			}
			ticks := int32(u32(a.value[8:]))
			left := time.Duration(ticks)*10*time.Millisecond - max(age, 0)
			if ticks == 0 {
				continue
			}
			if left < time.Second {
				return nil, false, nil
			}
			a = attr{unix.RTA_EXPIRES, bytes32(uint32(left / time.Second))}
		}
		out = append(out, a)
	}
	head := bytes.Clone(o.Raw[:unix.SizeofRtMsg])
	binary.NativeEndian.PutUint32(head[8:], u32(head[8:])&^uint32(unsettable))
	return appendAttrs(head, out), true, nil
}

// nextHopsOf dumps the next hop objects on a link, without the agent's.
func nextHopsOf(index int) ([]Object, error) {
	msgs, err := dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, make([]byte, nhMsgLen))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // kernels before 5.3
	}
	if err != nil {
		return nil, fmt.Errorf("next hops: %w", err)
	}
	var out []Object
	for _, m := range msgs {
		if len(m) < nhMsgLen || m[2] == agentProtocol {
			continue
		}
		attrs, err := parseAttrs(m[nhMsgLen:])
		if err != nil {
			return nil, fmt.Errorf("next hops: %w", err)
		}
		if oif := value(attrs, nhaOIF); oif != nil && int(u32(oif)) == index {
			out = append(out, Object{"id " + strconv.Itoa(int(u32(value(attrs, nhaID)))), m})
		}
	}
	return out, nil
}

// rehop is the next hop on another link.
func rehop(o Object, to int) ([]byte, error) {
	attrs, err := parseAttrs(o.Raw[nhMsgLen:])
	if err != nil {
		return nil, err
	}
	for i := range attrs {
		if attrs[i].typ == nhaOIF {
			attrs[i].value = bytes32(uint32(to))
		}
	}
	head := bytes.Clone(o.Raw[:nhMsgLen])
	head[1] = 0 // nh_scope is told, and not taken
	binary.NativeEndian.PutUint32(head[4:], u32(head[4:])&^uint32(unsettable))
	return appendAttrs(head, attrs), nil
}
