package compile

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

// FunctionBSID is the local C-SID under which binding SIDs lie. It is in the
// range that RFC 9800 §7.1 calls the local identifiers block.
const FunctionBSID = 0xeb51

// DefaultColour is the colour of traffic that asks for none.
const DefaultColour = 0

// BSID derives the binding SID of the policy from the node with locator self to
// the one with locator endpoint (both /48), with a colour, for inner packets of
// family 4 or 6. It depends on nothing else, so it survives restarts, and no two
// policies share one:
//
//	locator 48 | FunctionBSID 16 | endpoint's node ID 16 | colour 32 | family 16
func BSID(self, endpoint netip.Prefix, colour uint32, family uint16) netip.Addr {
	a, e := self.Addr().As16(), endpoint.Addr().As16()
	binary.BigEndian.PutUint16(a[6:], FunctionBSID)
	copy(a[8:10], e[4:6])
	binary.BigEndian.PutUint32(a[10:], colour)
	binary.BigEndian.PutUint16(a[14:], family)
	return netip.AddrFrom16(a)
}

// family is one of the two kinds of inner packets.
type family struct {
	name      string
	number    uint16
	behaviour dataplane.Behaviour
	is        func(netip.Addr) bool
}

var families = [...]family{
	{"IPv4", 4, dataplane.BehaviourDT4, netip.Addr.Is4},
	{"IPv6", 6, dataplane.BehaviourDT6, netip.Addr.Is6},
}

func (c *compiler) remotes() {
	self := c.snap.Self
	if !self.Locator.IsValid() {
		return // nothing can be steered before this node holds a locator
	}
	holders := map[netip.Prefix]string{self.Locator: self.Name}
	borrowed := c.borrowed()
	for _, name := range slices.Sorted(maps.Keys(c.snap.SRv6Nodes)) {
		// A node whose Node object is gone has left, whatever it published.
		if _, known := c.snap.Nodes[name]; !known || name == self.Name {
			continue
		}
		n := c.snap.SRv6Nodes[name]
		if !c.validLocator(n, holders) {
			continue
		}
		holders[n.Locator] = name
		way := c.underlay(n)
		prefixes := slices.Concat(c.published(n), borrowed[name])
		slices.SortFunc(prefixes, comparePrefix)
		for _, f := range families {
			c.policy(n, f, prefixes, way)
		}
	}
}

func (c *compiler) validLocator(n cluster.SRv6Node, holders map[netip.Prefix]string) bool {
	object := "SRv6Node/" + n.Name
	switch {
	case !n.Locator.IsValid():
		c.problem(object, "spec.locator", "wait for the node's agent to publish it", "is empty")
	case n.Locator.Bits() != 48 || !c.snap.Self.Block.Contains(n.Locator.Addr()):
		c.problem(object, "spec.locator", "give all nodes the same block", "%s is not a /48 within this cluster's block %s", n.Locator, c.snap.Self.Block)
	case c.claimedByAnother(n):
		c.problem(object, "spec.locator", "restart the node's agent, which takes another", "%s is claimed, and published, by node %s", n.Locator, c.snap.Locators[n.Locator])
	case holders[n.Locator] != "":
		c.problem(object, "spec.locator", "remove the SRv6Locator of one of them and restart its agent", "%s is also held by node %s", n.Locator, holders[n.Locator])
	default:
		return true
	}
	return false
}

// claimedByAnother: of two nodes that publish one locator, the one with the claim
// has it.
func (c *compiler) claimedByAnother(n cluster.SRv6Node) bool {
	holder, ok := c.snap.Locators[n.Locator]
	return ok && holder != n.Name && c.snap.SRv6Nodes[holder].Locator == n.Locator
}

// underlay makes the node's locator reachable. way are the objects that a
// userspace dataplane needs to send there, nil when it cannot.
func (c *compiler) underlay(n cluster.SRv6Node) (way []dataplane.Key) {
	if other, taken := c.claims.addresses[n.EncapSource]; taken && other != n.Name {
		c.problem("SRv6Node/"+n.Name, "spec.encapSource", "start the node's agent, which publishes anew, or remove its SRv6Node",
			"%s is now an address of node %s: no route to locator %s", n.EncapSource, other, n.Locator)
		return nil
	}
	u, ok := c.snap.Underlay.Routes[n.Locator]
	if !ok || len(u.NextHops) == 0 {
		c.problem("SRv6Node/"+n.Name, "spec.encapSource", "route the node's address or its locator in the underlay",
			"no route to %s nor to locator %s: traffic to its pods is dropped", n.EncapSource, n.Locator)
		return nil
	}
	k := dataplane.RouteKey{Prefix: n.Locator}
	if c.target.Kernel {
		if !u.InKernel {
			c.state.Routes[k] = dataplane.Route{NextHops: u.NextHops}
		}
		return nil
	}
	return c.besideKernel(k, u.NextHops)
}

// besideKernel is the way for a dataplane that shares the uplinks with the
// kernel. Answers to neighbour discovery reach the kernel alone, so only next
// hops that the kernel has resolved are of use; the kernel itself carries what
// has none yet.
func (c *compiler) besideKernel(k dataplane.RouteKey, hops []dataplane.NextHop) (way []dataplane.Key) {
	var resolved []dataplane.NextHop
	for _, nh := range hops {
		n := dataplane.NeighbourKey{Interface: nh.Interface, IP: nh.Gateway}
		mac, ok := c.snap.Underlay.Neighbours[n]
		if !ok {
			continue
		}
		c.state.Neighbours[n] = dataplane.Neighbour{MAC: mac}
		resolved = append(resolved, nh)
		way = append(way, n, dataplane.InterfaceKey(nh.Interface))
	}
	if len(resolved) == 0 {
		return nil
	}
	c.state.Routes[k] = dataplane.Route{NextHops: resolved}
	return append(way, k)
}

// policy makes the SR policy to a node for one family, and steers the node's
// prefixes of that family into it.
func (c *compiler) policy(n cluster.SRv6Node, f family, prefixes []netip.Prefix, way []dataplane.Key) {
	prefixes = slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return !f.is(p.Addr()) })
	sid, ok := n.SIDFor(f.behaviour)
	if !ok {
		if len(prefixes) > 0 {
			c.problem("SRv6Node/"+n.Name, "spec.sids", "upgrade the node's agent", "has no %s SID, so its %s prefixes cannot be reached", f.behaviour, f.name)
		}
		return
	}
	bsid := BSID(c.snap.Self.Locator, n.Locator, DefaultColour, f.number)
	p := dataplane.Policy{SegmentLists: []dataplane.SegmentList{{Segments: []netip.Addr{sid}, Weight: 1}}}
	c.state.Policies[dataplane.PolicyKey{BSID: bsid}] = p
	info := status.Policy{
		BSID: bsid.String(), Endpoint: n.Name, Colour: DefaultColour, Family: f.name,
		Lists: []string{p.String()}, Prefixes: []string{},
	}
	for _, prefix := range prefixes {
		if c.steerable(n.Name, prefix) {
			c.claims.prefixes[prefix] = n.Name
			c.state.Steerings[dataplane.SteeringKey{Prefix: prefix}] = dataplane.Steering{BSID: bsid}
			c.redirectRemote(prefix, bsid, way)
			info.Prefixes = append(info.Prefixes, prefix.String())
		}
	}
	c.policies = append(c.policies, info)
}

// borrowed finds pods whose address lies outside the prefixes of their node:
// each needs an entry of its own.
func (c *compiler) borrowed() map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	seen := map[netip.Addr]string{}
	for _, key := range slices.Sorted(maps.Keys(c.snap.Pods)) {
		pod := c.snap.Pods[key]
		n, ok := c.snap.SRv6Nodes[pod.Node]
		if !ok || pod.HostNetwork || pod.Finished || pod.Node == c.snap.Self.Name {
			continue
		}
		for _, ip := range pod.IPs {
			if slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
				continue
			}
			if other, twice := seen[ip]; twice {
				c.problem("Pod/"+key, "status.podIPs", "delete one of the two pods", "%s is also the address of Pod/%s", ip, other)
				continue
			}
			seen[ip] = key
			out[pod.Node] = append(out[pod.Node], netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	return out
}
