package vpp

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// lists are a policy's segment lists in VPP.
func lists(t *testing.T, c *binapi.Conn, bsid netip.Addr) []binapi.SegmentList {
	t.Helper()
	var all []binapi.Policy
	require.NoError(t, do(context.Background(), c, binapi.SRPolicyLists(&all)))
	i := slices.IndexFunc(all, func(p binapi.Policy) bool { return p.BSID == bsid })
	require.GreaterOrEqual(t, i, 0)
	return all[i].Lists
}

func indexes(l []binapi.SegmentList) []uint32 {
	out := make([]uint32, len(l))
	for i := range l {
		out[i] = l[i].Index
	}
	return out
}

// A change of the outer source that ends anywhere must be made whole by the
// next instance: no list that was there before may stay, as VPP does not tell
// which source it has. (While all old lists are there, no new one can get the
// index of an old one.)
func TestEncapSourceChangeThatWasCutShort(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	ctx := context.Background()
	s := dataplane.New()
	s.Settings[dataplane.SettingEncapSource] = "fd00::1"
	paths := []dataplane.SegmentList{
		{Segments: []netip.Addr{sid(1, 0xe004)}, Weight: 1},
		{Segments: []netip.Addr{sid(2, 0), sid(1, 0xe004)}, Weight: 3},
	}
	dataplane.SortSegmentLists(paths)
	s.Policies[dataplane.PolicyKey{BSID: bsid(0, 1)}] = dataplane.Policy{SegmentLists: paths}
	s.Policies[dataplane.PolicyKey{BSID: bsid(0, 2)}] = onePath(sid(1, 0xe006))
	apply(t, newBackend(t, m, Options{}), s)

	c, err := binapi.Dial(ctx, binapi.Options{Socket: m.socket()})
	require.NoError(t, err)
	defer c.Close()
	// begin does what a change does before the lists; the last of the sources
	// is the one that stays.
	begin := func(t *testing.T, source string) {
		v, err := readView(ctx, c)
		require.NoError(t, err)
		require.NoError(t, do(ctx, c,
			binapi.InterfaceSetTag(v.lo.Index, v.lo.tag.with(flagEncapSource, false).String()),
			binapi.SRSetEncapSource(netip.MustParseAddr(source))))
	}
	again := func(t *testing.T, l binapi.SegmentList) {
		call, err := binapi.SRPolicyAddList(bsid(0, 1), l)
		require.NoError(t, err)
		require.NoError(t, do(ctx, c, call))
	}
	for _, e := range []struct {
		name, source string
		cut          func(*testing.T, []binapi.SegmentList)
	}{
		{"before the lists", "fd00::2", func(*testing.T, []binapi.SegmentList) {}},
		{"after the first new list", "fd00::3", func(t *testing.T, l []binapi.SegmentList) { again(t, l[0]) }},
		{"after all new lists", "fd00::4", func(t *testing.T, l []binapi.SegmentList) { again(t, l[0]); again(t, l[1]) }},
		// Lists now have indexes that were others' before: newer ones may be lower.
		{"after all new lists, again", "fd00::5", func(t *testing.T, l []binapi.SegmentList) { again(t, l[0]); again(t, l[1]) }},
		{"after the first removal", "fd00::6", func(t *testing.T, l []binapi.SegmentList) {
			again(t, l[0])
			again(t, l[1])
			require.NoError(t, do(ctx, c, binapi.SRPolicyDelList(bsid(0, 1), l[0].Index)))
		}},
		{"twice", "fd00::7", func(t *testing.T, l []binapi.SegmentList) {
			again(t, l[0])
			begin(t, "fd00::7")
			again(t, l[0])
			again(t, l[1])
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			begin(t, e.source)
			e.cut(t, lists(t, c, bsid(0, 1)))
			before := [][]uint32{indexes(lists(t, c, bsid(0, 1))), indexes(lists(t, c, bsid(0, 2)))}
			s.Settings[dataplane.SettingEncapSource] = dataplane.Setting(e.source)
			apply(t, newBackend(t, m, Options{}), s)
			for i, was := range before {
				for _, l := range lists(t, c, bsid(0, i+1)) {
					require.NotContains(t, was, l.Index, "this list may have the old source")
				}
			}
			var all []binapi.Policy
			require.NoError(t, do(ctx, c, binapi.SRPolicies(&all)))
			for _, p := range all {
				require.Equal(t, e.source, p.EncapSource.String())
			}
		})
	}
}

// With the setting in force, only the policies that somebody else changed are
// made anew.
func TestEncapSourceThatIsInForceIsLeftAlone(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{})
	ctx := context.Background()
	s := manyNodes(2)
	s.Settings[dataplane.SettingEncapSource] = "fd00::1"
	apply(t, b, s)
	c, err := binapi.Dial(ctx, binapi.Options{Socket: m.socket()})
	require.NoError(t, err)
	defer c.Close()
	var keys []netip.Addr
	for k := range s.Policies {
		keys = append(keys, k.BSID)
	}
	kept, changed := lists(t, c, keys[0]), lists(t, c, keys[1])
	call, err := binapi.SRPolicyAddList(keys[1], changed[0])
	require.NoError(t, err)
	require.NoError(t, do(ctx, c, call))
	require.NoError(t, b.Apply(ctx, []dataplane.Change{{Op: dataplane.OpAdd, Key: dataplane.SettingEncapSource, New: dataplane.Setting("fd00::1")}}))
	require.Equal(t, kept, lists(t, c, keys[0]))
	now := lists(t, c, keys[1])
	require.Len(t, now, 1)
	require.NotContains(t, []uint32{changed[0].Index, changed[0].Index + 1}, now[0].Index)
}

// Of equal lists the newest stays.
func TestPlanKeepsTheNewestOfEqualLists(t *testing.T) {
	a := &applier{Backend: &Backend{opts: Options{Locator: locator(0)}}}
	one := func(index uint32) binapi.SegmentList {
		return binapi.SegmentList{Segments: []netip.Addr{sid(1, 0)}, Weight: 1, Index: index}
	}
	for _, e := range []struct{ have, gone []uint32 }{
		{[]uint32{4, 9}, []uint32{4}},
		{[]uint32{9, 4}, []uint32{9}}, // VPP gave out a freed index
		{[]uint32{1, 2, 3}, []uint32{2, 1}},
		{[]uint32{5}, nil},
	} {
		old := binapi.Policy{BSID: bsid(0, 1), Encap: true}
		for _, i := range e.have {
			old.Lists = append(old.Lists, one(i))
		}
		p, err := a.plan(bsid(0, 1), onePath(sid(1, 0)), old, true)
		require.NoError(t, err)
		require.Empty(t, p.make)
		require.Equal(t, e.gone, p.remove)
	}
}
