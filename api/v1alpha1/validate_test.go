package v1alpha1

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func validNode() *SRv6Node {
	n := &SRv6Node{Spec: SRv6NodeSpec{
		EncapSource: "fd00:1::1",
		Locator:     "fcbb:bb00:1::/48",
		SIDs: []SRv6SID{
			{SID: "fcbb:bb00:1::/48", Behaviour: BehaviourUN},
			{SID: "fcbb:bb00:1:e004::", Behaviour: BehaviourDT4},
			{SID: "fcbb:bb00:1:e006::", Behaviour: BehaviourDT6},
		},
		Prefixes: []string{"10.1.0.0/24", "fd00:10:1::/64"},
	}}
	n.Name = "n1"
	return n
}

func TestSRv6NodeValidate(t *testing.T) {
	require.Empty(t, validNode().Validate())
	for want, change := range map[string]func(*SRv6Node){
		`metadata.name: is missing`:                                                            func(n *SRv6Node) { n.Name = "" },
		`spec.encapSource: "" is not an IP address`:                                            func(n *SRv6Node) { n.Spec.EncapSource = "" },
		`spec.encapSource: "192.0.2.1" is not a global or unique local IPv6 unicast address`:   func(n *SRv6Node) { n.Spec.EncapSource = "192.0.2.1" },
		`spec.encapSource: "fe80::1" is not a global or unique local IPv6 unicast address`:     func(n *SRv6Node) { n.Spec.EncapSource = "fe80::1" },
		`spec.locator: "fcbb:bb00::/32" is not an IPv6 /48 (F3216)`:                            func(n *SRv6Node) { n.Spec.Locator = "fcbb:bb00::/32" },
		`spec.locator: "fcbb:bb00::/48": node ID 0x0000 is not between 0x0001 and 0xdfff`:      func(n *SRv6Node) { n.Spec.Locator = "fcbb:bb00::/48" },
		`spec.locator: "fcbb:bb00:e000::/48": node ID 0xe000 is not between 0x0001 and 0xdfff`: func(n *SRv6Node) { n.Spec.Locator = "fcbb:bb00:e000::/48" },
		`spec.sids[0].sid: "fcbb:bb00:2::/48" is not the locator fcbb:bb00:1::/48, as uN takes`: func(n *SRv6Node) {
			n.Spec.SIDs[0].SID = "fcbb:bb00:2::/48"
		},
		`spec.sids[1].sid: "fcbb:bb00:2:e004::" is not an address in the locator fcbb:bb00:1::/48`: func(n *SRv6Node) {
			n.Spec.SIDs[1].SID = "fcbb:bb00:2:e004::"
		},
		`spec.sids[2].sid: "fcbb:bb00:1:e004::" repeats spec.sids[1].sid`: func(n *SRv6Node) { n.Spec.SIDs[2].SID = "fcbb:bb00:1:e004::" },
		`spec.sids[1].sid: "10.0.0.1" is not an IPv6 address or prefix`:   func(n *SRv6Node) { n.Spec.SIDs[1].SID = "10.0.0.1" },
		`spec.sids[2].behaviour: "End.X" is not one of "uN", "End.DT4", "End.DT6"`: func(n *SRv6Node) {
			n.Spec.SIDs[2].Behaviour = "End.X"
		},
		`spec.prefixes[1]: "10.1.0.0/24" repeats spec.prefixes[0]`: func(n *SRv6Node) { n.Spec.Prefixes[1] = "10.1.0.0/24" },
		`spec.prefixes[0]: "x" is not a CIDR prefix`:               func(n *SRv6Node) { n.Spec.Prefixes[0] = "x" },
	} {
		n := validNode()
		change(n)
		err := n.Validate().Err()
		require.EqualError(t, err, want)
		var f *FieldError
		require.True(t, errors.As(err, &f))
		assert.Contains(t, want, f.Field+": ")
	}
}

func TestSRv6LocatorValidate(t *testing.T) {
	l := func(name, locator, node string) *SRv6Locator {
		l := &SRv6Locator{Spec: SRv6LocatorSpec{Locator: locator, NodeName: node}}
		l.Name = name
		return l
	}
	assert.NoError(t, l("fcbb-bb00-0001", "fcbb:bb00:1::/48", "n1").Validate().Err())
	assert.EqualError(t, l("fcbb-bb00-0002", "fcbb:bb00:1::/48", "n1").Validate().Err(),
		`metadata.name: "fcbb-bb00-0002" is not the name of locator fcbb:bb00:1::/48; write "fcbb-bb00-0001"`)
	assert.EqualError(t, l("fcbb-bb00-0001", "fcbb:bb00:1::/48", "").Validate().Err(), `spec.nodeName: is missing`)
	assert.ErrorContains(t, l("fcbb-bb00-0001", "fcbb:bb00:1::/48", "../etc").Validate().Err(), `spec.nodeName: "../etc" is not a name: `)
}
