package compile_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/compile"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

func texts(m map[netip.Prefix]dataplane.Redirect) []string {
	var out []string
	for p, r := range m {
		t := p.String()
		if r.Inner {
			t += " inner"
		}
		if r.Kernel {
			t += " kernel"
		}
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// TestRedirects: what VPP may get, and that each needs nothing that is not
// programmed.
func TestRedirects(t *testing.T) {
	res := compile.Compile(two(), compile.Target{})
	require.Equal(t, []string{"fcbb:bb00:1::/48", "fcbb:bb00:1:e004::/128 inner", "fcbb:bb00:1:e006::/128 inner"}, texts(res.Redirects.Uplink))
	require.Equal(t, []string{"10.244.1.5/32", "10.244.2.0/24", "fd10:244:1::5/128", "fd10:244:2::/64"}, texts(res.Redirects.Pods))
	for _, m := range []map[netip.Prefix]dataplane.Redirect{res.Redirects.Uplink, res.Redirects.Pods} {
		for p, r := range m {
			require.NotEmpty(t, r.Needs, p)
			for _, k := range r.Needs {
				_, held := res.State.Get(k)
				require.True(t, held, "%s needs %s, which is not programmed", p, k)
			}
		}
	}
	remote := res.Redirects.Pods[netip.MustParsePrefix("10.244.2.0/24")].Needs
	for _, k := range []dataplane.Key{
		dataplane.SteeringKey{Prefix: netip.MustParsePrefix("10.244.2.0/24")},
		dataplane.RouteKey{Prefix: v1alpha1.Locator(block, 2)},
		dataplane.InterfaceKey("up0"),
		dataplane.NeighbourKey{Interface: "up0", IP: netip.MustParseAddr("fe80::1")},
		dataplane.SettingEncapSource,
	} {
		require.Contains(t, remote, k)
	}
}

func TestTheKernelIsGivenNoRedirects(t *testing.T) {
	res := compile.Compile(two(), compile.Target{Kernel: true})
	require.Empty(t, res.Redirects.Uplink)
	require.Empty(t, res.Redirects.Pods)
}

// TestUnresolvedNextHops: answers to neighbour discovery reach the kernel alone,
// so what it has not resolved, VPP cannot use.
func TestUnresolvedNextHops(t *testing.T) {
	in := two()
	lb := v1alpha1.Locator(block, 2)
	second := netip.MustParseAddr("fe80::2")
	in.Underlay.Routes[lb] = cluster.UnderlayRoute{NextHops: []dataplane.NextHop{
		{Interface: "up0", Gateway: netip.MustParseAddr("fe80::1"), Weight: 1},
		{Interface: "up0", Gateway: second, Weight: 1},
	}}
	res := compile.Compile(in, compile.Target{})
	require.Len(t, res.State.Routes[dataplane.RouteKey{Prefix: lb}].NextHops, 1, "one of two is resolved")
	require.Contains(t, texts(res.Redirects.Pods), "10.244.2.0/24")

	in.Underlay.Neighbours = maps.Clone(in.Underlay.Neighbours)
	in.Underlay.Neighbours[dataplane.NeighbourKey{Interface: "up0", IP: second}] = dataplane.MAC{2, 0, 0, 0, 9, 8}
	res = compile.Compile(in, compile.Target{})
	require.Len(t, res.State.Routes[dataplane.RouteKey{Prefix: lb}].NextHops, 2)

	in.Underlay.Neighbours = nil
	res = compile.Compile(in, compile.Target{})
	require.NotContains(t, res.State.Routes, dataplane.RouteKey{Prefix: lb})
	require.Equal(t, []string{"10.244.1.5/32", "10.244.2.0/24 kernel", "fd10:244:1::5/128", "fd10:244:2::/64 kernel"}, texts(res.Redirects.Pods), "the kernel carries what goes there")
	kernel := compile.Compile(in, compile.Target{Kernel: true})
	require.Len(t, kernel.State.Routes[dataplane.RouteKey{Prefix: lb}].NextHops, 2, "the kernel resolves by itself")
}

// TestAPodWiredForTheKernelAlone leaves checksums to its link, and is the
// kernel's until it is restarted.
func TestAPodWiredForTheKernelAlone(t *testing.T) {
	in := two()
	e := in.Endpoints["c1/eth0"]
	e.WholeChecksums = false
	in.Endpoints["c1/eth0"] = e
	res := compile.Compile(in, compile.Target{})
	require.Equal(t, []string{"10.244.1.5/32 kernel", "10.244.2.0/24", "fd10:244:1::5/128 kernel", "fd10:244:2::/64"}, texts(res.Redirects.Pods),
		"also if its address is within another node's prefix")
	require.NotContains(t, res.State.Interfaces, dataplane.InterfaceKey("swc1"))
	require.Len(t, res.Problems, 1)
	require.Equal(t, "restart the pod, for VPP to carry it", res.Problems[0].Remedy)
	kernel := compile.Compile(in, compile.Target{Kernel: true})
	require.Contains(t, kernel.State.Interfaces, dataplane.InterfaceKey("swc1"))
	require.Empty(t, kernel.Problems)
}
