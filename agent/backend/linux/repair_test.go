package linux

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// follow repairs the dataplane on every signal, as the agent does.
func follow(t *testing.T, b *Backend, want dataplane.State) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, err := b.Watch(ctx)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range events {
			if have, err := b.Dump(ctx); err == nil {
				_ = b.Apply(ctx, dataplane.Diff(want, have))
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("Watch did not end with its context")
		}
	})
}

// requireSoon waits until the dataplane holds what is wanted.
func requireSoon(t *testing.T, b *Backend, want dataplane.State, within time.Duration, what string) {
	t.Helper()
	start := time.Now()
	var diff []dataplane.Change
	for time.Since(start) < within {
		have, err := b.Dump(testContext(t))
		require.NoError(t, err)
		if diff = dataplane.Diff(want, have); len(diff) == 0 {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("%s: %d objects still differ after %s, the first is %s %s", what, len(diff), within, diff[0].Op, diff[0].Key)
}

// TestRepair: what others take away, or the kernel on a flap, comes back at once.
func TestRepair(t *testing.T) {
	a, b := newPair(t, 1500)
	a.setSysctl(conf6("up0", "keep_addr_on_down"), 1) // the host's part
	other := a.netlink(t)
	follow(t, a.b, a.want)
	index := func(name string) int { return a.link(name).Attrs().Index }
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"uplink flaps", func() {
			a.down("up0")
			time.Sleep(20 * time.Millisecond)
			a.up("up0")
		}},
		{"pod's link flaps", func() { a.down("pod0"); a.up("pod0") }},
		{"uplink's MTU grows", func() { require.NoError(t, a.h.LinkSetMTU(a.link("up0"), 9000)) }},
		{"uplink's MTU shrinks", func() { require.NoError(t, a.h.LinkSetMTU(a.link("up0"), 1500)) }},
		{"pod's MTU changes", func() { require.NoError(t, a.h.LinkSetMTU(a.link("pod0"), 1300)) }},
		{"policy's group deleted", func() { require.NoError(t, other.deleteNexthop(a.groupOf(t, b, 4))) }},
		{"policy's list deleted", func() { require.NoError(t, other.deleteNexthop(a.listOf(t, b, 6))) }},
		{"steering replaced by another group", func() {
			m := other.routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK,
				slot{prefix("10.244.2.0/24"), unix.RT_TABLE_MAIN, metricSteering}, unix.RTN_UNICAST)
			m.u32(rtaNexthopID, a.groupOf(t, b, 6))
			require.NoError(t, m.do())
		}},
		{"local SID deleted", func() {
			require.NoError(t, other.routeMessage(unix.RTM_DELROUTE, unix.NLM_F_ACK,
				slot{netip.PrefixFrom(a.sid("e004"), 128), unix.RT_TABLE_MAIN, metricLocalSID}, 0).do())
		}},
		{"address deleted", func() {
			require.NoError(t, other.addressMessage(unix.RTM_DELADDR, unix.NLM_F_ACK, index("lo"), prefix("169.254.1.1/32")).do())
		}},
		{"neighbour deleted", func() {
			require.NoError(t, other.neighbourMessage(unix.RTM_DELNEIGH, unix.NLM_F_ACK, index("pod0"), a.pod6(), 0).do())
		}},
		{"pod's mark removed", func() {
			none := ""
			require.NoError(t, other.setLink(index("pod0"), linkChange{alias: &none}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.do()
			requireSoon(t, a.b, a.want, 900*time.Millisecond, c.name)
		})
	}
	at4 := listenUDP(t, b.pod, netip.AddrPortFrom(b.pod4(), 5000).String())
	exchange(t, a.pod, at4, b.pod4(), 1460)
}

func (n *labNode) groupOf(t *testing.T, to *labNode, family int) uint32 {
	t.Helper()
	n.b.mu.Lock()
	defer n.b.mu.Unlock()
	e := n.b.index.byBSID[n.bsid(to, family)]
	require.NotNil(t, e)
	return e.group
}

func (n *labNode) listOf(t *testing.T, to *labNode, family int) uint32 {
	t.Helper()
	n.b.mu.Lock()
	defer n.b.mu.Unlock()
	e := n.b.index.byBSID[n.bsid(to, family)]
	require.NotNil(t, e)
	return e.members[0].id
}

// TestWatchIsQuiet: our own changes to routes, and those of others to theirs,
// are no news.
func TestWatchIsQuiet(t *testing.T) {
	node, mac := oneNode(t)
	b := node.backend("up0")
	want := everything(t, mac)
	reach(t, b, want)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events, err := b.Watch(ctx)
	require.NoError(t, err)
	node.addr("up0", "198.51.100.7/24")
	node.defaultVia("up0", "192.0.2.9")
	for k := range want.Steerings {
		delete(want.Steerings, k)
	}
	for k := range want.Routes {
		want.Routes[k] = dataplane.Route{}
	}
	reach(t, b, want)
	select {
	case <-events:
		t.Fatal("a signal for nothing")
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, node.netlink(t).deleteNexthop(b.index.byBSID[addr("fcbb:bb00:1:eb51::4")].group))
	select {
	case <-events:
	case <-time.After(time.Second):
		t.Fatal("no signal")
	}
	cancel()
	require.Eventually(t, func() bool {
		select {
		case _, open := <-events:
			return !open
		default:
			return false
		}
	}, 5*time.Second, 5*time.Millisecond)
}

// TestLeftovers: objects that a crash in the middle of a change leaves without
// use are removed, and their ids used again.
func TestLeftovers(t *testing.T) {
	node, mac := oneNode(t)
	c := node.netlink(t)
	lo := node.link("lo").Attrs().Index
	for i := range uint32(3) {
		require.NoError(t, c.addSegmentList(NexthopIDFirst+i, []netip.Addr{addr("fcbb:bb00:9::")}, lo))
	}
	require.NoError(t, c.setGroup(NexthopIDFirst+3, []weighted{{NexthopIDFirst, 1}, {NexthopIDFirst + 1, 1}}, true))
	b := node.backend("up0")
	want := everything(t, mac)
	reach(t, b, want)
	reach(t, b, want)
	count := 0
	require.NoError(t, c.dumpNexthops(func(nexthop) { count++ }, func() { count = 0 }))
	require.Equal(t, 3+5, count, "three groups and their lists")
}

// TestApplyWithoutDump: an instance that is told to change things at once learns
// what is there first.
func TestApplyWithoutDump(t *testing.T) {
	node, mac := oneNode(t)
	want := everything(t, mac)
	reach(t, node.backend("up0"), want)
	fresh := node.backend("up0")
	k := dataplane.PolicyKey{BSID: addr("fcbb:bb00:1:eb51::4")}
	want.Policies[k] = policy(list(2, "fcbb:bb00:5:e004::"), list(1, "fcbb:bb00:6:e004::"))
	require.NoError(t, fresh.Apply(testContext(t), []dataplane.Change{{Op: dataplane.OpUpdate, Key: k, New: want.Policies[k]}}))
	reach(t, fresh, want)
}

// TestManyPolicies: programming is fast enough for large clusters.
func TestManyPolicies(t *testing.T) {
	const count = 5000
	node, _ := oneNode(t)
	b := node.backend("up0")
	want := dataplane.New()
	for i := range count {
		bsid := addr(fmt.Sprintf("fcbb:bb00:1:eb51::%x", i+1))
		want.Policies[dataplane.PolicyKey{BSID: bsid}] = policy(list(1, fmt.Sprintf("fcbb:bb00:%x:e004::", i+1)))
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		want.Steerings[dataplane.SteeringKey{Prefix: p}] = dataplane.Steering{BSID: bsid}
	}
	timed := func(what string, limit time.Duration, f func()) {
		start := time.Now()
		f()
		took := time.Since(start)
		t.Logf("%s: %s", what, took.Round(time.Millisecond))
		require.Less(t, took, limit, what)
	}
	ctx := testContext(t)
	timed("add", 20*time.Second, func() { require.NoError(t, b.Apply(ctx, dataplane.Diff(want, dataplane.New()))) })
	timed("dump", 5*time.Second, func() {
		have, err := b.Dump(ctx)
		require.NoError(t, err)
		require.Empty(t, dataplane.Diff(want, have))
	})
	timed("change", 20*time.Second, func() {
		changed := want.Clone()
		for k := range changed.Policies {
			changed.Policies[k] = policy(list(1, "fcbb:bb00:9:e004::"))
		}
		require.NoError(t, b.Apply(ctx, dataplane.Diff(changed, want)))
	})
	timed("delete", 20*time.Second, func() { require.NoError(t, b.Apply(ctx, dataplane.Diff(dataplane.New(), want))) })
	have, err := b.Dump(ctx)
	require.NoError(t, err)
	require.Empty(t, have.Text())
}
