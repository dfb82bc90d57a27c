package lab

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

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
