package linux

import (
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// policyIndex knows which nexthop objects make up which policy.
type policyIndex struct {
	byBSID  map[netip.Addr]*policyEntry
	byGroup map[uint32]*policyEntry
	// used are the ids that are taken, by us or (learned from a collision) by
	// others.
	used map[uint32]bool
	next uint32
	// garbage are objects of ours that nothing refers to: what a crash between
	// two messages leaves behind.
	garbage []uint32
}

// policyEntry is a policy as the kernel holds it.
type policyEntry struct {
	bsid    netip.Addr
	group   uint32
	members []member
}

// member is a segment list with its nexthop object.
type member struct {
	id       uint32
	weight   uint32
	segments []netip.Addr
}

func newPolicyIndex() *policyIndex {
	return &policyIndex{
		byBSID: map[netip.Addr]*policyEntry{}, byGroup: map[uint32]*policyEntry{},
		used: map[uint32]bool{}, next: NexthopIDFirst,
	}
}

// allocate takes an id that is free as far as known; false when all are taken.
func (x *policyIndex) allocate() (uint32, bool) {
	const all = NexthopIDLast - NexthopIDFirst + 1
	for range all {
		id := x.next
		if x.next++; x.next > NexthopIDLast {
			x.next = NexthopIDFirst
		}
		if !x.used[id] {
			x.used[id] = true
			return id, true
		}
	}
	return 0, false
}

func (x *policyIndex) add(e *policyEntry) {
	x.byBSID[e.bsid], x.byGroup[e.group] = e, e
}

func (x *policyIndex) remove(e *policyEntry) {
	delete(x.byBSID, e.bsid)
	delete(x.byGroup, e.group)
}

// policy is the entry in the form of the state.
func (e *policyEntry) policy() dataplane.Policy {
	p := dataplane.Policy{SegmentLists: make([]dataplane.SegmentList, len(e.members))}
	for i, m := range e.members {
		p.SegmentLists[i] = dataplane.SegmentList{Segments: m.segments, Weight: m.weight}
	}
	dataplane.SortSegmentLists(p.SegmentLists)
	return p
}

// lockedMTU is what a route into the policy must carry so that packets as long
// as the link of the given MTU allows pass the kernel's check; 0 means no lock.
// A route has one MTU for all lists: with a list of several segments the others
// get what that one gets, which is what the pods' MTU is made for.
func (e *policyEntry) lockedMTU(linkMTU uint32) uint32 {
	if linkMTU == 0 {
		return 0
	}
	segments := 1
	for _, m := range e.members {
		segments = max(segments, len(m.segments))
	}
	return min(linkMTU+kernelHeadroom(segments)-reducedOverhead(segments), maxRouteMTU)
}

// maxRouteMTU is the largest MTU metric that the kernel keeps.
const maxRouteMTU = 65535 - 15

// reuse takes the first member with these segments out of pool.
func reuse(pool *[]member, segments []netip.Addr) (member, bool) {
	i := slices.IndexFunc(*pool, func(m member) bool { return slices.Equal(m.segments, segments) })
	if i < 0 {
		return member{}, false
	}
	m := (*pool)[i]
	*pool = slices.Delete(*pool, i, i+1)
	return m, true
}
