package linux

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// read is every object of others in the namespace, as text, less what the kernel
// makes by itself when a link comes up.
func (f *foreigners) read(t *testing.T) string {
	t.Helper()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	c := f.netlink(t)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		require.NoError(t, c.dumpRoutes(family, unix.RT_TABLE_MAIN, 0, nil, func(r kernelRoute) {
			if r.protocol != Protocol && r.protocol != unix.RTPROT_KERNEL {
				add("%s protocol %d type %d %v", r.slot, r.protocol, r.kind, r.hops)
			}
		}))
		require.NoError(t, c.addresses(family, 0, nil, func(a kernelAddress) {
			if a.protocol != Protocol && !a.prefix.Addr().IsLinkLocalUnicast() {
				add("address %s on %d", a.prefix, a.index)
			}
		}))
		h := make([]byte, sizeofNdMsg)
		h[0] = family
		require.NoError(t, c.dump(unix.RTM_GETNEIGH, h, nil, unix.RTM_NEWNEIGH, nil, func(b []byte) error {
			n, err := parseNeighbour(b)
			if n.protocol != Protocol && n.state&unix.NUD_PERMANENT != 0 {
				add("neighbour %s at %s on %d", n.ip, n.mac, n.index)
			}
			return err
		}))
	}
	require.NoError(t, c.dump(unix.RTM_GETNEXTHOP, make([]byte, sizeofNhMsg), nil, unix.RTM_NEWNEXTHOP, nil, func(b []byte) error {
		if n, ours := parseNexthop(b); !ours {
			add("nexthop %d", n.id)
		}
		return nil
	}))
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestConflict: what holds our very place stays, and we say so.
func TestConflict(t *testing.T) {
	node, mac := oneNode(t)
	b := node.backend("up0")
	c := node.netlink(t)
	up := node.link("up0").Attrs().Index
	want := everything(t, mac)
	var keys []dataplane.Key
	hold := func(k dataplane.Key, s slot) {
		keys = append(keys, k)
		m := c.routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, s, unix.RTN_UNICAST)
		m.Data[0].(fixed)[5] = unix.RTPROT_STATIC
		m.addHops(familyOf(s.prefix.Addr()), []hop{{index: up, weight: 1}})
		require.NoError(t, m.do())
	}
	for _, p := range []string{"10.1.0.0/24", "fd00:1::/64", "10.9.0.0/24", "fcbb:bb00:3::/48"} {
		hold(dataplane.RouteKey{Prefix: prefix(p)}, slot{prefix(p), unix.RT_TABLE_MAIN, metricRoute})
	}
	for _, p := range []string{"10.2.0.0/24", "fd00:2::/64"} {
		hold(dataplane.SteeringKey{Prefix: prefix(p)}, slot{prefix(p), unix.RT_TABLE_MAIN, metricSteering})
	}
	hold(dataplane.LocalSIDKey{SID: prefix("fcbb:bb00:1:e006::/128")}, slot{prefix("fcbb:bb00:1:e006::/128"), unix.RT_TABLE_MAIN, metricLocalSID})
	for _, a := range []string{"169.254.1.1/32", "fd00:99::1/128"} {
		node.addr("lo", a)
		keys = append(keys, dataplane.AddressKey{Interface: "lo", Prefix: prefix(a)})
	}
	others := &foreigners{space: node}
	before := others.read(t)

	failed, rest := dataplane.Failures(b.Apply(testContext(t), dataplane.Diff(want, dataplane.New())))
	require.NoError(t, rest)
	for _, k := range keys {
		require.Contains(t, failed, k)
		require.ErrorIs(t, failed[k], ErrConflict)
		want.Delete(k)
		delete(failed, k)
	}
	require.Empty(t, failed)
	have, err := b.Dump(testContext(t))
	require.NoError(t, err)
	require.Equal(t, want.Text(), have.Text(), "all else is in place")
	require.Equal(t, before, others.read(t))

	// Deleting what is not ours succeeds, as it is absent, and takes nothing.
	var del []dataplane.Change
	for _, k := range keys {
		del = append(del, dataplane.Change{Op: dataplane.OpDelete, Key: k})
	}
	require.NoError(t, b.Apply(testContext(t), del))
	require.Equal(t, before, others.read(t))
}
