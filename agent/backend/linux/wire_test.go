package linux

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

func TestSeg6Encoding(t *testing.T) {
	first, last := addr("fcbb:bb00:2::"), addr("fcbb:bb00:3:e004::")
	b, err := encodeSeg6([]netip.Addr{first, last})
	require.NoError(t, err)
	require.Equal(t, ""+
		"30000100"+ // attribute: 48 bytes, SEG6_IPTUNNEL_SRH
		"03000000"+ // encap.red
		"0004040101000000"+ // length 4, type 4, 1 segment left, last entry 1 (RFC 8754 §2)
		"fcbbbb000003e0040000000000000000"+ // in reverse
		"fcbbbb00000200000000000000000000",
		hex.EncodeToString(b))
	got, ok := decodeSeg6(b)
	require.True(t, ok)
	require.Equal(t, []netip.Addr{first, last}, got)

	for name, bad := range map[string][]netip.Addr{
		"none": nil, "IPv4": {addr("192.0.2.1")}, "too many": make([]netip.Addr, maxSegments+1),
	} {
		_, err := encodeSeg6(bad)
		require.Error(t, err, name)
	}
	b[4] = 1 // not reduced
	_, ok = decodeSeg6(b)
	require.False(t, ok)
	_, ok = decodeSeg6(b[:10])
	require.False(t, ok)
}

func TestLocalSIDEncoding(t *testing.T) {
	for _, c := range []struct{ give, want dataplane.LocalSID }{
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}, dataplane.LocalSID{Behaviour: dataplane.BehaviourEnd}},
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}, dataplane.LocalSID{Behaviour: dataplane.BehaviourUN}},
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6, Table: 254}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6}},
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6, Table: 9}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT6, Table: 9}},
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4, Table: 254}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4}},
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4, Table: 9}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT4, Table: 9}},
		{dataplane.LocalSID{Behaviour: dataplane.BehaviourDT46, Table: 9}, dataplane.LocalSID{Behaviour: dataplane.BehaviourDT46, Table: 9}},
	} {
		b, err := encodeLocalSID(c.give)
		require.NoError(t, err)
		require.Equal(t, c.want, decodeLocalSID(b))
	}
	// The kernel's own End.DT6 in the main table passes netfilter by: one that is
	// there already is to be replaced.
	own := append(nl.NewRtAttr(seg6LocalAction, nl.Uint32Attr(seg6ActionDT6)).Serialize(), nl.NewRtAttr(seg6LocalTable, nl.Uint32Attr(254)).Serialize()...)
	require.Equal(t, dataplane.LocalSID{}, decodeLocalSID(own))
	_, err := encodeLocalSID(dataplane.LocalSID{Behaviour: "End.X"})
	require.ErrorIs(t, err, dataplane.ErrUnsupported)
	require.Equal(t, dataplane.LocalSID{}, decodeLocalSID(nil), "unknown behaviours differ from all")
}

func TestMalformedAttributes(t *testing.T) {
	for _, s := range []string{"", "0400", "03000100", "ff000100aa", "0000010000000000"} {
		b, err := hex.DecodeString(s)
		require.NoError(t, err)
		require.Empty(t, attributes(b), s)
	}
	require.Len(t, attributes([]byte{5, 0, 1, 0, 0xaa}), 1, "the last may lack its padding")
}

func TestOverhead(t *testing.T) {
	for n, want := range map[int]uint32{1: 40, 2: 64, 3: 80} {
		require.Equal(t, want, reducedOverhead(n))
		e := &policyEntry{members: []member{{segments: make([]netip.Addr, 1)}, {segments: make([]netip.Addr, n)}}}
		require.Equal(t, 1500-want, e.lockedMTU(1500)-kernelHeadroom(n), "what the kernel lets pass")
		require.LessOrEqual(t, e.lockedMTU(1500)-kernelHeadroom(1), 1500-reducedOverhead(1))
		require.Zero(t, e.lockedMTU(0))
	}
}

func TestScaleWeights(t *testing.T) {
	for _, c := range []struct {
		give, want []uint32
		limit      uint32
	}{
		{[]uint32{1, 255}, []uint32{1, 255}, 255},
		{[]uint32{0, 3}, []uint32{1, 3}, 255},
		{[]uint32{1000, 500, 1}, []uint32{255, 128, 1}, 255},
		{[]uint32{1<<32 - 1, 1 << 31}, []uint32{65535, 32768}, 65535},
	} {
		var p dataplane.Policy
		for i, w := range c.give {
			p.SegmentLists = append(p.SegmentLists, dataplane.SegmentList{
				Segments: []netip.Addr{netip.AddrFrom16([16]byte{0: 0xfc, 15: byte(i)})}, Weight: w,
			})
		}
		held, _ := scaleWeights(p, c.limit)
		var got []uint32
		for _, l := range held.SegmentLists {
			got = append(got, l.Weight)
		}
		require.Equal(t, c.want, got)
	}
}

func TestIDs(t *testing.T) {
	x := newPolicyIndex()
	x.next = NexthopIDLast
	x.used[NexthopIDFirst] = true
	for _, want := range []uint32{NexthopIDLast, NexthopIDFirst + 1} {
		id, ok := x.allocate()
		require.True(t, ok)
		require.Equal(t, want, id)
	}
	for id := NexthopIDFirst; id <= NexthopIDLast; id++ {
		x.used[id] = true
	}
	_, ok := x.allocate()
	require.False(t, ok)
}
