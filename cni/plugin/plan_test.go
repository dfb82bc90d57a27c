package plugin

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

func cidr(s string) net.IPNet {
	n, err := types.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return *n
}

func TestPlanFrom(t *testing.T) {
	table := 100
	main := mainTable
	p := netip.MustParsePrefix
	tests := map[string]struct {
		ips    []string
		routes []*types.Route
		want   []route
		err    string
	}{
		"calico-ipam":   {ips: []string{"10.1.2.3/32", "fd00::3/128"}, want: []route{{dst: default4}, {dst: default6}}},
		"IPv6 only":     {ips: []string{"fd00::3/64"}, want: []route{{dst: default6}}},
		"default given": {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{{Dst: cidr("0.0.0.0/0"), GW: net.ParseIP("10.1.2.1"), MTU: 1400}}, want: []route{{dst: default4, mtu: 1400}}},
		"default in main table by number": {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{{Dst: cidr("0.0.0.0/0"), Table: &main, Priority: 5}},
			want: []route{{dst: default4, metric: 5}}},
		"default of the other family": {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{{Dst: cidr("::/0")}}, want: []route{{dst: default4}}},
		"other routes, host bits, twice": {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{{Dst: cidr("192.0.2.77/24")}, {Dst: cidr("192.0.2.0/24")}},
			want: []route{{dst: default4}, {dst: p("192.0.2.0/24")}}},
		"other table":     {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{{Dst: cidr("0.0.0.0/0"), Table: &table}}, want: []route{{dst: default4}, {dst: default4, table: 100}}},
		"no address":      {err: "ips: no address"},
		"address twice":   {ips: []string{"10.1.2.3/24", "10.1.2.3/32"}, err: "ips[1]"},
		"useless route":   {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{{Dst: cidr("2001:db8::/32")}}, err: "routes[0].dst"},
		"route not there": {ips: []string{"10.1.2.3/24"}, routes: []*types.Route{nil}, err: "routes[0]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var ips []*current.IPConfig
			for _, s := range tt.ips {
				ips = append(ips, &current.IPConfig{Address: cidr(s)})
			}
			got, err := planFrom(ips, tt.routes)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got.routes)
			// CHECK derives the same from ADD's answer.
			res := got.result(&current.Interface{}, &current.Interface{}, types.DNS{})
			again, err := planFrom(res.IPs, res.Routes)
			require.NoError(t, err)
			require.Equal(t, got, again)
		})
	}
}

func TestNamesAndMarks(t *testing.T) {
	long := strings.Repeat("n", 250)
	for _, a := range []attachment{
		{network: "net1", containerID: strings.Repeat("f", 64), ifName: "eth0"},
		{network: long, containerID: "c", ifName: "eth0"},
		{network: "net1", containerID: long, ifName: "eth0"},
	} {
		m := mark(a)
		require.LessOrEqual(t, len(m), maxAlias)
		container, ifName, ours := marked(m, a.network)
		require.True(t, ours)
		if container != "" {
			require.Equal(t, a.containerID+a.ifName, container+ifName)
		}
		for _, other := range []string{"net", "net11", "net1:x", "other"} {
			_, _, ours = marked(m, other)
			require.False(t, ours, other)
		}
		name := HostInterface(a.containerID, a.ifName)
		require.Regexp(t, `^sw[0-9a-f]{11}$`, name)
		require.NotEqual(t, name, HostInterface(a.containerID, "eth1"))
		mac := podMAC(a.containerID, a.ifName)
		require.Equal(t, byte(2), mac[0]&3)
		require.NotEqual(t, api.GatewayMAC, mac.String())
	}
	_, _, ours := marked("", "net1")
	require.False(t, ours)
}

func TestMTU(t *testing.T) {
	for _, tt := range []struct{ conf, node, want int }{
		{0, 1460, 1460}, {1400, 1460, 1400}, {1460, 1460, 1460}, {1461, 1460, 0}, {1279, 1460, 0}, {0, 1000, 0},
	} {
		got, err := (&netConf{MTU: tt.conf}).mtu(api.NodeConfig{MTU: tt.node})
		require.Equal(t, tt.want, got)
		require.Equal(t, tt.want == 0, err != nil)
	}
}
