package compile

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/podspec"
)

// The pod's end of a memif: where applications that were written for Calico/VPP
// look for it, and the address that they give it.
const memifSocketPrefix = "vpp/memif-"

// vethQueues are the queues of a veth, as the CNI plugin makes it. The default is
// to receive from all of them.
const vethQueues = 1

var memifPeerMAC = dataplane.MAC{2, 0, 0, 0, 0, 1}

// annotated are the specifications of the pods on this node that have any, by
// namespace/name. What cannot be used of them is told once for each pod.
func (c *compiler) annotated() map[string]podspec.Spec {
	out := map[string]podspec.Spec{}
	if c.target.Kernel {
		return out // the kernel has nothing to choose
	}
	names := map[string]map[string]bool{}
	for _, e := range c.snap.Endpoints {
		pod := e.Namespace + "/" + e.Name
		if names[pod] == nil {
			names[pod] = map[string]bool{}
		}
		names[pod][e.IfName] = true
	}
	for _, pod := range slices.Sorted(maps.Keys(names)) {
		annotations := c.snap.Pods[pod].Annotations
		if len(annotations) == 0 {
			continue
		}
		spec, errs := podspec.Parse(annotations)
		for _, e := range errs {
			c.problem("Pod/"+pod, e.Field, e.Remedy, "%s; the default is used", e.Reason)
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Interfaces)) {
			if n := spec.Interfaces[name].Rx; n > vethQueues {
				c.problem("Pod/"+pod, "metadata.annotations["+podspec.AnnotationInterfaces+"]."+name+".rx", "leave it out",
					"a pod's veth has %d queue, not %d; the default is used", vethQueues, n)
			}
			if !names[pod][name] {
				c.problem("Pod/"+pod, "metadata.annotations["+podspec.AnnotationInterfaces+"]."+name, "name an interface that the pod has, such as "+
					slices.Sorted(maps.Keys(names[pod]))[0], "the pod has no interface %s on this node", name)
			}
		}
		out[pod] = spec
	}
	return out
}

// podInterface is the host's end of a pod's veth.
func (c *compiler) podInterface(e cluster.Endpoint, specs map[string]podspec.Spec) dataplane.Interface {
	out := dataplane.Interface{Role: dataplane.RolePod, MTU: e.MTU, MAC: e.HostMAC}
	if !c.target.Kernel {
		out.Rx = receive(c.snap.PodRx, specs[e.Namespace+"/"+e.Name].Interfaces[e.IfName])
	}
	return out
}

// podMemif adds the memif that a pod asks for. It carries nothing that the pod
// cannot do without, and nothing else refers to it: a memif that the dataplane
// cannot make leaves the pod with its veth.
func (c *compiler) podMemif(e cluster.Endpoint, specs map[string]podspec.Spec) {
	spec := specs[e.Namespace+"/"+e.Name]
	if len(spec.Ports) == 0 || !c.firstOf(e) {
		return
	}
	e.IPs = slices.DeleteFunc(slices.Clone(e.IPs), func(ip netip.Addr) bool {
		_, held := c.state.Neighbours[dataplane.NeighbourKey{Interface: e.HostInterface, IP: ip}]
		return !held // another pod's
	})
	if len(e.IPs) > 0 {
		c.state.Interfaces[dataplane.MemifKey(e.HostInterface)] = memif(e, spec, c.snap.PodRx)
	}
}

// firstOf reports whether e is the first of its pod's endpoints on this node: a
// pod has one memif, beside the interface that sorts first (eth0 before net1).
func (c *compiler) firstOf(e cluster.Endpoint) bool {
	for _, o := range c.snap.Endpoints {
		if o.Namespace == e.Namespace && o.Name == e.Name && (o.IfName < e.IfName || o.IfName == e.IfName && o.ID < e.ID) {
			return false
		}
	}
	return true
}

// receive is the node's default with what a pod asks for.
func receive(base dataplane.Rx, i podspec.Interface) dataplane.Rx {
	switch i.RxMode {
	case "":
	case dataplane.RxInterrupt:
		base.Mode = "" // the default's one form
	default:
		base.Mode = i.RxMode
	}
	if i.RxRing != 0 {
		base.Ring = i.RxRing
	}
	if i.TxRing != 0 {
		base.TxRing = i.TxRing
	}
	return base
}

func memif(e cluster.Endpoint, spec podspec.Spec, base dataplane.Rx) dataplane.Interface {
	m := dataplane.Memif{
		Netns: e.Netns, Socket: memifSocketPrefix + e.IfName, L3: spec.Memif.L3,
		IPs: dataplane.FormatIPs(e.IPs), Ports: dataplane.FormatPorts(spec.Ports), Veth: e.HostInterface,
	}
	if !m.L3 {
		m.PeerMAC = memifPeerMAC
	}
	// The other end, which the pod makes, decides on queues and rings.
	rx := dataplane.Rx{Mode: receive(base, spec.Memif).Mode}
	out := dataplane.Interface{Role: dataplane.RoleMemif, MTU: e.MTU, Rx: rx, Memif: m}
	if !m.L3 {
		out.MAC = e.HostMAC
	}
	return out
}
