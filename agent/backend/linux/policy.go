package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// prepareLoopback brings lo up when something is to be bound to it: the kernel
// refuses nexthops on a device that is down, and a fresh namespace has it down.
func (t *tx) prepareLoopback(changes []dataplane.Change) error {
	lo := t.links.byName[loopback]
	if lo == nil || lo.up {
		return nil
	}
	for _, c := range changes {
		if c.Op == dataplane.OpDelete || c.Key.Kind() != dataplane.KindPolicy {
			continue
		}
		up := true
		if err := t.conn.setLink(lo.index, linkChange{up: &up}); err != nil {
			return fmt.Errorf("setting interface lo up: %w", err)
		}
		lo.up = true
		return nil
	}
	return nil
}

// policyTable is the route table that lists the policies: one route for each
// binding SID, to the policy's nexthop group. No rule leads to it, on purpose: a
// packet whose destination is the binding SID, without a segment routing header,
// would come out of its encapsulation unchanged and be steered again until its
// hop limit ends. RFC 8986 §4.13 wants such a packet stopped.
const policyTable = 0x5357

func bsidSlot(bsid netip.Addr) slot {
	return slot{netip.PrefixFrom(bsid, 128), policyTable, metricBSID}
}

// setPolicy makes or changes a policy. Traffic moves from the old lists to the
// new ones in one step: routes refer to the group, whose members are replaced at
// once.
func (t *tx) setPolicy(k dataplane.PolicyKey, want dataplane.Policy) (err error) {
	if !k.BSID.Is6() || k.BSID.Is4In6() {
		return fmt.Errorf("binding SID %s is not an IPv6 address", k.BSID)
	}
	if len(want.SegmentLists) == 0 {
		return errors.New("policy has no segment list")
	}
	held := t.scaleWeights(k, want)
	e := t.index.byBSID[k.BSID]
	isNew := e == nil
	next := &policyEntry{bsid: k.BSID}
	var pool []member
	if isNew {
		if next.group, err = t.newID(); err != nil {
			return err
		}
	} else {
		next.group, pool = e.group, slices.Clone(e.members)
	}
	var made []uint32
	defer func() {
		if err == nil {
			return
		}
		if isNew {
			made = append(made, next.group)
		}
		slices.Reverse(made) // the group before its members
		for _, id := range made {
			if derr := t.removeNexthop(id); derr != nil {
				err = errors.Join(err, derr)
			}
		}
		t.stale(err)
	}()
	for _, l := range held.SegmentLists {
		m, ok := reuse(&pool, l.Segments)
		if !ok {
			m = member{segments: slices.Clone(l.Segments)}
			if m.id, err = t.makeSegmentList(m.segments); err != nil {
				return fmt.Errorf("segment list %v: %w", l.Segments, err)
			}
			made = append(made, m.id)
		}
		m.weight = l.Weight
		next.members = append(next.members, m)
	}
	group := make([]weighted, len(next.members))
	for i, m := range next.members {
		group[i] = weighted{m.id, m.weight}
	}
	if err = t.makeGroup(next, group, isNew); err != nil {
		return fmt.Errorf("nexthop group: %w", err)
	}
	if isNew {
		if err = t.putRoute(bsidSlot(k.BSID), unix.RTN_UNICAST, func(m message) { m.u32(rtaNexthopID, next.group) }); err != nil {
			return fmt.Errorf("route of the binding SID: %w", err)
		}
	} else {
		if e.lockedMTU(t.podMTU) != next.lockedMTU(t.podMTU) {
			t.resteer[k.BSID] = true
		}
		t.index.remove(e)
	}
	t.index.add(next)
	t.remember(k, want, held)
	// What the group no longer has is not in use by anything.
	for _, m := range pool {
		if derr := t.removeNexthop(m.id); derr != nil {
			t.log.WithError(derr).WithField("policy", k.BSID).Debug("a segment list that is no longer used is left for the next time")
			t.index.garbage = append(t.index.garbage, m.id)
		}
	}
	return nil
}

// stale makes the next Apply read the kernel's objects again when err shows that
// others changed them under our hands.
func (t *tx) stale(err error) {
	if absent(err) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) {
		t.loaded = false
	}
}

func (t *tx) newID() (uint32, error) {
	id, ok := t.index.allocate()
	if !ok {
		return 0, fmt.Errorf("no nexthop id is free between %#x and %#x", NexthopIDFirst, NexthopIDLast)
	}
	return id, nil
}

// idTries bounds the search for an id among those that others took.
const idTries = 64

// makeSegmentList makes a nexthop object for the segments under a free id.
func (t *tx) makeSegmentList(segments []netip.Addr) (uint32, error) {
	lo, err := t.links.need(loopback)
	if err != nil {
		return 0, err
	}
	for range idTries {
		id, err := t.newID()
		if err != nil {
			return 0, err
		}
		err = t.patiently(func() error { return t.conn.addSegmentList(id, segments, lo.index) })
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			delete(t.index.used, id)
			return 0, err
		}
	}
	return 0, fmt.Errorf("%d nexthop ids in a row: %w", idTries, ErrConflict)
}

// maxPatience bounds the time that one Apply waits for the kernel's memory.
const maxPatience = 5 * time.Second

// patiently tries again when the kernel is out of per-CPU memory. Each
// encapsulation takes some, from a reserve that the kernel fills in the
// background only: thousands in a row empty it for some milliseconds.
func (t *tx) patiently(f func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := f()
		if !errors.Is(err, unix.ENOMEM) || t.waited > maxPatience {
			return err
		}
		select {
		case <-t.ctx.Done():
			return err
		case <-time.After(wait):
		}
		t.waited += wait
	}
}

func (t *tx) makeGroup(e *policyEntry, members []weighted, isNew bool) error {
	for range idTries {
		err := t.conn.setGroup(e.group, members, isNew)
		if !isNew || !errors.Is(err, unix.EEXIST) {
			return err
		}
		if e.group, err = t.newID(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d nexthop ids in a row: %w", idTries, ErrConflict)
}

// removeNexthop deletes an object and frees its id.
func (t *tx) removeNexthop(id uint32) error {
	if err := t.conn.deleteNexthop(id); err != nil {
		return err
	}
	delete(t.index.used, id)
	return nil
}

// deletePolicy removes the binding SID's route, the group, then its members. A
// policy that is steered into stays: the kernel would remove the steering's route
// with the group, and a steering that could not be moved to another policy still
// carries traffic.
func (t *tx) deletePolicy(bsid netip.Addr) error {
	e := t.index.byBSID[bsid]
	if e == nil {
		return t.deleteRoute(bsidSlot(bsid))
	}
	if err := t.readUsers(); err != nil {
		return err
	}
	if k, used := t.users[e.group]; used {
		return fmt.Errorf("%w: %s is still steered into policy %s", dataplane.ErrNotReady, k, bsid)
	}
	if err := t.deleteRoute(bsidSlot(bsid)); err != nil {
		return err
	}
	if err := t.removeNexthop(e.group); err != nil {
		return err
	}
	t.index.remove(e)
	for _, m := range e.members {
		if err := t.removeNexthop(m.id); err != nil {
			return err
		}
	}
	return nil
}

// collectGarbage removes the objects that the last dump found without use.
func (t *tx) collectGarbage() {
	var left []uint32
	for _, id := range t.index.garbage {
		if err := t.removeNexthop(id); err != nil {
			t.log.WithError(err).Warn("an unused nexthop object could not be removed; it is tried again")
			left = append(left, id)
		}
	}
	t.index.garbage = left
}

// scaleWeights gives the policy in the form that the kernel can hold: weights
// between 1 and its largest, in proportion, the lists in the state's order.
func (t *tx) scaleWeights(k dataplane.PolicyKey, want dataplane.Policy) dataplane.Policy {
	held, largest := scaleWeights(want, t.maxWeight)
	if largest > t.maxWeight {
		t.log.WithFields(map[string]any{"policy": k.BSID, "weight": largest, "limit": t.maxWeight}).
			Warn("the weights of the policy's segment lists are scaled down to what the kernel holds")
	}
	return held
}

func scaleWeights(want dataplane.Policy, limit uint32) (held dataplane.Policy, largest uint32) {
	for _, l := range want.SegmentLists {
		largest = max(largest, l.Weight)
	}
	held.SegmentLists = make([]dataplane.SegmentList, len(want.SegmentLists))
	for i, l := range want.SegmentLists {
		w := uint64(l.Weight)
		if largest > limit {
			w = (w*uint64(limit) + uint64(largest)/2) / uint64(largest)
		}
		held.SegmentLists[i] = dataplane.SegmentList{Segments: l.Segments, Weight: uint32(max(w, 1))}
	}
	dataplane.SortSegmentLists(held.SegmentLists)
	return held, largest
}
