package linux

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// TestSteeringOutlivesFailedMove: the policy that traffic is to move to cannot
// be made, and the old one is deleted in the same Apply. Traffic goes on.
func TestSteeringOutlivesFailedMove(t *testing.T) {
	a, b := newPair(t, 1500)
	ctx := testContext(t)
	before := a.want.Clone()
	at4 := listenUDP(t, b.pod, netip.AddrPortFrom(b.pod4(), 5000).String())
	old, next := dataplane.PolicyKey{BSID: a.bsid(b, 4)}, dataplane.PolicyKey{BSID: a.bsid(b, 9)}
	steering := dataplane.SteeringKey{Prefix: prefix("10.244.2.0/24")}
	tooMany := make([]string, 200)
	for i := range tooMany {
		tooMany[i] = b.sid("e000").String()
	}
	a.want.Delete(old)
	a.want.Policies[next] = policy(list(1, tooMany...))
	a.want.Steerings[steering] = dataplane.Steering{BSID: next.BSID}
	for range 3 {
		have, err := a.b.Dump(ctx)
		require.NoError(t, err)
		failed, rest := dataplane.Failures(a.b.Apply(ctx, dataplane.Diff(a.want, have)))
		require.NoError(t, rest)
		require.Len(t, failed, 3)
		require.Error(t, failed[next])
		require.ErrorIs(t, failed[steering], dataplane.ErrNotReady)
		require.ErrorIs(t, failed[old], dataplane.ErrNotReady)
		require.ErrorContains(t, failed[old], steering.String())
		have, err = a.b.Dump(ctx)
		require.NoError(t, err)
		require.Equal(t, before.Text(), have.Text())
		exchange(t, a.pod, at4, b.pod4(), 1460)
	}
	a.want.Policies[next] = policy(list(1, b.sid("e004").String()))
	reach(t, a.b, a.want)
	exchange(t, a.pod, at4, b.pod4(), 1460)
}

// TestPolicyInUseOfOthers: what is steered into a policy is looked up in the
// kernel, not remembered: another instance may have steered meanwhile. Within
// one Apply, the changes before count.
func TestPolicyInUseOfOthers(t *testing.T) {
	node, mac := oneNode(t)
	b, other := node.backend("up0"), node.backend("up0")
	want := everything(t, mac)
	late := dataplane.SteeringKey{Table: 1000, Prefix: prefix("10.99.0.0/24")}
	k := dataplane.PolicyKey{BSID: addr("fcbb:bb00:1:eb51::4")}
	first := dataplane.SteeringKey{Prefix: prefix("10.2.0.0/24")}
	reach(t, b, want)
	one := func(op dataplane.Op, key dataplane.Key, v dataplane.Value) dataplane.Change {
		return dataplane.Change{Op: op, Key: key, New: v}
	}
	require.NoError(t, other.Apply(testContext(t), []dataplane.Change{one(dataplane.OpAdd, late, dataplane.Steering{BSID: k.BSID})}))

	refused := func(says string, changes ...dataplane.Change) {
		t.Helper()
		failed, rest := dataplane.Failures(b.Apply(testContext(t), changes))
		require.NoError(t, rest)
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[k], dataplane.ErrNotReady)
		require.ErrorContains(t, failed[k], says)
	}
	del := one(dataplane.OpDelete, k, nil)
	refused(late.String(), one(dataplane.OpDelete, first, nil), del)
	require.NoError(t, b.Apply(testContext(t), []dataplane.Change{one(dataplane.OpDelete, late, nil)}))
	refused(first.String(), one(dataplane.OpAdd, first, dataplane.Steering{BSID: k.BSID}), del)
	// Too early, then in time: the second look is a fresh one.
	refused(first.String(), del, one(dataplane.OpDelete, first, nil), del)
	have, err := b.Dump(testContext(t))
	require.NoError(t, err)
	require.NotContains(t, have.Policies, k)
}

// cutOff is a context that ends after it was asked a number of times.
type cutOff struct {
	context.Context
	left int
}

func (c *cutOff) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestContextEnds: the end of the context is said once, beside what failed.
func TestContextEnds(t *testing.T) {
	node := newSpace(t)
	b := node.backend()
	_, err := b.Dump(testContext(t))
	require.NoError(t, err)
	route := func(p string) dataplane.RouteKey { return dataplane.RouteKey{Prefix: prefix(p)} }
	changes := []dataplane.Change{{Op: dataplane.OpAdd, Key: dataplane.InterfaceKey("absent0"), New: dataplane.Interface{Role: dataplane.RolePod}}}
	for _, p := range []string{"10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"} {
		changes = append(changes, dataplane.Change{Op: dataplane.OpAdd, Key: route(p), New: dataplane.Route{}})
	}
	err = b.Apply(&cutOff{testContext(t), 3}, changes) // at the start, and before two changes
	require.ErrorIs(t, err, context.Canceled)
	failed, rest := dataplane.Failures(err)
	require.Equal(t, context.Canceled.Error(), rest.Error())
	require.Len(t, failed, 1)
	require.ErrorIs(t, failed[dataplane.InterfaceKey("absent0")], dataplane.ErrNotReady)
	have, err := b.Dump(testContext(t))
	require.NoError(t, err)
	require.Equal(t, "route/10.1.0.0/24 = drop", have.Text())
}

// TestOtherUplink: a backend keeps to the uplinks it was opened with, and says
// what to do about another.
func TestOtherUplink(t *testing.T) {
	node, _ := oneNode(t)
	add := []dataplane.Change{{Op: dataplane.OpAdd, Key: dataplane.InterfaceKey("far0"), New: dataplane.Interface{Role: dataplane.RoleUplink}}}
	for _, c := range []struct {
		uplinks []string
		says    string
	}{{nil, "without any"}, {[]string{"up0", "up1"}, "with up0, up1"}} {
		err := node.backend(c.uplinks...).Apply(testContext(t), add)
		require.ErrorIs(t, err, dataplane.ErrUnsupported)
		for _, says := range []string{"far0", c.says, "restart the agent", `"uplinks"`} {
			require.ErrorContains(t, err, says)
		}
	}
	require.NoError(t, node.backend("far0").Apply(testContext(t), add))
}
