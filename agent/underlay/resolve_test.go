package underlay

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

func hop(dev, via string) dataplane.NextHop {
	nh := dataplane.NextHop{Interface: dev, Weight: 1}
	if via != "" {
		nh.Gateway = netip.MustParseAddr(via)
	}
	return nh
}

func route(prefix string, metric int, hops ...dataplane.NextHop) kernelRoute {
	return kernelRoute{netip.MustParsePrefix(prefix), metric, hops}
}

func TestResolve(t *testing.T) {
	target := Target{netip.MustParsePrefix("fcbb:bb00:2::/48"), netip.MustParseAddr("fd53::2:2")}
	def := route("::/0", 1024, hop("up0", "fe80::1"))
	for name, c := range map[string]struct {
		routes []kernelRoute
		want   []dataplane.NextHop
		kernel bool
	}{
		"no route at all":      {nil, nil, false},
		"default route only":   {[]kernelRoute{def}, []dataplane.NextHop{hop("up0", "fe80::1")}, false},
		"shared link":          {[]kernelRoute{def, route("fd53::/64", 256, hop("up0", ""))}, []dataplane.NextHop{hop("up0", "fd53::2:2")}, false},
		"underlay routes it":   {[]kernelRoute{def, route("fcbb:bb00:2::/48", 20, hop("up1", "fe80::3"), hop("up0", "fe80::2"))}, []dataplane.NextHop{hop("up0", "fe80::2"), hop("up1", "fe80::3")}, true},
		"an aggregate counts":  {[]kernelRoute{def, route("fcbb:bb00::/32", 20, hop("up0", "fe80::2"))}, []dataplane.NextHop{hop("up0", "fe80::2")}, true},
		"lower metric wins":    {[]kernelRoute{route("::/0", 1024, hop("up0", "fe80::1")), route("::/0", 512, hop("up1", "fe80::9"))}, []dataplane.NextHop{hop("up1", "fe80::9")}, false},
		"other interfaces out": {[]kernelRoute{def, route("fcbb:bb00:2::/48", 20, hop("docker0", "fe80::2"))}, []dataplane.NextHop{hop("up0", "fe80::1")}, false},
		"mixed ECMP keeps the uplink": {[]kernelRoute{route("fcbb:bb00:2::/48", 20, hop("docker0", "fe80::2"), hop("up0", "fe80::7"))},
			[]dataplane.NextHop{hop("up0", "fe80::7")}, true},
		"locator on a link is no next hop": {[]kernelRoute{def, route("fcbb:bb00::/32", 20, hop("up0", ""))}, []dataplane.NextHop{hop("up0", "fe80::1")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				rnd.Shuffle(len(c.routes), func(i, j int) { c.routes[i], c.routes[j] = c.routes[j], c.routes[i] })
				got := resolve([]Target{target}, c.routes, map[string]cluster.Uplink{"up0": {}, "up1": {}})
				if c.want == nil {
					require.Empty(t, got)
					continue
				}
				require.Equal(t, c.want, got[target.Locator].NextHops)
				require.Equal(t, c.kernel, got[target.Locator].InKernel)
			}
		})
	}
}
