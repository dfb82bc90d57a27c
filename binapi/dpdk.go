package binapi

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"

	interfaces "go.fd.io/govpp/binapi/interface"
)

// DevTypeDPDK is VPP's name of the driver of NICs that DPDK drives.
const DevTypeDPDK = "dpdk"

// Wire is a NIC that VPP has, joined with the host's veth as if VPP were not
// there: the host's frames pass as they are.
type Wire struct {
	// NIC is VPP's name of the NIC's interface.
	NIC string
	// HostLink is VPP's end of the host's veth.
	HostLink string
	// MTU in bytes that the NIC must take, without the Ethernet header. Up to
	// 1500 it does as it is.
	MTU int
}

// wireTag marks the bridge domain of a wire.
func (w Wire) tag() string { return "sidewinder:wire:" + w.HostLink }

// hostMAC is the address of VPP's interface on the veth: nobody speaks to it.
func (w Wire) hostMAC() MAC {
	h := fnv.New32a()
	h.Write([]byte(w.HostLink))
	return MAC(binary.BigEndian.AppendUint32([]byte{2, 0xfe}, h.Sum32()))
}

// firstWire is the lowest number of a wire's bridge domain.
const firstWire = 8300

// WireState is what VPP has of a wire.
type WireState struct {
	// NIC and Host are the interfaces; an Index of NoInterface: not there.
	NIC, Host Interface
	// Bridge that joins them; nil: none.
	Bridge *Bridge
}

// Whole: frames pass.
func (s WireState) Whole() bool {
	return s.Bridge != nil && !s.Bridge.Learn && len(s.Bridge.Members) == 2 && s.NIC.AdminUp && s.Host.AdminUp &&
		slices.Contains(s.Bridge.Members, s.NIC.Index) && slices.Contains(s.Bridge.Members, s.Host.Index)
}

// State finds a wire in what VPP told.
func (w Wire) State(interfaces []Interface, bridges []Bridge) WireState {
	s := WireState{NIC: Interface{Index: NoInterface}, Host: Interface{Index: NoInterface}}
	for _, i := range interfaces {
		switch i.Name {
		case w.NIC:
			s.NIC = i
		case "host-" + w.HostLink:
			s.Host = i
		}
	}
	for _, b := range bridges {
		if b.Tag == w.tag() {
			s.Bridge = &b
		}
	}
	return s
}

// EnsureWire makes a wire, as far as it is not there. Its error wraps
// ErrDisconnected when the connection is lost.
func EnsureWire(ctx context.Context, c *Conn, w Wire) (WireState, error) {
	var interfaces []Interface
	var bridges []Bridge
	if err := each(ctx, c, Interfaces(&interfaces), Bridges(&bridges)); err != nil {
		return WireState{}, err
	}
	s := w.State(interfaces, bridges)
	if s.NIC.Index == NoInterface {
		return s, fmt.Errorf("VPP has no interface %s: its log tells why the device was not taken", w.NIC)
	}
	if s.Whole() {
		return s, nil
	}
	if s.Host.Index == NoInterface {
		if err := each(ctx, c, AFPacketCreate(AFPacket{Link: w.HostLink, MAC: w.hostMAC()}, &s.Host.Index)); err != nil {
			return s, err
		}
	}
	if s.Bridge == nil {
		id := uint32(firstWire)
		for slices.ContainsFunc(bridges, func(b Bridge) bool { return b.ID == id }) {
			id++
		}
		if err := each(ctx, c, BridgeAddWire(id, w.tag())); err != nil {
			return s, err
		}
		s.Bridge = &Bridge{ID: id, Tag: w.tag()}
	}
	if w.MTU > 1500 && !s.NIC.AdminUp {
		if err := each(ctx, c, InterfaceSetHardwareMTU(s.NIC.Index, uint16(w.MTU))); err != nil {
			return s, fmt.Errorf("%s: MTU %d: %w", w.NIC, w.MTU, err)
		}
	}
	if err := each(ctx, c,
		InterfaceSetBridge(s.NIC.Index, s.Bridge.ID, true), InterfaceSetBridge(s.Host.Index, s.Bridge.ID, true),
		InterfaceSetUp(s.Host.Index, true), InterfaceSetUp(s.NIC.Index, true),
	); err != nil {
		return s, err
	}
	s.Bridge.Members = []Index{s.NIC.Index, s.Host.Index}
	s.NIC.AdminUp, s.Host.AdminUp = true, true
	return s, nil
}

// InterfaceSetHardwareMTU sets what the device itself takes, in bytes without
// the Ethernet header. Most devices must be down for it.
func InterfaceSetHardwareMTU(i Index, mtu uint16) *Call {
	req := &interfaces.HwInterfaceSetMtu{SwIfIndex: i.api(), Mtu: mtu}
	return newCall(i.String(), req, func(r *interfaces.HwInterfaceSetMtuReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// each runs calls of which every one is needed.
func each(ctx context.Context, c *Conn, calls ...*Call) error {
	if err := c.Do(ctx, calls...); err != nil {
		return err
	}
	for _, call := range calls {
		if call.Err != nil {
			return call.Err
		}
	}
	return nil
}
