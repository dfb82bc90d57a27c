package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linux/lwtunnel.h, linux/seg6_iptunnel.h, linux/seg6_local.h, linux/nexthop.h
const (
	encapSeg6      = 5
	encapSeg6Local = 7

	seg6SRH         = 1
	seg6EncapRed    = 3
	localAction     = 1
	localNH4        = 4
	localNH6        = 5
	localFlavors    = 11
	actionEnd       = 1
	actionDX6       = 5
	actionDX4       = 6
	flavorOperation = 1
	flavorBlock     = 2
	flavorNode      = 3
	nextCSID        = 1 << 4

	nexthopID        = 1
	nexthopGroup     = 2
	nexthopLink      = 5
	nexthopEncapType = 7
	nexthopEncap     = 8
)

// errIgnored: the kernel took a route and left out the part it does not know.
var errIgnored = errors.New("the kernel ignores it")

// seg6Tries are the features of SRv6, each tried with a link's index.
func seg6Tries() map[Feature]func(index int) error {
	return map[Feature]func(int) error{
		FeatureEncap: func(index int) error {
			return tryRoute("2001:db8:1::", encapSeg6, reduced("2001:db8::1"), seg6SRH, index)
		},
		FeatureNexthop: tryNexthop,
		FeatureDX6: func(index int) error {
			encap := append(join32(localAction, actionDX6), nl.NewRtAttr(localNH6, make([]byte, 16)).Serialize()...)
			return tryRoute("2001:db8:2::", encapSeg6Local, encap, localNH6, index)
		},
		FeatureDX4: func(index int) error {
			encap := append(nl.NewRtAttr(localAction, nl.Uint32Attr(actionDX4)).Serialize(), nl.NewRtAttr(localNH4, make([]byte, 4)).Serialize()...)
			return tryRoute("2001:db8:3::", encapSeg6Local, encap, localNH4, index)
		},
		FeatureUN: func(index int) error {
			flavors := nl.NewRtAttr(localFlavors|unix.NLA_F_NESTED, nil)
			flavors.AddRtAttr(flavorOperation, nl.Uint32Attr(nextCSID))
			flavors.AddRtAttr(flavorBlock, []byte{32})
			flavors.AddRtAttr(flavorNode, []byte{16})
			encap := append(nl.NewRtAttr(localAction, nl.Uint32Attr(actionEnd)).Serialize(), flavors.Serialize()...)
			return tryRoute("2001:db8:4::", encapSeg6Local, encap, localFlavors, index)
		},
	}
}

// join32 makes attributes of pairs of a type and a number.
func join32(pairs ...uint32) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		b = append(b, nl.NewRtAttr(int(pairs[i]), nl.Uint32Attr(pairs[i+1])).Serialize()...)
	}
	return b
}

// reduced is the encapsulation H.Encaps.Red with one segment.
func reduced(segment string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, seg6EncapRed)
	b = append(b, 0, 2, 4, 0, 0, 0, 0, 0) // SRH: length 2, type 4, no segment left
	a := netip.MustParseAddr(segment).As16()
	return nl.NewRtAttr(seg6SRH, append(b, a[:]...)).Serialize()
}

// tryRoute makes a route of 128 bits with an encapsulation and reads it back:
// kernels ignore attributes of an encapsulation that they do not know. mark is
// the attribute that must be there again.
func tryRoute(destination string, kind uint16, encap []byte, mark uint16, index int) error {
	addr := netip.MustParseAddr(destination).As16()
	req := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = unix.AF_INET6, 128
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, addr[:]))
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	req.AddData(nl.NewRtAttr(unix.RTA_ENCAP_TYPE, nl.Uint16Attr(kind)))
	req.AddData(nl.NewRtAttr(unix.RTA_ENCAP|unix.NLA_F_NESTED, encap))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("making a route: %w", err)
	}
	read := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	read.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET6}})
	routes, err := read.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return fmt.Errorf("reading routes: %w", err)
	}
	for _, r := range routes {
		if len(r) < unix.SizeofRtMsg {
			continue
		}
		attrs := attributes(r[unix.SizeofRtMsg:])
		if string(attrs[unix.RTA_DST]) != string(addr[:]) {
			continue
		}
		if _, found := attributes(attrs[unix.RTA_ENCAP])[mark]; !found {
			return errIgnored
		}
		return nil
	}
	return errors.New("a route that was made is not there")
}

// attributes splits a run of netlink attributes, by type.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofRtAttr:n]
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

// tryNexthop makes a nexthop object with an encapsulation, and a group of it:
// what the kernel's half keeps an SR policy in.
func tryNexthop(index int) error {
	const object, group = 1, 2
	member := make([]byte, 8)
	binary.NativeEndian.PutUint32(member, object)
	encap := nl.NewRtAttr(nexthopEncap|unix.NLA_F_NESTED, reduced("2001:db8::1"))
	for _, m := range []struct {
		family byte
		attrs  []*nl.RtAttr
	}{
		{unix.AF_INET6, []*nl.RtAttr{
			nl.NewRtAttr(nexthopID, nl.Uint32Attr(object)),
			nl.NewRtAttr(nexthopEncapType, nl.Uint16Attr(encapSeg6)), encap,
			nl.NewRtAttr(nexthopLink, nl.Uint32Attr(uint32(index))),
		}},
		{unix.AF_UNSPEC, []*nl.RtAttr{nl.NewRtAttr(nexthopID, nl.Uint32Attr(group)), nl.NewRtAttr(nexthopGroup, member)}},
	} {
		req := nl.NewNetlinkRequest(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		header := make([]byte, 8)
		header[0], header[2] = m.family, unix.RTPROT_STATIC
		req.AddRawData(header)
		for _, a := range m.attrs {
			req.AddRawData(a.Serialize())
		}
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("making a nexthop object: %w", err)
		}
	}
	return nil
}
