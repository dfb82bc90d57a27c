package binapi

import (
	"fmt"
	"net/netip"

	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip6_nd"
)

// Index is VPP's number of an interface (sw_if_index). It is good as long as
// the interface is; another may get it afterwards.
type Index uint32

// NoInterface stands for none, or for all.
const NoInterface = ^Index(0)

func (i Index) api() interface_types.InterfaceIndex { return interface_types.InterfaceIndex(i) }
func (i Index) String() string                      { return fmt.Sprintf("sw_if_index %d", uint32(i)) }

// Interface is what VPP tells of an interface.
type Interface struct {
	Index Index
	// Name in VPP, such as "host-eth0" or "eth0/0".
	Name string
	// DevType is the driver, such as "af-packet".
	DevType string
	Tag     string
	MAC     MAC
	// MTU is the largest IP packet in bytes (VPP's "L3" MTU).
	MTU     uint32
	AdminUp bool
}

// Interfaces dumps all interfaces.
func Interfaces(out *[]Interface) *Call {
	return newDump(&interfaces.SwInterfaceDump{SwIfIndex: NoInterface.api()}, func(d *interfaces.SwInterfaceDetails) {
		i := Interface{
			Index: Index(d.SwIfIndex), Name: d.InterfaceName, DevType: d.InterfaceDevType, Tag: d.Tag,
			MAC: MAC(d.L2Address), AdminUp: d.Flags&interface_types.IF_STATUS_API_FLAG_ADMIN_UP != 0,
		}
		if len(d.Mtu) > 0 {
			i.MTU = d.Mtu[0]
		}
		*out = append(*out, i)
	})
}

// InterfaceSetTag writes an interface's tag, at most 63 bytes.
func InterfaceSetTag(i Index, tag string) *Call {
	req := &interfaces.SwInterfaceTagAddDel{IsAdd: true, SwIfIndex: i.api(), Tag: tag}
	return newCall(i.String()+" "+tag, req, func(r *interfaces.SwInterfaceTagAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSetUp sets an interface administratively up or down.
func InterfaceSetUp(i Index, up bool) *Call {
	req := &interfaces.SwInterfaceSetFlags{SwIfIndex: i.api()}
	if up {
		req.Flags = interface_types.IF_STATUS_API_FLAG_ADMIN_UP
	}
	return newCall(i.String(), req, func(r *interfaces.SwInterfaceSetFlagsReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSetMTU sets the largest IP packet, in bytes, that is sent on the
// interface. It does not touch the device behind it.
func InterfaceSetMTU(i Index, mtu uint32) *Call {
	// The first is the default for all network protocols; 0 for the others
	// means to follow it.
	req := &interfaces.SwInterfaceSetMtu{SwIfIndex: i.api(), Mtu: []uint32{mtu, 0, 0, 0}}
	return newCall(i.String(), req, func(r *interfaces.SwInterfaceSetMtuReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSetMAC sets an interface's address. VPP's af_packet sets that of
// the kernel's link as well.
func InterfaceSetMAC(i Index, m MAC) *Call {
	req := &interfaces.SwInterfaceSetMacAddress{SwIfIndex: i.api(), MacAddress: m.api()}
	return newCall(i.String(), req, func(r *interfaces.SwInterfaceSetMacAddressReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSetUnnumbered lets interface i use the addresses of owner, which
// turns on IPv4 on it; NoInterface as owner ends that.
func InterfaceSetUnnumbered(i, owner Index) *Call {
	req := &interfaces.SwInterfaceSetUnnumbered{SwIfIndex: owner.api(), UnnumberedSwIfIndex: i.api(), IsAdd: owner != NoInterface}
	return newCall(i.String(), req, func(r *interfaces.SwInterfaceSetUnnumberedReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceEnableIP6 turns on IPv6 with a link-local address made from the
// interface's MAC.
func InterfaceEnableIP6(i Index) *Call { return enableIP6(i, true) }

// InterfaceDisableIP6 turns it off.
func InterfaceDisableIP6(i Index) *Call { return enableIP6(i, false) }

func enableIP6(i Index, on bool) *Call {
	req := &ip.SwInterfaceIP6EnableDisable{SwIfIndex: i.api(), Enable: on}
	return newCall(i.String(), req, func(r *ip.SwInterfaceIP6EnableDisableReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSuppressRA keeps VPP from sending router advertisements (RFC 4861
// §6.2) on the interface. IPv6 must be on.
func InterfaceSuppressRA(i Index) *Call {
	req := &ip6_nd.SwInterfaceIP6ndRaConfig{SwIfIndex: i.api(), Suppress: 1}
	return newCall(i.String(), req, func(r *ip6_nd.SwInterfaceIP6ndRaConfigReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// RetvalValueExists: what is asked for is there already. InterfaceEnableIP6
// answers so.
const RetvalValueExists = int32(api.VALUE_EXIST)

// RetvalAddressAbsent answers InterfaceDelAddress: the interface has no such
// address.
const RetvalAddressAbsent = int32(api.ADDRESS_NOT_FOUND_FOR_INTERFACE)

// InterfaceAddAddress gives an interface an address.
func InterfaceAddAddress(i Index, p netip.Prefix) *Call { return address(i, p, true) }

// InterfaceDelAddress takes an address off an interface.
func InterfaceDelAddress(i Index, p netip.Prefix) *Call { return address(i, p, false) }

func address(i Index, p netip.Prefix, add bool) *Call {
	req := &interfaces.SwInterfaceAddDelAddress{SwIfIndex: i.api(), IsAdd: add, Prefix: apiAddrPrefix(p)}
	return newCall(i.String()+" "+p.String(), req, func(r *interfaces.SwInterfaceAddDelAddressReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceAddresses dumps the addresses of one interface and family.
func InterfaceAddresses(i Index, is6 bool, out *[]netip.Prefix) *Call {
	return newDump(&ip.IPAddressDump{SwIfIndex: i.api(), IsIPv6: is6}, func(d *ip.IPAddressDetails) {
		*out = append(*out, goAddrPrefix(d.Prefix))
	})
}

// LoopbackCreate makes the loopback interface "loop<instance>", with an instance
// up to MaxLoopback. VPP refuses one that is there.
func LoopbackCreate(instance uint32, out *Index) *Call {
	req := &interfaces.CreateLoopbackInstance{IsSpecified: true, UserInstance: instance}
	return newCall(LoopbackName(instance), req, func(r *interfaces.CreateLoopbackInstanceReply) error {
		*out = Index(r.SwIfIndex)
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// MaxLoopback is the highest number of a loopback interface.
const MaxLoopback = 16*1024 - 1

// LoopbackName is VPP's name of a loopback interface.
func LoopbackName(instance uint32) string { return fmt.Sprintf("loop%d", instance) }

// LoopbackDelete removes a loopback interface.
func LoopbackDelete(i Index) *Call {
	req := &interfaces.DeleteLoopback{SwIfIndex: i.api()}
	return newCall(i.String(), req, func(r *interfaces.DeleteLoopbackReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
