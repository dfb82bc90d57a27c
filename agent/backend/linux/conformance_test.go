package linux

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/test/conformance"
)

func TestConformance(t *testing.T) {
	unsupported := []dataplane.SettingKey{dataplane.SettingEncapHopLimit, dataplane.SettingFlowHash}
	if !canSetSource(t) {
		unsupported = append(unsupported, dataplane.SettingEncapSource)
	}
	conformance.Run(t, conformance.Harness{New: newBench, UnsupportedSettings: unsupported})
}

func newBench(t *testing.T) *conformance.Bench {
	node := newSpace(t)
	veth(t, node, "up0", node, "far0", 1500)
	for _, p := range []string{"pod0", "pod1", "pod2"} {
		veth(t, node, p, node, "in-"+p, 1500)
	}
	node.addr("up0", "fd53:77::1/64")
	node.addr("up0", "192.0.2.1/24")
	f := &foreigners{space: node}
	return &conformance.Bench{
		Backend: node.backend("up0"),
		Reopen:  func(t *testing.T) dataplane.Backend { return node.backend("up0") },
		Uplink:  "up0", Gateway: addr("fd53:77::2"),
		Pods:         []string{"pod0", "pod1"},
		MakeLink:     func(t *testing.T, name string) { veth(t, node, name, node, "in-late", 1500) },
		PlantForeign: f.plant,
		CheckForeign: f.check,
	}
}

// foreigners are objects of others that lie as close to ours as can be.
type foreigners struct {
	*space
	text string
}

func (f *foreigners) plant(t *testing.T) {
	up := f.link("up0").Attrs().Index
	route := func(dst string, gw string, protocol, metric int) {
		_, n, err := net.ParseCIDR(dst)
		require.NoError(t, err)
		require.NoError(t, f.h.RouteAdd(&netlink.Route{
			LinkIndex: up, Dst: n, Gw: net.ParseIP(gw), Protocol: netlink.RouteProtocol(protocol), Priority: metric,
			Flags: int(netlink.FLAG_ONLINK),
		}))
	}
	// The suite's own prefixes, at other metrics, by other protocols.
	for _, r := range []struct{ dst, gw string }{
		{"10.244.1.10/32", "192.0.2.77"}, {"10.244.9.0/24", "192.0.2.77"}, {"10.244.2.0/24", "192.0.2.77"},
		{"fd10:244:1::a/128", "fd53:77::77"}, {"fd10:244:2::/64", "fd53:77::77"}, {"fcbb:bb00:2::/48", "fd53:77::77"},
	} {
		route(r.dst, r.gw, unix.RTPROT_STATIC, 500)
		route(r.dst, r.gw, 12, 600)
	}
	// Our metrics, with prefixes that nobody else uses.
	route("10.77.0.0/24", "192.0.2.77", unix.RTPROT_STATIC, metricRoute)
	route("fd77::/64", "fd53:77::77", unix.RTPROT_BGP, metricSteering)
	f.addr("lo", "198.51.100.1/32")
	f.addr("up0", "fd53:77::1234/64")
	require.NoError(t, f.h.NeighSet(&netlink.Neigh{
		LinkIndex: up, Family: unix.AF_INET6, State: unix.NUD_PERMANENT,
		IP: net.ParseIP("fd53:77::77"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 7, 7},
	}))
	// A nexthop with an id of ours and one of theirs, both by another protocol.
	c := f.netlink(t)
	for _, id := range []uint32{NexthopIDFirst, NexthopIDFirst + 3, 77} {
		m := c.nexthopMessage(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, unix.AF_INET6, unix.RTPROT_STATIC)
		m.u32(nhaID, id)
		m.u32(nhaOIF, uint32(up))
		require.NoError(t, m.do())
	}
	f.text = f.read(t)
}

func (f *foreigners) check(t *testing.T) {
	t.Helper()
	require.Equal(t, f.text, f.read(t))
}

// netlink opens a second connection to the kernel.
func (s *space) netlink(t *testing.T) *conn {
	var c *conn
	s.in(func() (err error) { c, err = newConn(); return err })
	t.Cleanup(c.close)
	return c
}
