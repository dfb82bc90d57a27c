package source

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	apiv3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

var block = netip.MustParsePrefix("fcbb:bb00::/32")

func node(name, cidrs string, addresses ...string) *corev1.Node {
	n := &corev1.Node{}
	n.Name = name
	if cidrs != "" {
		n.Spec.PodCIDRs = strings.Fields(cidrs)
	}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func pod(name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{}
	p.Name = name
	p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	p.Status.Phase = corev1.PodRunning
	for _, c := range change {
		c(p)
	}
	return p
}

func pool(name, cidr string, change ...func(*apiv3.IPPool)) *apiv3.IPPool {
	p := &apiv3.IPPool{}
	p.Name, p.Spec.CIDR = name, cidr
	for _, c := range change {
		c(p)
	}
	return p
}

func locator(prefix, holder string) *v1alpha1.SRv6Locator {
	l := &v1alpha1.SRv6Locator{Spec: v1alpha1.SRv6LocatorSpec{Locator: prefix, NodeName: holder}}
	l.Name = v1alpha1.LocatorName(netip.MustParsePrefix(prefix))
	return l
}

func srv6(name, prefix, encap string, prefixes ...string) *v1alpha1.SRv6Node {
	n := &v1alpha1.SRv6Node{Spec: v1alpha1.SRv6NodeSpec{Locator: prefix, EncapSource: encap, Prefixes: prefixes}}
	n.Name = name
	return n
}

// place gives the objects a place each: a.yaml, b.yaml, …
func entries(t *testing.T, objects ...any) []Entry {
	t.Helper()
	var all []Entry
	for i, o := range objects {
		e, errs := Convert(o)
		require.NoError(t, errs.Err())
		e.SetPlaces(func(string) string { return string(rune('a'+i)) + ".yaml:1" })
		all = append(all, e)
	}
	return all
}

func TestContradictions(t *testing.T) {
	n1, n2 := node("n1", "10.1.0.0/24 fd00:10:1::/64", "192.0.2.1"), node("n2", "10.2.0.0/24", "192.0.2.2")
	for name, c := range map[string]struct {
		objects []any
		want    []string
	}{
		"none": {[]any{n1, n2, pool("p", "10.0.0.0/8"), locator("fcbb:bb00:1::/48", "n1"), srv6("n1", "fcbb:bb00:1::/48", "fd00::1", "10.1.0.0/24"), pod("a", "10.1.0.2")}, nil},
		"two nodes of one name": {[]any{n1, n2, node("n1", "")}, []string{
			"c.yaml:1: Node/n1: metadata.name: is defined a second time; the first is at a.yaml:1 (keep one of the two)"}},
		"one address on two nodes": {[]any{n1, node("n3", "", "192.0.2.3", "192.0.2.1")}, []string{
			"b.yaml:1: Node/n3: status.addresses[1].address: 192.0.2.1 also belongs to Node/n1, status.addresses[0].address at a.yaml:1 (give it to one of the two)"}},
		"equal podCIDRs": {[]any{node("n3", "fd00:10:1::/64"), n1}, []string{
			"b.yaml:1: Node/n1: spec.podCIDRs[1]: fd00:10:1::/64 also belongs to Node/n3, spec.podCIDRs[0] at a.yaml:1 (give it to one of the two)"}},
		"nested podCIDRs": {[]any{n1, node("n3", "10.0.0.0/15")}, []string{
			"b.yaml:1: Node/n3: spec.podCIDRs[0]: 10.0.0.0/15 overlaps 10.1.0.0/24 of Node/n1, spec.podCIDRs[0] at a.yaml:1 (give each address to one of the two)"}},
		"nested deeper, with one of its own between": {[]any{node("n3", "10.0.0.0/8"), node("n4", "10.1.0.0/16"), n1}, []string{
			"b.yaml:1: Node/n4: spec.podCIDRs[0]: 10.1.0.0/16 overlaps 10.0.0.0/8 of Node/n3, spec.podCIDRs[0] at a.yaml:1 (give each address to one of the two)",
			"c.yaml:1: Node/n1: spec.podCIDRs[0]: 10.1.0.0/24 overlaps 10.1.0.0/16 of Node/n4, spec.podCIDRs[0] at b.yaml:1 (give each address to one of the two)"}},
		"one locator held twice": {[]any{locator("fcbb:bb00:1::/48", "n1"), locator("fcbb:bb00:1::/48", "n2")}, []string{
			"b.yaml:1: SRv6Locator/fcbb-bb00-0001: metadata.name: is defined a second time; the first is at a.yaml:1 (keep one of the two)"}},
		"pools": {[]any{pool("p", "10.0.0.0/16"), pool("q", "10.0.128.0/17")}, []string{
			"b.yaml:1: IPPool/q: spec.cidr: 10.0.128.0/17 overlaps 10.0.0.0/16 of IPPool/p, spec.cidr at a.yaml:1 (give each address to one of the two)"}},
		"pods' addresses in the block": {[]any{pool("p", "fcbb::/16"), node("n1", "fcbb:bb00:7::/64"), srv6("n1", "fcbb:bb00:1::/48", "fd00::1", "fcbb:bb00:1::/64"), pod("a", "fcbb:bb00::1")}, []string{
			"a.yaml:1: IPPool/p: spec.cidr: fcbb::/16 overlaps the SID block fcbb:bb00::/32",
			"b.yaml:1: Node/n1: spec.podCIDRs[0]: fcbb:bb00:7::/64 overlaps the SID block fcbb:bb00::/32",
			"d.yaml:1: Pod/default/a: status.podIPs[0].ip: fcbb:bb00::1 overlaps the SID block fcbb:bb00::/32"}},
		"one address on two pods": {[]any{pod("a", "10.1.0.2"), pod("b", "10.1.0.2")}, []string{
			"b.yaml:1: Pod/default/b: status.podIPs[0].ip: 10.1.0.2 also belongs to Pod/default/a, status.podIPs[0].ip at a.yaml:1 (give it to one of the two)"}},
		"an ended pod's address, and the node's": {[]any{
			pod("a", "10.1.0.2"),
			pod("b", "10.1.0.2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			pod("c", "10.1.0.2", func(p *corev1.Pod) { p.Spec.HostNetwork = true })}, nil},
		"pods' prefixes with nodes' addresses": {[]any{
			node("n1", "192.0.2.0/25 fd53::/64", "fd53:1::a"), node("n2", "", "192.0.2.2", "fd53::b", "fd53::c"), pool("p", "fd53::/16"), pool("q", "128.0.0.0/1")}, []string{
			"a.yaml:1: Node/n1: spec.podCIDRs[0]: 192.0.2.0/25 contains 192.0.2.2, an address of Node/n2, status.addresses[0].address at b.yaml:1 (give pods addresses apart from the nodes')",
			"a.yaml:1: Node/n1: spec.podCIDRs[1]: fd53::/64 contains fd53::b, an address of Node/n2, status.addresses[1].address at b.yaml:1 (give pods addresses apart from the nodes')",
			"c.yaml:1: IPPool/p: spec.cidr: fd53::/16 contains fd53::b, an address of Node/n2, status.addresses[1].address at b.yaml:1 (give pods addresses apart from the nodes')",
			"d.yaml:1: IPPool/q: spec.cidr: 128.0.0.0/1 contains 192.0.2.2, an address of Node/n2, status.addresses[0].address at b.yaml:1 (give pods addresses apart from the nodes')"}},
		"a node's own address": {[]any{node("n1", "fd53::/64", "fd53::ffff:ffff:ffff:ffff")}, []string{
			"a.yaml:1: Node/n1: spec.podCIDRs[0]: fd53::/64 contains fd53::ffff:ffff:ffff:ffff, an address of Node/n1, status.addresses[0].address at a.yaml:1 (give pods addresses apart from the nodes')"}},
		"addresses beside the pods', a pod with its node's, a pool that is off": {[]any{
			node("n1", "192.0.2.64/26 fd53::/64", "192.0.2.63", "192.0.2.128", "fd52:ffff::", "fd53:0:0:1::"),
			pod("a", "192.0.2.63", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
			pool("off", "192.0.2.0/24", func(p *apiv3.IPPool) { p.Spec.Disabled = true })}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			objs, ok, got := shuffled(t, c.objects...)
			require.Equal(t, c.want, got)
			require.Equal(t, c.want == nil, ok)
			assert.Equal(t, ok, objs.Nodes != nil)
		})
	}
}

// shuffled puts the objects together in many orders, which must give the same.
func shuffled(t *testing.T, objects ...any) (objs Objects, ok bool, problems []string) {
	t.Helper()
	all := entries(t, objects...)
	for round := range 5 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		o, good, p := Assemble(all, Options{Block: block})
		var texts []string
		for _, p := range p {
			texts = append(texts, p.String())
		}
		if round > 0 {
			require.Equal(t, objs, o)
			require.Equal(t, ok, good)
			require.Equal(t, problems, texts)
		}
		objs, ok, problems = o, good, texts
	}
	return objs, ok, problems
}

// What agents write may be out of date, because one of them is down. It must
// never keep the others from what people write.
func TestPublishedFactsNeverBlock(t *testing.T) {
	n1, n2, n3 := node("n1", "10.1.0.0/24", "fd00::1"), node("n2", "10.2.0.0/24", "fd00::2"), node("n3", "10.3.0.0/24", "fd00::3")
	const l1, l2 = "fcbb:bb00:1::/48", "fcbb:bb00:2::/48"
	for name, c := range map[string]struct {
		objects []any
		want    []string
	}{
		"all in order": {[]any{n1, n2, locator(l1, "n1"), srv6("n1", l1, "fd00::1", "10.1.0.0/24"), srv6("n2", l2, "fd00::2", "10.2.0.0/24")}, nil},
		"a prefix has moved": {[]any{node("n1", "10.9.0.0/24", "fd00::1"), node("n2", "10.1.0.0/24", "fd00::2"), n3,
			srv6("n1", l1, "fd00::1", "10.1.0.0/24"), srv6("n2", l2, "fd00::2", "10.1.0.0/24")}, nil},
		"a prefix was split": {[]any{n1, n2, srv6("n1", l1, "fd00::1", "10.1.0.0/24"), srv6("n2", l2, "fd00::2", "10.1.0.64/26")}, nil},
		"an address has moved": {[]any{node("n1", "10.9.0.0/24", "fd00::11"), node("n2", "10.1.0.0/24", "fd00::1"),
			srv6("n1", l1, "fd00::1", "10.9.0.0/24")}, nil},
		"an address has moved, and is published": {[]any{node("n1", "", "fd00::11"), node("n2", "", "fd00::1"),
			srv6("n1", l1, "fd00::1"), srv6("n2", l2, "fd00::1")}, nil},
		"two publish one locator": {[]any{n1, n2, locator(l1, "n2"), srv6("n1", l1, "fd00::1"), srv6("n2", l1, "fd00::2")}, nil},
		"prefixes in the block":   {[]any{n1, srv6("n1", l1, "fd00::1", "fcbb:bb00:1::/64")}, nil},
		"a published address that no Node object names": {[]any{n1, n2, srv6("n1", l1, "fd00::9"), srv6("n2", l2, "fd00::9")}, []string{
			"d.yaml:1: SRv6Node/n2: spec.encapSource: fd00::9 also belongs to SRv6Node/n1, spec.encapSource at c.yaml:1 (give it to one of the two)"}},
		"a locator that another node holds": {[]any{n1, n2, locator(l1, "n2"), srv6("n1", l1, "fd00::1")}, []string{
			"d.yaml:1: SRv6Node/n1: spec.locator: fcbb:bb00:1::/48 is held by node n2, SRv6Locator/fcbb-bb00-0001 at c.yaml:1 (start the agent of node n1, which claims another, or remove its SRv6Node)"}},
		"another block": {[]any{n1, locator("fcbb:bb01:1::/48", "n1"), srv6("n1", "fcbb:bb01:1::/48", "fd00::1")}, []string{
			"b.yaml:1: SRv6Locator/fcbb-bb01-0001: spec.locator: fcbb:bb01:1::/48 is not in the SID block fcbb:bb00::/32 (give all nodes the same block; if it was changed, remove the object)"}},
		"two files of one node": {[]any{n1, srv6("n1", l1, "fd00::8"), srv6("n1", l1, "fd00::1")}, []string{
			"b.yaml:1: SRv6Node/n1: metadata.name: is not used: the object is defined again at c.yaml:1 (keep the one that the node's agent writes)"}},
		"what a removed node left": {[]any{n1, locator(l1, "n1"), srv6("n1", l1, "fd00::9"), srv6("gone", l1, "fd00::9", "10.1.0.0/24")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			objs, ok, got := shuffled(t, c.objects...)
			assert.Equal(t, c.want, got)
			require.True(t, ok)
			for _, o := range c.objects {
				if n, ok := o.(*v1alpha1.SRv6Node); ok {
					require.Contains(t, objs.SRv6Nodes, n.Name, "compile gets it, and decides")
				}
			}
		})
	}
	objs, _, _ := shuffled(t, n1, srv6("n1", l1, "fd00::8"), srv6("n1", l1, "fd00::1"))
	assert.Equal(t, "fd00::1", objs.SRv6Nodes["n1"].EncapSource.String(), "the last of two files counts")

	// Next to a contradiction, what agents wrote is not the news.
	_, ok, got := shuffled(t, n1, node("n4", "10.1.0.0/16"), srv6("n1", l1, "fd00::9"), srv6("n4", l2, "fd00::9"))
	assert.False(t, ok)
	assert.Len(t, got, 1)
}

func TestConvertUnknown(t *testing.T) {
	_, errs := Convert(&corev1.Service{})
	assert.EqualError(t, errs.Err(), "kind: *v1.Service is not an object that is used here")
}

func BenchmarkAssemble(b *testing.B) {
	var all []Entry
	for i := range 5000 {
		e, errs := Convert(node("n"+netip.AddrFrom4([4]byte{1, 1, byte(i >> 8), byte(i)}).String(), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24).String(), netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String()))
		if len(errs) > 0 {
			b.Fatal(errs.Err())
		}
		all = append(all, e)
	}
	for b.Loop() {
		if _, _, problems := Assemble(all, Options{Block: block}); problems != nil {
			b.Fatal(problems)
		}
	}
}
