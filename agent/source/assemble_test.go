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

func pool(name, cidr string) *apiv3.IPPool {
	p := &apiv3.IPPool{}
	p.Name, p.Spec.CIDR = name, cidr
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
		"published prefixes": {[]any{n1, n2, srv6("n1", "fcbb:bb00:1::/48", "fd00::1", "10.1.0.0/24"), srv6("n2", "fcbb:bb00:2::/48", "fd00::2", "10.1.0.64/26")}, []string{
			"d.yaml:1: SRv6Node/n2: spec.prefixes[0]: 10.1.0.64/26 overlaps 10.1.0.0/24 of SRv6Node/n1, spec.prefixes[0] at c.yaml:1 (give each address to one of the two)"}},
		"one encapsulation source": {[]any{n1, n2, srv6("n1", "fcbb:bb00:1::/48", "fd00::1"), srv6("n2", "fcbb:bb00:2::/48", "fd00::1")}, []string{
			"d.yaml:1: SRv6Node/n2: spec.encapSource: fd00::1 also belongs to SRv6Node/n1, spec.encapSource at c.yaml:1 (give it to one of the two)"}},
		"published locator of two": {[]any{n1, n2, srv6("n1", "fcbb:bb00:1::/48", "fd00::1"), srv6("n2", "fcbb:bb00:1::/48", "fd00::2")}, []string{
			"d.yaml:1: SRv6Node/n2: spec.locator: fcbb:bb00:1::/48 also belongs to SRv6Node/n1, spec.locator at c.yaml:1 (give it to one of the two)"}},
		"published, but held by another": {[]any{n1, locator("fcbb:bb00:1::/48", "n2"), srv6("n1", "fcbb:bb00:1::/48", "fd00::1")}, []string{
			"c.yaml:1: SRv6Node/n1: spec.locator: fcbb:bb00:1::/48 also belongs to SRv6Locator/fcbb-bb00-0001, spec.locator at b.yaml:1 (give it to one of the two)"}},
		"one locator held twice": {[]any{locator("fcbb:bb00:1::/48", "n1"), locator("fcbb:bb00:1::/48", "n2")}, []string{
			"b.yaml:1: SRv6Locator/fcbb-bb00-0001: metadata.name: is defined a second time; the first is at a.yaml:1 (keep one of the two)",
			"b.yaml:1: SRv6Locator/fcbb-bb00-0001: spec.locator: fcbb:bb00:1::/48 also belongs to SRv6Locator/fcbb-bb00-0001, spec.locator at a.yaml:1 (give it to one of the two)"}},
		"locators outside the block": {[]any{locator("fcbb:bb01:1::/48", "n1"), srv6("n1", "fcbb:bb01:1::/48", "fd00::1")}, []string{
			"a.yaml:1: SRv6Locator/fcbb-bb01-0001: spec.locator: fcbb:bb01:1::/48 is not in the SID block fcbb:bb00::/32",
			"b.yaml:1: SRv6Node/n1: spec.locator: fcbb:bb01:1::/48 is not in the SID block fcbb:bb00::/32"}},
		"pools": {[]any{pool("p", "10.0.0.0/16"), pool("q", "10.0.128.0/17")}, []string{
			"b.yaml:1: IPPool/q: spec.cidr: 10.0.128.0/17 overlaps 10.0.0.0/16 of IPPool/p, spec.cidr at a.yaml:1 (give each address to one of the two)"}},
		"pods' addresses in the block": {[]any{pool("p", "fcbb::/16"), node("n1", "fcbb:bb00:7::/64"), srv6("n1", "fcbb:bb00:1::/48", "fd00::1", "fcbb:bb00:1::/64"), pod("a", "fcbb:bb00::1")}, []string{
			"a.yaml:1: IPPool/p: spec.cidr: fcbb::/16 overlaps the SID block fcbb:bb00::/32",
			"b.yaml:1: Node/n1: spec.podCIDRs[0]: fcbb:bb00:7::/64 overlaps the SID block fcbb:bb00::/32",
			"c.yaml:1: SRv6Node/n1: spec.prefixes[0]: fcbb:bb00:1::/64 overlaps the SID block fcbb:bb00::/32",
			"d.yaml:1: Pod/default/a: status.podIPs[0].ip: fcbb:bb00::1 overlaps the SID block fcbb:bb00::/32"}},
		"one address on two pods": {[]any{pod("a", "10.1.0.2"), pod("b", "10.1.0.2")}, []string{
			"b.yaml:1: Pod/default/b: status.podIPs[0].ip: 10.1.0.2 also belongs to Pod/default/a, status.podIPs[0].ip at a.yaml:1 (give it to one of the two)"}},
		"an ended pod's address, and the node's": {[]any{
			pod("a", "10.1.0.2"),
			pod("b", "10.1.0.2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			pod("c", "10.1.0.2", func(p *corev1.Pod) { p.Spec.HostNetwork = true })}, nil},
		"what a removed node left":       {[]any{n1, srv6("n1", "fcbb:bb00:1::/48", "fd00::1", "10.1.0.0/24"), srv6("gone", "fcbb:bb00:1::/48", "fd00::1", "10.1.0.0/24")}, nil},
		"what this node published":       {[]any{n1, node("self", "", "192.0.2.9"), srv6("n1", "fcbb:bb00:1::/48", "fd00::1", "10.1.0.0/24"), srv6("self", "fcbb:bb00:9::/48", "fd00::9", "10.1.0.0/24")}, nil},
		"a node's own address published": {[]any{node("n1", "", "fd00::1"), srv6("n1", "fcbb:bb00:1::/48", "fd00::1")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			all := entries(t, c.objects...)
			for range 5 {
				rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				objs, problems := Assemble(all, Options{Block: block, Self: "self"})
				var got []string
				for _, p := range problems {
					got = append(got, p.String())
				}
				require.Equal(t, c.want, got)
				if c.want != nil {
					assert.Nil(t, objs.Nodes)
				} else {
					assert.NotNil(t, objs.Nodes)
				}
			}
		})
	}
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
		if _, problems := Assemble(all, Options{Block: block}); problems != nil {
			b.Fatal(problems)
		}
	}
}
