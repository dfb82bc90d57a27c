// Package cluster holds the types that say what the cluster is, as one node's
// agent knows it: the input of compile. Values only: no clients, no clocks.
package cluster

import (
	"net/netip"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Snapshot is one consistent picture of the cluster and of this node. Whoever
// makes one hands it over; it is never changed afterwards.
type Snapshot struct {
	// Self says who this node is and what it holds.
	Self Self
	// Nodes are the cluster's nodes by name, this one included.
	Nodes map[string]Node
	// SRv6Nodes are the published facts by node name, this one included.
	SRv6Nodes map[string]SRv6Node
	// Locators give the holder of each claimed locator.
	Locators map[netip.Prefix]string
	// Pools are the address pools by name. Empty: prefixes are not checked.
	Pools map[string]Pool
	// Pods are the pods known from the cluster's objects by namespace/name.
	Pods map[string]Pod
	// Endpoints are the pods wired on this node by the CNI plugin, by
	// Endpoint.ID.
	Endpoints map[string]Endpoint
	// Underlay is what the kernel knows of the way to other nodes.
	Underlay Underlay
	// UplinkRx and PodRx are how a userspace dataplane receives where nothing
	// else is asked for.
	UplinkRx, PodRx dataplane.Rx
}

// Self is this node's own identity, allocated before compile.
type Self struct {
	Name string
	// Block is the SID block shared by the cluster, a /32.
	Block netip.Prefix
	// Locator is the locator that this node holds, a /48 within Block.
	Locator netip.Prefix
	// EncapSource is the node's own stable IPv6 address.
	EncapSource netip.Addr
	// SIDs are this node's local SIDs.
	SIDs []SID
}

// SID is a SID with what it does. SID is a /128, or the locator for uN.
type SID struct {
	SID       netip.Prefix
	Behaviour dataplane.Behaviour
	Table     uint32
}

// Node is what the cluster's Node object says.
type Node struct {
	Name string
	// Addresses are the node's internal addresses.
	Addresses []netip.Addr
	// PodCIDRs are the prefixes given to the node.
	PodCIDRs []netip.Prefix
}

// SRv6Node is what a node published of itself.
type SRv6Node struct {
	Name        string
	EncapSource netip.Addr
	Locator     netip.Prefix
	SIDs        []SID
	Prefixes    []netip.Prefix
}

// Pool is an address pool.
type Pool struct {
	Name     string
	CIDR     netip.Prefix
	Disabled bool
}

// Pod is what the cluster's Pod object says.
type Pod struct {
	Namespace, Name string
	Node            string
	IPs             []netip.Addr
	HostNetwork     bool
	// Finished: the pod has ended (Succeeded, Failed) and its addresses may
	// belong to another.
	Finished bool
	// Annotations are those that say something of the pod's interfaces (see
	// package podspec), as they were written; nil when there are none.
	Annotations map[string]string
}

// Endpoint is a pod's interface on this node: the pod record that the CNI
// plugin hands over.
type Endpoint struct {
	// ID is the container's ID and the interface's name in the pod, joined by
	// a slash.
	ID              string
	Namespace, Name string
	// IfName is the interface's name in the pod, and Netns the path of the
	// pod's network namespace.
	IfName, Netns string
	// HostInterface is the name of the host's end of the veth.
	HostInterface string
	// HostMAC is the host end's address: the pod's gateway.
	HostMAC dataplane.MAC
	// PodMAC is the pod end's address.
	PodMAC dataplane.MAC
	// IPs are the pod's addresses.
	IPs []netip.Addr
	// MTU of the pod's interface in bytes.
	MTU uint16
	// WholeChecksums: the pod's end leaves no checksum to the link, so that a
	// userspace dataplane can carry its packets.
	WholeChecksums bool
}

// Underlay is what the kernel knows of the way to other nodes: resolved outside
// compile, because it takes lookups.
type Underlay struct {
	// Uplinks are the interfaces that face the underlay, by name.
	Uplinks map[string]Uplink
	// Routes are the next hops towards each remote locator. A locator that is
	// missing here cannot be reached at present.
	Routes map[netip.Prefix]UnderlayRoute
	// Neighbours are the layer-2 addresses of the next hops above, where the
	// kernel knows them.
	Neighbours map[dataplane.NeighbourKey]dataplane.MAC
}

// UnderlayRoute is the way to one remote locator.
type UnderlayRoute struct {
	NextHops []dataplane.NextHop
	// InKernel: the underlay itself routes the locator (an IGP, BGP, a static
	// route), so the kernel needs no route of ours.
	InKernel bool
}

// Uplink is an interface that faces the underlay.
type Uplink struct {
	Name string
	MAC  dataplane.MAC
	MTU  uint16
	// Index and Up are the kernel's: another index under the same name is
	// another link.
	Index int
	Up    bool
}

// SIDFor is the node's SID with a behaviour in the main table.
func (n SRv6Node) SIDFor(b dataplane.Behaviour) (netip.Addr, bool) {
	for _, s := range n.SIDs {
		if s.Behaviour == b && s.Table == 0 && s.SID.IsSingleIP() {
			return s.SID.Addr(), true
		}
	}
	return netip.Addr{}, false
}
