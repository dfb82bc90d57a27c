package publish

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// LocatorObject is the claim as an object.
func LocatorObject(c Claim) *v1alpha1.SRv6Locator {
	return &v1alpha1.SRv6Locator{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindSRv6Locator},
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.LocatorName(c.Locator)},
		Spec:       v1alpha1.SRv6LocatorSpec{Locator: c.Locator.String(), NodeName: c.Node},
	}
}

// NodeObject is a node's facts as an object. SIDs and prefixes keep their order.
func NodeObject(n cluster.SRv6Node, s v1alpha1.SRv6NodeStatus) *v1alpha1.SRv6Node {
	o := &v1alpha1.SRv6Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindSRv6Node},
		ObjectMeta: metav1.ObjectMeta{Name: n.Name},
		Spec: v1alpha1.SRv6NodeSpec{
			EncapSource: n.EncapSource.String(),
			Locator:     n.Locator.String(),
		},
		Status: s,
	}
	for _, sid := range n.SIDs {
		o.Spec.SIDs = append(o.Spec.SIDs, v1alpha1.SRv6SID{SID: SIDText(sid.SID), Behaviour: string(sid.Behaviour), Table: sid.Table})
	}
	for _, p := range n.Prefixes {
		o.Spec.Prefixes = append(o.Spec.Prefixes, p.String())
	}
	return o
}

// SIDText is a SID as people write it: an address, or a prefix for uN.
func SIDText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// NodeFacts is NodeObject backwards. The object must be valid on its own.
func NodeFacts(o *v1alpha1.SRv6Node) (cluster.SRv6Node, v1alpha1.FieldErrors) {
	if errs := o.Validate(); len(errs) > 0 {
		return cluster.SRv6Node{}, errs
	}
	// Validate has parsed every field: the errors below cannot happen.
	n := cluster.SRv6Node{Name: o.Name}
	n.EncapSource, _ = v1alpha1.ParseAddr(o.Spec.EncapSource)
	n.Locator, _ = v1alpha1.ParseLocator(o.Spec.Locator)
	for _, s := range o.Spec.SIDs {
		p, _ := s.Prefix()
		n.SIDs = append(n.SIDs, cluster.SID{SID: p, Behaviour: dataplane.Behaviour(s.Behaviour), Table: s.Table})
	}
	for _, s := range o.Spec.Prefixes {
		p, _ := v1alpha1.ParsePrefix(s)
		n.Prefixes = append(n.Prefixes, p)
	}
	return n, nil
}
