// Package compile turns a picture of the cluster into the state that this node's
// dataplane is to hold. It is one pure function: no clock, no log, no I/O, no
// memory of earlier inputs.
package compile

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
	cniapi "github.com/sidewinder-net/sidewinder/cni/api"
)

// Target says what kind of dataplane the state is for. Both kinds carry the same
// policies, steering and SIDs; they differ in what the kernel has of its own.
type Target struct {
	// Kernel: the dataplane is the kernel itself, which already has the
	// underlay's own routes and resolves neighbours on the uplinks.
	Kernel bool
}

// Result is what an input comes to.
type Result struct {
	State dataplane.State
	// Redirects are the destinations that State can carry, for a target beside
	// the kernel; empty for the kernel itself.
	Redirects dataplane.Redirects
	// Policies explain State's policies in the cluster's terms, sorted.
	Policies []status.Policy
	// Problems are the parts of the input that could not be used, sorted. The
	// rest of the input is used all the same.
	Problems []status.Problem
}

// Compile is the function.
func Compile(s cluster.Snapshot, t Target) Result {
	c := &compiler{snap: s, target: t, state: dataplane.New(), redirects: dataplane.NewRedirects(), claims: newClaims(s)}
	c.settings()
	c.uplinks()
	c.localSIDs()
	c.localPrefixes()
	c.endpoints()
	c.remotes()
	slices.SortFunc(c.problems, func(a, b status.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return Result{State: c.state, Redirects: c.redirects, Policies: c.policies, Problems: c.problems}
}

type compiler struct {
	snap      cluster.Snapshot
	target    Target
	state     dataplane.State
	redirects dataplane.Redirects
	policies  []status.Policy
	problems  []status.Problem
	claims    *claims
}

func (c *compiler) problem(object, field, remedy, format string, args ...any) {
	c.problems = append(c.problems, status.Problem{Object: object, Field: field, Reason: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (c *compiler) settings() {
	if src := c.snap.Self.EncapSource; src.IsValid() {
		c.state.Settings[dataplane.SettingEncapSource] = dataplane.Setting(src.String())
	}
	c.state.Settings[dataplane.SettingEncapHopLimit] = dataplane.DefaultEncapHopLimit
	c.state.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	c.state.Settings[dataplane.SettingFlowHash] = dataplane.FlowHashWithLabel
}

func (c *compiler) uplinks() {
	for name := range c.snap.Underlay.Uplinks {
		c.state.Interfaces[dataplane.InterfaceKey(name)] = dataplane.Interface{Role: dataplane.RoleUplink, Rx: c.rx(c.snap.UplinkRx)}
	}
	// The pods' IPv4 gateway: the source of ICMP errors towards pods, and what
	// lets a userspace dataplane speak IPv4 on pod interfaces without spending
	// an address on each.
	gw := netip.PrefixFrom(cniapi.GatewayIPv4, 32)
	c.state.Addresses[dataplane.AddressKey{Interface: "lo", Prefix: gw}] = dataplane.Address{}
}

// rx is how to receive; the kernel has no choice.
func (c *compiler) rx(r dataplane.Rx) dataplane.Rx {
	if c.target.Kernel {
		return dataplane.Rx{}
	}
	return r
}

func (c *compiler) localSIDs() {
	for _, s := range c.snap.Self.SIDs {
		k := dataplane.LocalSIDKey{SID: s.SID}
		c.state.LocalSIDs[k] = dataplane.LocalSID{Behaviour: s.Behaviour, Table: s.Table}
		c.redirectSID(k, s.Behaviour)
	}
}

// localPrefixes drops what is addressed to no pod in this node's own prefixes:
// otherwise it would follow the default route back into the underlay.
func (c *compiler) localPrefixes() {
	for _, p := range c.snap.Nodes[c.snap.Self.Name].PodCIDRs {
		if a, bad := c.claims.underlayIn(p); bad {
			c.problem("Node/"+c.snap.Self.Name, "spec.podCIDRs", "use pod prefixes apart from the underlay's", "%s contains %s, an address of the underlay", p, a)
			continue
		}
		c.state.Routes[dataplane.RouteKey{Prefix: p}] = dataplane.Route{}
	}
}

func (c *compiler) endpoints() {
	owner := c.claims.local
	specs := c.annotated()
	for _, id := range slices.Sorted(maps.Keys(c.snap.Endpoints)) {
		e := c.snap.Endpoints[id]
		object := "pod " + e.Namespace + "/" + e.Name
		carried := c.target.Kernel || e.WholeChecksums
		if carried {
			c.state.Interfaces[dataplane.InterfaceKey(e.HostInterface)] = c.podInterface(e, specs)
		} else {
			c.problem(object, "", "restart the pod, for VPP to carry it", "it was wired for the kernel alone, and leaves checksums to its link: the kernel carries it")
		}
		for _, ip := range e.IPs {
			if other, taken := owner[ip]; taken {
				c.problem(object, "ips", "delete one of the two pods", "address %s is also held by %s on this node", ip, other)
				continue
			}
			owner[ip] = object
			if !carried {
				c.keepFromVPP(netip.PrefixFrom(ip, ip.BitLen()))
				continue
			}
			c.state.Neighbours[dataplane.NeighbourKey{Interface: e.HostInterface, IP: ip}] = dataplane.Neighbour{MAC: e.PodMAC}
			c.state.Routes[dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())}] = dataplane.Route{
				NextHops: []dataplane.NextHop{{Interface: e.HostInterface, Weight: 1}},
			}
			c.redirectPod(e.HostInterface, ip)
		}
		if carried {
			c.podMemif(e, specs)
		}
	}
}
