package linux

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// labNode is a node with one pod, as the agent would set it up.
type labNode struct {
	*space
	id   int
	pod  *space
	b    *Backend
	want dataplane.State
}

func (n *labNode) sid(function string) netip.Addr {
	return addr(fmt.Sprintf("fcbb:bb00:%d:%s::", n.id, function))
}
func (n *labNode) bsid(to *labNode, family int) netip.Addr {
	return addr(fmt.Sprintf("fcbb:bb00:%d:eb51:%d::%d", n.id, to.id, family))
}
func (n *labNode) pod4() netip.Addr { return addr(fmt.Sprintf("10.244.%d.2", n.id)) }
func (n *labNode) pod6() netip.Addr { return addr(fmt.Sprintf("fd10:244:%d::2", n.id)) }
func (n *labNode) host6() string    { return fmt.Sprintf("fd53::%d", n.id) }
func (n *labNode) host4() string    { return fmt.Sprintf("192.0.2.%d", n.id) }

var hostMAC = dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

// newPair makes two nodes joined by their uplinks, with a pod on each, and
// routes everything between them through SRv6.
func newPair(t *testing.T, uplinkMTU int) (a, b *labNode) {
	t.Helper()
	a, b = newLabNode(t, 1, uplinkMTU), newLabNode(t, 2, uplinkMTU)
	veth(t, a.space, "up0", b.space, "up0", uplinkMTU)
	for _, n := range []*labNode{a, b} {
		n.addr("up0", n.host4()+"/24")
		n.addr("up0", n.host6()+"/64")
		n.b = n.backend("up0")
	}
	ownSource(t, a.want)
	ownSource(t, b.want)
	a.remote(b)
	b.remote(a)
	reach(t, a.b, a.want)
	reach(t, b.b, b.want)
	return a, b
}

func newLabNode(t *testing.T, id, uplinkMTU int) *labNode {
	t.Helper()
	n := &labNode{space: newSpace(t), id: id, pod: newSpace(t), want: dataplane.New()}
	podMTU := uplinkMTU - ipv6Header
	veth(t, n.space, "pod0", n.pod, "eth0", podMTU)
	// The pod as the CNI plugin makes it: /32 and /128, gateway by static
	// neighbours.
	eth := n.pod.link("eth0")
	n.pod.addr("eth0", n.pod4().String()+"/32")
	n.pod.addr("eth0", n.pod6().String()+"/128")
	for gw, family := range map[string]int{"169.254.1.1": unix.AF_INET, "fe80::1": unix.AF_INET6} {
		require.NoError(t, n.pod.h.NeighSet(&netlink.Neigh{
			LinkIndex: eth.Attrs().Index, Family: family, State: unix.NUD_PERMANENT,
			IP: net.ParseIP(gw), HardwareAddr: hostMAC[:],
		}))
		n.pod.defaultVia("eth0", gw)
	}
	w := n.want
	w.Settings[dataplane.SettingEncapSource] = dataplane.Setting(n.host6())
	w.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	w.Interfaces["up0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	w.Interfaces["pod0"] = dataplane.Interface{Role: dataplane.RolePod, MTU: uint16(podMTU), MAC: hostMAC}
	w.Addresses[dataplane.AddressKey{Interface: "lo", Prefix: prefix("169.254.1.1/32")}] = dataplane.Address{}
	for _, ip := range []netip.Addr{n.pod4(), n.pod6()} {
		w.Neighbours[dataplane.NeighbourKey{Interface: "pod0", IP: ip}] = dataplane.Neighbour{MAC: dataplane.MAC(eth.Attrs().HardwareAddr)}
		w.Routes[dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())}] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: "pod0", Weight: 1}}}
		p, _ := ip.Prefix(ip.BitLen() - 8)
		w.Routes[dataplane.RouteKey{Prefix: p}] = dataplane.Route{}
	}
	for f, behaviour := range map[string]dataplane.Behaviour{"e004": dataplane.BehaviourDT4, "e006": dataplane.BehaviourDT6, "e000": dataplane.BehaviourEnd} {
		w.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(n.sid(f), 128)}] = dataplane.LocalSID{Behaviour: behaviour}
	}
	w.LocalSIDs[dataplane.LocalSIDKey{SID: prefix(fmt.Sprintf("fcbb:bb00:%d::/48", id))}] = dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}
	return n
}

// remote adds what is needed to reach another node's pods.
func (n *labNode) remote(to *labNode) {
	n.want.Routes[dataplane.RouteKey{Prefix: prefix(fmt.Sprintf("fcbb:bb00:%d::/48", to.id))}] = dataplane.Route{
		NextHops: []dataplane.NextHop{{Interface: "up0", Gateway: addr(to.host6()), Weight: 1}},
	}
	for family, f := range map[int]struct {
		function string
		ip       netip.Addr
	}{4: {"e004", to.pod4()}, 6: {"e006", to.pod6()}} {
		p, _ := f.ip.Prefix(map[int]int{4: 24, 6: 64}[family])
		n.setPolicy(to, family, list(1, to.sid(f.function).String()))
		n.want.Steerings[dataplane.SteeringKey{Prefix: p}] = dataplane.Steering{BSID: n.bsid(to, family)}
	}
}

// setPolicy changes what is wanted only.
func (n *labNode) setPolicy(to *labNode, family int, lists ...dataplane.SegmentList) {
	n.want.Policies[dataplane.PolicyKey{BSID: n.bsid(to, family)}] = policy(lists...)
}
