package source

import (
	"fmt"
	"net/netip"

	apiv3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/podspec"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// Convert turns one typed object into an entry: a *corev1.Node, *corev1.Pod,
// *apiv3.IPPool, *v1alpha1.SRv6Locator or *v1alpha1.SRv6Node. The errors are all
// that is wrong with the object taken alone.
func Convert(object any) (Entry, v1alpha1.FieldErrors) {
	switch o := object.(type) {
	case *corev1.Node:
		return convertNode(o)
	case *corev1.Pod:
		return convertPod(o)
	case *apiv3.IPPool:
		return convertPool(o)
	case *v1alpha1.SRv6Locator:
		return convertLocator(o)
	case *v1alpha1.SRv6Node:
		return convertSRv6Node(o)
	}
	var errs v1alpha1.FieldErrors
	errs.Add("kind", "%T is not an object that is used here", object)
	return Entry{}, errs
}

func convertNode(o *corev1.Node) (Entry, v1alpha1.FieldErrors) {
	var errs v1alpha1.FieldErrors
	e := Entry{Kind: KindNode, Name: o.Name}
	n := cluster.Node{Name: o.Name}
	errs.CheckName("metadata.name", o.Name)
	noNamespace(&errs, o.ObjectMeta)

	cidrs, base := o.Spec.PodCIDRs, "spec.podCIDRs[%d]"
	if len(cidrs) == 0 && o.Spec.PodCIDR != "" {
		cidrs, base = []string{o.Spec.PodCIDR}, "spec.podCIDR"
	} else if len(cidrs) > 0 && o.Spec.PodCIDR != "" && o.Spec.PodCIDR != cidrs[0] {
		errs.Add("spec.podCIDR", "%q is not the same as spec.podCIDRs[0], %q", o.Spec.PodCIDR, cidrs[0])
	}
	for i, s := range cidrs {
		field := base
		if len(o.Spec.PodCIDRs) > 0 {
			field = fmt.Sprintf(base, i)
		}
		p, err := v1alpha1.ParsePrefix(s)
		if err != nil {
			errs.AddErr(field, err)
			continue
		}
		for j, q := range n.PodCIDRs {
			if q.Overlaps(p) {
				errs.Add(field, "%s overlaps spec.podCIDRs[%d], %s", p, j, q)
			}
		}
		n.PodCIDRs = append(n.PodCIDRs, p)
		e.use(spacePodCIDR, o.Name, field, p)
	}
	for i, a := range o.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		field := fmt.Sprintf("status.addresses[%d].address", i)
		ip, err := v1alpha1.ParseAddr(a.Address)
		if err != nil {
			errs.AddErr(field, err)
			continue
		}
		n.Addresses = append(n.Addresses, ip)
		e.use(spaceNodeAddress, o.Name, field, single(ip))
	}
	e.value = n
	return e, errs
}

func convertPod(o *corev1.Pod) (Entry, v1alpha1.FieldErrors) {
	var errs v1alpha1.FieldErrors
	namespace := o.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	} else {
		errs.CheckName("metadata.namespace", namespace)
	}
	errs.CheckName("metadata.name", o.Name)
	if o.Spec.NodeName != "" {
		errs.CheckName("spec.nodeName", o.Spec.NodeName)
	}
	p := cluster.Pod{Namespace: namespace, Name: o.Name, Node: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork, Annotations: podspec.Select(o.Annotations)}
	switch o.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed:
		p.Finished = true
	case "", corev1.PodPending, corev1.PodRunning, corev1.PodUnknown:
	default:
		errs.Add("status.phase", "%q is not one of %q, %q, %q, %q, %q", o.Status.Phase,
			corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown)
	}
	e := Entry{Kind: KindPod, Name: namespace + "/" + o.Name}
	add := func(field, s string) {
		ip, err := v1alpha1.ParseAddr(s)
		if err != nil {
			errs.AddErr(field, err)
			return
		}
		p.IPs = append(p.IPs, ip)
		// The addresses of the others belong to the node, or to nobody.
		if !p.HostNetwork && !p.Finished {
			e.use(spacePodIP, e.Name, field, single(ip))
		}
	}
	ips := o.Status.PodIPs
	if len(ips) == 0 && o.Status.PodIP != "" {
		add("status.podIP", o.Status.PodIP)
	} else if len(ips) > 0 && o.Status.PodIP != "" && o.Status.PodIP != ips[0].IP {
		errs.Add("status.podIP", "%q is not the same as status.podIPs[0].ip, %q", o.Status.PodIP, ips[0].IP)
	}
	for i, ip := range ips {
		add(fmt.Sprintf("status.podIPs[%d].ip", i), ip.IP)
	}
	e.value = p
	return e, errs
}

func convertPool(o *apiv3.IPPool) (Entry, v1alpha1.FieldErrors) {
	var errs v1alpha1.FieldErrors
	errs.CheckName("metadata.name", o.Name)
	noNamespace(&errs, o.ObjectMeta)
	e := Entry{Kind: KindIPPool, Name: o.Name}
	p, err := v1alpha1.ParsePrefix(o.Spec.CIDR)
	errs.AddErr("spec.cidr", err)
	if err == nil {
		e.use(spacePool, o.Name, "spec.cidr", p)
	}
	e.value = cluster.Pool{Name: o.Name, CIDR: p, Disabled: o.Spec.Disabled}
	return e, errs
}

func convertLocator(o *v1alpha1.SRv6Locator) (Entry, v1alpha1.FieldErrors) {
	errs := o.Validate()
	noNamespace(&errs, o.ObjectMeta)
	e := Entry{Kind: v1alpha1.KindSRv6Locator, Name: o.Name}
	if len(errs) > 0 {
		return e, errs
	}
	p, err := v1alpha1.ParseLocator(o.Spec.Locator)
	errs.AddErr("spec.locator", err)
	e.value = publish.Claim{Locator: p, Node: o.Spec.NodeName}
	e.use(spaceLocator, o.Spec.NodeName, "spec.locator", p)
	return e, errs
}

func convertSRv6Node(o *v1alpha1.SRv6Node) (Entry, v1alpha1.FieldErrors) {
	e := Entry{Kind: v1alpha1.KindSRv6Node, Name: o.Name}
	n, errs := publish.NodeFacts(o)
	noNamespace(&errs, o.ObjectMeta)
	if len(errs) > 0 {
		return e, errs
	}
	e.value = n
	e.use(spacePublishedLocator, n.Name, "spec.locator", n.Locator)
	e.use(spaceEncapSource, n.Name, "spec.encapSource", single(n.EncapSource))
	return e, errs
}

func noNamespace(errs *v1alpha1.FieldErrors, m metav1.ObjectMeta) {
	if m.Namespace != "" {
		errs.Add("metadata.namespace", "%q: the object belongs to the whole cluster, not to a namespace", m.Namespace)
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
