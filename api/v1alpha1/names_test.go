package v1alpha1

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLocatorNameAndBack(t *testing.T) {
	block := netip.MustParsePrefix("fcbb:bb00::/32")
	for id, want := range map[uint16]string{1: "fcbb-bb00-0001", 0x0abc: "fcbb-bb00-0abc", MaxNodeID: "fcbb-bb00-dfff"} {
		locator := Locator(block, id)
		require.True(t, locator.IsValid())
		assert.Equal(t, id, NodeID(locator))
		assert.Equal(t, want, LocatorName(locator))
		back, err := ParseLocatorName(want)
		require.NoError(t, err)
		assert.Equal(t, locator, back)
	}
}

func TestLocatorOfNothing(t *testing.T) {
	block := netip.MustParsePrefix("fcbb:bb00::/32")
	assert.False(t, Locator(block, 0).IsValid(), "node ID 0")
	assert.False(t, Locator(block, MaxNodeID+1).IsValid(), "local C-SID range")
	assert.False(t, Locator(netip.Prefix{}, 1).IsValid())
	assert.False(t, Locator(netip.MustParsePrefix("fcbb:bb00::/40"), 1).IsValid())
	assert.False(t, Locator(netip.MustParsePrefix("10.0.0.0/32"), 1).IsValid())
	assert.Empty(t, LocatorName(block))
	assert.Empty(t, LocatorName(netip.Prefix{}))
}

func TestParseLocatorNameRefuses(t *testing.T) {
	for _, name := range []string{"", "fcbb-bb00", "fcbb-bb00-0001-0002", "fcbb-bb00-1", "FCBB-bb00-0001", "fcbb-bb00-00g1", "fcbb-bb00-+001"} {
		_, err := ParseLocatorName(name)
		assert.Error(t, err, name)
	}
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.0.0/24":        "",
		"fd00:10::/64":       "",
		"10.1.0.0/33":        `"10.1.0.0/33" is not a CIDR prefix`,
		"10.1.0.0":           `"10.1.0.0" is not a CIDR prefix`,
		"10.1.0.9/24":        `"10.1.0.9/24" has bits set beyond its length; write "10.1.0.0/24": not canonical`,
		"::ffff:1.2.3.0/120": `"::ffff:1.2.3.0/120" is an IPv4-mapped IPv6 prefix; write it as IPv4`,
		"0.0.0.0/0":          `"0.0.0.0/0" holds every address`,
		"ff02::/16":          `"ff02::/16" is not a prefix of routed unicast addresses`,
	} {
		_, err := ParsePrefix(in)
		if want == "" {
			assert.NoError(t, err, in)
		} else {
			assert.EqualError(t, err, want)
		}
	}
	_, err := ParsePrefix("10.1.0.9/24")
	assert.ErrorIs(t, err, ErrNotCanonical)
}

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":        "",
		"fd00::1":          "",
		"fd00::g":          `"fd00::g" is not an IP address`,
		"fe80::1%eth0":     `"fe80::1%eth0" has a zone, which means something on one host only`,
		"::ffff:192.0.2.1": `"::ffff:192.0.2.1" is an IPv4-mapped IPv6 address; write "192.0.2.1"`,
		"::":               `"::" is not a host's unicast address`,
		"127.0.0.1":        `"127.0.0.1" is not a host's unicast address`,
		"255.255.255.255":  `"255.255.255.255" is not a host's unicast address`,
	} {
		_, err := ParseAddr(in)
		if want == "" {
			assert.NoError(t, err, in)
		} else {
			assert.EqualError(t, err, want)
		}
	}
}
