package vpp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// secondUplink joins the two nodes by one more link, of two queues.
func (n *twoNodes) secondUplink(t testing.TB) {
	t.Helper()
	at(t, n.node[0], func() {
		v := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "up1", MTU: 1500, NumRxQueues: 2, NumTxQueues: 2},
			PeerName:  "up1", PeerNamespace: netlink.NsFd(int(n.node[1])), PeerNumRxQueues: 2, PeerNumTxQueues: 2,
		}
		require.NoError(t, netlink.LinkAdd(v))
	})
	for i := range 2 {
		at(t, n.node[i], func() {
			l, err := netlink.LinkByName("up1")
			require.NoError(t, err)
			require.NoError(t, netlink.LinkSetUp(l))
		})
	}
}

// Several shared uplinks: VPP spreads flows over them by the flow label, takes
// what comes in on each, and uses all the queues that a link has.
func TestSeveralUplinks(t *testing.T) {
	n := newTwoNodes(t, withShim(t))
	n.secondUplink(t)
	for i := range 2 {
		want, peer := n.want[i].Clone(), 1-i
		want.Interfaces["up1"] = dataplane.Interface{Role: dataplane.RoleUplink}
		gw := netip.MustParseAddr(fmt.Sprintf("fd00:78::%d", peer+1))
		want.Neighbours[dataplane.NeighbourKey{Interface: "up1", IP: gw}] = dataplane.Neighbour{MAC: macOf(t, n.node[peer], "up1")}
		k := dataplane.RouteKey{Prefix: locator(peer)}
		hops := append([]dataplane.NextHop{{Interface: "up1", Gateway: gw, Weight: 1}}, want.Routes[k].NextHops...)
		dataplane.SortNextHops(hops)
		want.Routes[k] = dataplane.Route{NextHops: hops}
		at(t, n.node[i], func() { apply(t, n.backend[i], want) })
		require.Equal(t, 2, strings.Count(n.vpp[i].cli(t, "show interface rx-placement"), "up1/"), "a queue each")
	}
	var second [2]*xdp.Shim
	for i := range 2 {
		s := n.give(t, i)
		at(t, n.node[i], func() {
			l, err := findLink("up1")
			require.NoError(t, err)
			second[i], err = xdp.Find(l.index)
			require.NoError(t, err)
			t.Cleanup(func() { second[i].Close() })
			require.NoError(t, second[i].Bind(xdp.RoleUplink, s.tables))
			require.NoError(t, second[i].SetMode(xdp.ModeVPP))
			// For the count below: the others are up0 and the pod's.
			s.all = append(s.all, second[i])
		})
	}
	n.echo(t, 1)
	const flows = 64
	for f := range flows {
		c := n.dial(t, 0, ip4(1))
		ok := false
		for try := 0; try < 10 && !ok; try++ {
			ok = pingPong(c, 100, uint64(f), 300*time.Millisecond)
		}
		require.True(t, ok, "flow %d", f)
		c.Close()
	}
	for i := range 2 {
		counters, err := second[i].Counters()
		require.NoError(t, err)
		// Fair shares are 32 of 64; fewer than 8 happen once in 10^10 runs.
		require.GreaterOrEqual(t, counters["vpp"], uint64(8), "node %d: packets that came in on the second uplink: %v", i, counters)
		require.Less(t, counters["vpp"], uint64(10*flows-8), "node %d", i)
	}
	n.requireReachable(t)
}
