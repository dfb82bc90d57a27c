package compile

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
)

// claims says what belongs to whom, so that no node's facts, which may be out of
// date, take traffic away from where it belongs. What the cluster's Node objects
// say comes before what nodes published of themselves.
type claims struct {
	// cidrs are the Node objects' pod prefixes with the node's name.
	cidrs bart.Table[string]
	// addresses are the Node objects' addresses with the node's name.
	addresses map[netip.Addr]string
	// underlay are all addresses that outer packets go to, sorted.
	underlay []netip.Addr
	// local are the addresses of the pods wired on this node.
	local map[netip.Addr]string
	// prefixes are those steered so far with the node's name.
	prefixes map[netip.Prefix]string
}

func newClaims(s cluster.Snapshot) *claims {
	c := &claims{addresses: map[netip.Addr]string{}, local: map[netip.Addr]string{}, prefixes: map[netip.Prefix]string{}}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n := s.Nodes[name]
		for _, p := range n.PodCIDRs {
			if _, taken := c.cidrs.Get(p); !taken {
				c.cidrs.Insert(p, name)
			}
		}
		for _, a := range n.Addresses {
			if _, taken := c.addresses[a]; !taken {
				c.addresses[a] = name
			}
			c.underlay = append(c.underlay, a)
		}
	}
	for _, n := range s.SRv6Nodes {
		if _, known := s.Nodes[n.Name]; known {
			c.underlay = append(c.underlay, n.EncapSource)
		}
	}
	for _, r := range s.Underlay.Routes {
		for _, nh := range r.NextHops {
			c.underlay = append(c.underlay, nh.Gateway)
		}
	}
	c.underlay = append(c.underlay, s.Self.EncapSource)
	slices.SortFunc(c.underlay, netip.Addr.Compare)
	c.underlay = slices.Compact(c.underlay)
	return c
}

// underlayIn is an address of the underlay in the prefix, if there is one: the
// overlay must not lead there, or it would carry itself.
func (c *claims) underlayIn(p netip.Prefix) (netip.Addr, bool) {
	i, _ := slices.BinarySearchFunc(c.underlay, p.Masked().Addr(), netip.Addr.Compare)
	if i < len(c.underlay) && p.Contains(c.underlay[i]) {
		return c.underlay[i], true
	}
	return netip.Addr{}, false
}

// otherOwner is a node, not the one named, whose Node object gives it a pod
// prefix that overlaps p.
func (c *claims) otherOwner(p netip.Prefix, node string) (string, bool) {
	for _, owner := range c.cidrs.Supernets(p) {
		if owner != node {
			return owner, true
		}
	}
	for _, owner := range c.cidrs.Subnets(p) {
		if owner != node {
			return owner, true
		}
	}
	return "", false
}

// published are a node's own prefixes, less those that its peers' Node objects
// name: the node was given others and has not published that yet.
func (c *compiler) published(n cluster.SRv6Node) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(n.Prefixes), func(p netip.Prefix) bool {
		other, taken := c.claims.otherOwner(p, n.Name)
		if taken {
			c.problem("SRv6Node/"+n.Name, "spec.prefixes", "start the node's agent, which publishes anew, or remove its SRv6Node",
				"%s belongs to node %s by its Node object", p, other)
		}
		return taken
	})
}

// steerable refuses prefixes that would take traffic away from where it belongs.
func (c *compiler) steerable(node string, p netip.Prefix) bool {
	object := "SRv6Node/" + node
	other, taken := c.claims.prefixes[p]
	pod, here := c.claims.local[p.Addr()]
	inside, covers := c.claims.underlayIn(p)
	switch {
	case taken && other == node:
		return false // named twice by the same node
	case taken:
		c.problem(object, "spec.prefixes", "give each prefix to one node", "%s belongs to node %s", p, other)
	case here && p.IsSingleIP():
		c.problem(object, "spec.prefixes", "remove the Pod object that is out of date", "%s is the address of %s on this node", p.Addr(), pod)
	case p.Overlaps(c.snap.Self.Block):
		c.problem(object, "spec.prefixes", "use pod prefixes outside the SID block", "%s overlaps the SID block %s", p, c.snap.Self.Block)
	case covers:
		c.problem(object, "spec.prefixes", "use pod prefixes apart from the underlay's", "%s contains %s, an address of the underlay", p, inside)
	case !c.inPool(p):
		c.problem(object, "spec.prefixes", "make an IPPool that contains it", "%s lies in no IPPool", p)
	default:
		return true
	}
	return false
}

// inPool: with no pool of a family, that family's prefixes are not checked,
// except that nobody may claim everything.
func (c *compiler) inPool(p netip.Prefix) bool {
	if p.Bits() == 0 {
		return false
	}
	checked := false
	for _, pool := range c.snap.Pools {
		if pool.CIDR.Addr().Is4() != p.Addr().Is4() {
			continue
		}
		checked = true
		// A disabled pool gives out no more addresses; those given out live on.
		if pool.CIDR.Bits() <= p.Bits() && pool.CIDR.Contains(p.Addr()) {
			return true
		}
	}
	return !checked
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
