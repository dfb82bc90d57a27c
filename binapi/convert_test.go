package binapi

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"go.fd.io/govpp/binapi/ip_types"
)

func TestPrefixBothWays(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.0/24":            "10.1.2.0/24",
		"10.1.2.3/24":            "10.1.2.0/24", // VPP wants the host bits cleared
		"0.0.0.0/0":              "0.0.0.0/0",
		"192.0.2.1/32":           "192.0.2.1/32",
		"::/0":                   "::/0",
		"fcbb:bb00:1::/48":       "fcbb:bb00:1::/48",
		"fcbb:bb00:1:e004::/128": "fcbb:bb00:1:e004::/128",
	} {
		require.Equal(t, want, goPrefix(apiPrefix(netip.MustParsePrefix(in))).String(), in)
	}
}

func TestAddrOfMappedIsIPv4(t *testing.T) {
	a := apiAddr(netip.MustParseAddr("::ffff:192.0.2.1"))
	require.Equal(t, ip_types.ADDRESS_IP4, a.Af)
	require.Equal(t, netip.MustParseAddr("192.0.2.1"), goAddr(a))
}

func TestZoneIsDropped(t *testing.T) {
	require.Equal(t, netip.MustParseAddr("fe80::1"), goAddr(apiAddr(netip.MustParseAddr("fe80::1%eth0"))))
}

func TestAddr6OfNothingIsUnspecified(t *testing.T) {
	require.Equal(t, netip.IPv6Unspecified(), goAddr6(apiAddr6(netip.Addr{})))
}

// VPP tells the IPv6 default route as an IPv4 one.
func TestFamilyPrefix(t *testing.T) {
	wrong := ip_types.Prefix{Address: ip_types.Address{Af: ip_types.ADDRESS_IP4}, Len: 0}
	require.Equal(t, netip.MustParsePrefix("::/0"), goFamilyPrefix(wrong, true))
	require.Equal(t, netip.MustParsePrefix("0.0.0.0/0"), goFamilyPrefix(wrong, false))
	right := apiPrefix(netip.MustParsePrefix("fd00::/64"))
	require.Equal(t, netip.MustParsePrefix("fd00::/64"), goFamilyPrefix(right, true))
}

func TestPathOfHostRouteOnTheLink(t *testing.T) {
	host := netip.MustParsePrefix("10.1.0.5/32")
	p := apiPaths([]Path{{Interface: 3, Gateway: host.Addr(), Weight: 1}}, false)[0]
	require.False(t, goPath(p, host).Gateway.IsValid())
	require.Equal(t, host.Addr(), goPath(p, netip.MustParsePrefix("10.2.0.0/16")).Gateway)
}

func FuzzAddr(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1})
	f.Add(netip.MustParseAddr("fcbb:bb00::1").AsSlice())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		if got := goAddr(apiAddr(a)); got != a.Unmap() {
			t.Fatalf("%s came back as %s", a, got)
		}
		if a.Is6() && goAddr6(apiAddr6(a)) != a {
			t.Fatalf("%s came back as %s", a, goAddr6(apiAddr6(a)))
		}
	})
}

func FuzzPrefix(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, 24)
	f.Add(netip.MustParseAddr("fcbb:bb00::1").AsSlice(), 48)
	f.Fuzz(func(t *testing.T, b []byte, bits int) {
		a, ok := netip.AddrFromSlice(b)
		if !ok || a.Is4In6() {
			return
		}
		p := netip.PrefixFrom(a, bits)
		if !p.IsValid() {
			return
		}
		if got := goPrefix(apiPrefix(p)); got != p.Masked() {
			t.Fatalf("%s came back as %s", p, got)
		}
		if got := goAddrPrefix(apiAddrPrefix(p)); got != p {
			t.Fatalf("%s came back as %s", p, got)
		}
	})
}
