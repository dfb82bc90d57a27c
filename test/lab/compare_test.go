package lab

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/status"
)

// What VPP 25.10 prints.
const (
	shownPolicies = `SR policies:
[0].-	BSID: fcbb:bb00:1:eb51:2::4
	Behavior: Encapsulation
	EncapSrcIP: fd53:77:0:1::2
	Type: Default
	FIB table: 0
	Segment Lists:
  	[0].- < fcbb:bb00:2:e004:: > weight: 1
-----------
`
	shownSteering = `SR steering policies:
Traffic		SR policy BSID
L3 10.244.2.0/24	fcbb:bb00:1:eb51:2::4
`
	shownSIDs = `SRv6 - My LocalSID Table:
=========================
	Address: 	fcbb:bb00:1:e004::/128
	Behavior: 	DT4 (Endpoint with decapsulation and specific IPv4 table lookup)
	Table: 	0
	Good traffic: 	[22181 packets : 3430828 bytes]
	Bad traffic:  	[3 packets : 0 bytes]
--------------------
`
)

func TestCompareWithVPP(t *testing.T) {
	policy := status.Policy{BSID: "fcbb:bb00:1:eb51:2::4", Lists: []string{"[fcbb:bb00:2:e004::]"}, Prefixes: []string{"10.244.2.0/24"}}
	with := func(change func(*status.Policy)) []status.Policy {
		p := policy
		change(&p)
		return []status.Policy{p}
	}
	same := []status.Policy{policy}
	require.NoError(t, comparePolicies("n", same, shownPolicies))
	require.NoError(t, compareSteering("n", same, shownSteering))
	require.NoError(t, compareSIDs("n", []status.SID{{SID: "fcbb:bb00:1:e004::/128"}}, shownSIDs))

	require.ErrorContains(t, comparePolicies("n", with(func(p *status.Policy) { p.BSID = "fcbb:bb00:1:eb51:3::4" }), shownPolicies), "BSID fcbb:bb00:1:eb51:3::4 is missing")
	require.ErrorContains(t, comparePolicies("n", with(func(p *status.Policy) { p.Lists = []string{"[fcbb:bb00:9:e004::]"} }), shownPolicies), "segment fcbb:bb00:9:e004::")
	require.ErrorContains(t, comparePolicies("n", nil, shownPolicies), "1 policies, the status has 0", "VPP has one more")
	require.ErrorContains(t, compareSteering("n", with(func(p *status.Policy) { p.Prefixes = []string{"10.244.3.0/24"} }), shownSteering), "10.244.3.0/24")
	require.ErrorContains(t, compareSteering("n", with(func(p *status.Policy) { p.BSID = "fcbb:bb00:1:eb51:3::4" }), shownSteering), "10.244.2.0/24 into BSID")
	require.ErrorContains(t, compareSIDs("n", []status.SID{{SID: "fcbb:bb00:1:e006::/128"}}, shownSIDs), "fcbb:bb00:1:e006::/128")
}

func TestGoodTraffic(t *testing.T) {
	require.Equal(t, map[netip.Addr]uint64{netip.MustParseAddr("fcbb:bb00:1:e004::"): 22181}, goodTraffic(shownSIDs))
	require.Empty(t, goodTraffic(""))
}

func TestDepartedIsFoundInText(t *testing.T) {
	d := Departed{Locator: netip.MustParsePrefix("fcbb:bb00:2::/48"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}
	for line, want := range map[string]bool{
		"  	[0].- < fcbb:bb00:2:e004:: > weight: 1": true,
		"fcbb:bb00:2::/48":                          true,
		"L3 10.244.2.0/24	fcbb:bb00:1:eb51:2::4":    true,
		"via 10.244.2.7, weight 1":                  true,
		"BSID: fcbb:bb00:1:eb51:2::4":               false,
		"10.244.20.0/24":                            false,
		"fcbb:bb00:20::/48":                         false,
		"ipv6-VRF:0, fib_index:0":                   false,
		"":                                          false,
	} {
		require.Equal(t, want, d.in(line), line)
	}
	for dst, want := range map[string]bool{
		"fcbb:bb00:2::/48": true, "fcbb:bb00:2:e004::/128": true, "10.244.2.0/24": true, "10.244.2.9/32": true,
		"10.244.0.0/16": false, "fcbb:bb00::/32": false, "10.244.3.0/24": false, "nonsense": false,
	} {
		require.Equal(t, want, d.overlaps(dst), dst)
	}
}
