package conformance

import (
	"net/netip"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Sample is a state with every kind of object in it.
func (b *Bench) Sample() dataplane.State {
	s := dataplane.New()
	s.Settings[dataplane.SettingEncapSource] = "fd53:77::1"
	s.Settings[dataplane.SettingEncapHopLimit] = "63"
	s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	s.Settings[dataplane.SettingFlowHash] = dataplane.FlowHashWithLabel
	s.Interfaces[dataplane.InterfaceKey(b.Uplink)] = dataplane.Interface{Role: dataplane.RoleUplink}
	s.Addresses[dataplane.AddressKey{Interface: "lo", Prefix: pfx("169.254.1.1/32")}] = dataplane.Address{}
	for i, name := range b.Pods[:2] {
		s.Interfaces[dataplane.InterfaceKey(name)] = dataplane.Interface{
			Role: dataplane.RolePod, MTU: 1460, MAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee},
		}
		for _, ip := range []netip.Addr{nth("10.244.1.0", 10+i), nth("fd10:244:1::", 10+i)} {
			s.Neighbours[dataplane.NeighbourKey{Interface: name, IP: ip}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 0, byte(i + 1)}}
			s.Routes[dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())}] = dataplane.Route{
				NextHops: []dataplane.NextHop{{Interface: name, Weight: 1}},
			}
		}
	}
	s.Neighbours[dataplane.NeighbourKey{Interface: b.Uplink, IP: b.Gateway}] = dataplane.Neighbour{MAC: dataplane.MAC{2, 0, 0, 0, 1, 1}}
	s.Routes[dataplane.RouteKey{Prefix: pfx("10.244.9.0/24")}] = dataplane.Route{}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: Locator}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e004::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e006::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6}
	s.LocalSIDs[dataplane.LocalSIDKey{SID: pfx("fcbb:bb00:1:e000::/128")}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}
	for node := 2; node <= 4; node++ {
		b.addRemote(s, node, node)
	}
	return s
}

// addRemote adds what a remote node needs, with node as its ID and via as the
// node whose SIDs its policies lead to.
func (b *Bench) addRemote(s dataplane.State, node, via int) {
	s.Routes[dataplane.RouteKey{Prefix: remoteLocator(node)}] = dataplane.Route{
		NextHops: []dataplane.NextHop{{Interface: b.Uplink, Gateway: b.Gateway, Weight: 1}},
	}
	for _, f := range []struct {
		fn     byte
		prefix netip.Prefix
	}{
		{4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), 0}), 24)},
		{6, netip.PrefixFrom(nth6("fd10:244::", 5, node), 64)},
	} {
		bsid := BSID(node, f.fn)
		s.Policies[dataplane.PolicyKey{BSID: bsid}] = dataplane.Policy{
			SegmentLists: []dataplane.SegmentList{{Segments: []netip.Addr{dtSID(via, f.fn)}, Weight: 1}},
		}
		s.Steerings[dataplane.SteeringKey{Prefix: f.prefix}] = dataplane.Steering{BSID: bsid}
	}
}

// BSID is the binding SID of the policy to a node and family (4 or 6) in Sample.
func BSID(node int, family byte) netip.Addr {
	a := Locator.Addr().As16()
	a[6], a[7], a[9], a[15] = 0xeb, 0x51, byte(node), family
	return netip.AddrFrom16(a)
}

func remoteLocator(node int) netip.Prefix {
	return netip.PrefixFrom(nth6("fcbb:bb00::", 5, node), 48)
}

func dtSID(node int, fn byte) netip.Addr {
	a := remoteLocator(node).Addr().As16()
	a[6], a[7] = 0xe0, fn
	return netip.AddrFrom16(a)
}

func lists(l ...dataplane.SegmentList) dataplane.Policy {
	dataplane.SortSegmentLists(l)
	return dataplane.Policy{SegmentLists: l}
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// nth is the address n after base, n below 256.
func nth(base string, n int) netip.Addr {
	b := netip.MustParseAddr(base).AsSlice()
	b[len(b)-1] += byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// nth6 is base with one byte set.
func nth6(base string, at, n int) netip.Addr {
	a := netip.MustParseAddr(base).As16()
	a[at] = byte(n)
	return netip.AddrFrom16(a)
}
