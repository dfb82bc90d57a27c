package compile

import (
	"net/netip"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// redirectSID: packets to a SID of this node. What End.DT* lets out of the
// encapsulation must be known here, or the kernel gets it.
func (c *compiler) redirectSID(k dataplane.LocalSIDKey, b dataplane.Behaviour) {
	if c.target.Kernel {
		return
	}
	r := dataplane.Redirect{Needs: []dataplane.Key{k, dataplane.SettingEncapSource}}
	switch b {
	case dataplane.BehaviourDT4, dataplane.BehaviourDT6, dataplane.BehaviourDT46:
		r.Inner = true
	}
	c.redirects.Uplink[k.SID] = r
}

// redirectPod: packets to a pod of this node.
func (c *compiler) redirectPod(iface string, ip netip.Addr) {
	if c.target.Kernel {
		return
	}
	host := netip.PrefixFrom(ip, ip.BitLen())
	c.redirects.Pods[host] = dataplane.Redirect{Needs: []dataplane.Key{
		dataplane.InterfaceKey(iface), dataplane.NeighbourKey{Interface: iface, IP: ip}, dataplane.RouteKey{Prefix: host},
	}}
}

// keepFromVPP: packets to a prefix that only the kernel can carry. It may lie in
// another's that VPP has: a pod's address is not always of its own node's prefix.
func (c *compiler) keepFromVPP(prefix netip.Prefix) {
	if !c.target.Kernel {
		c.redirects.Pods[prefix] = dataplane.Redirect{Kernel: true}
	}
}

// redirectRemote: packets to another node's pods. Without a way there they stay
// with the kernel.
func (c *compiler) redirectRemote(prefix netip.Prefix, bsid netip.Addr, way []dataplane.Key) {
	if c.target.Kernel {
		return
	}
	if len(way) == 0 {
		c.keepFromVPP(prefix)
		return
	}
	needs := make([]dataplane.Key, 0, len(way)+3)
	needs = append(needs, way...)
	needs = append(needs, dataplane.PolicyKey{BSID: bsid}, dataplane.SteeringKey{Prefix: prefix}, dataplane.SettingEncapSource)
	c.redirects.Pods[prefix] = dataplane.Redirect{Needs: needs}
}
