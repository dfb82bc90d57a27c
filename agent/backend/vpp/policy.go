package vpp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// setPolicies adds policies, and changes those that are there, make before
// break: new segment lists are added first, then those that are no longer
// wanted are removed. In between both carry traffic.
func (a *applier) setPolicies(changes []dataplane.Change) error {
	have := map[netip.Addr]binapi.Policy{}
	var now []binapi.Policy
	if err := do(a.ctx, a.c, binapi.SRPolicyLists(&now)); err != nil {
		return err
	}
	for _, p := range now {
		have[p.BSID] = p
	}
	plans := make([]policyPlan, 0, len(changes))
	for _, ch := range changes {
		k := ch.Key.(dataplane.PolicyKey)
		old, exists := have[k.BSID]
		p, err := a.plan(k.BSID, ch.New.(dataplane.Policy), old, exists)
		if err != nil {
			a.fail(ch, err)
			continue
		}
		p.change = ch
		plans = append(plans, p)
	}
	return a.carryOut(plans)
}

// policyPlan is what one policy needs.
type policyPlan struct {
	change dataplane.Change
	// make: the first creates the policy when it is not there.
	make []*binapi.Call
	// remove are the indexes of the lists to remove after all of make succeeded.
	remove []uint32
}

// carryOut makes for all policies, then removes for those where that went well.
func (a *applier) carryOut(plans []policyPlan) error {
	calls := make([]*binapi.Call, 0, len(plans))
	for _, p := range plans {
		calls = append(calls, p.make...)
	}
	if len(calls) > 0 {
		if err := a.c.Do(a.ctx, calls...); err != nil {
			return err
		}
	}
	var removals []*binapi.Call
	var of []dataplane.Change
	for _, p := range plans {
		err := firstError(p.make)
		a.fail(p.change, err)
		if err != nil {
			continue
		}
		bsid := p.change.Key.(dataplane.PolicyKey).BSID
		for _, index := range p.remove {
			removals, of = append(removals, binapi.SRPolicyDelList(bsid, index)), append(of, p.change)
		}
	}
	return a.run(removals, of)
}

func firstError(calls []*binapi.Call) error {
	for _, c := range calls {
		if c.Err != nil {
			return c.Err
		}
	}
	return nil
}

// plan compares a policy with what is wanted.
func (a *applier) plan(bsid netip.Addr, want dataplane.Policy, old binapi.Policy, exists bool) (policyPlan, error) {
	var p policyPlan
	if !a.own(bsid) {
		return p, fmt.Errorf("%w: BSID %s is outside the locator %s", dataplane.ErrUnsupported, bsid, a.opts.Locator)
	}
	if len(want.SegmentLists) == 0 {
		return p, fmt.Errorf("%w: a policy without segment lists", dataplane.ErrUnsupported)
	}
	for _, l := range want.SegmentLists {
		if l.Weight == 0 || len(l.Segments) == 0 || len(l.Segments) > binapi.MaxSegments {
			return p, fmt.Errorf("%w: a list with %d segments and weight %d: VPP takes 1 to %d segments, and weight 1 or more",
				dataplane.ErrUnsupported, len(l.Segments), l.Weight, binapi.MaxSegments)
		}
	}
	if exists && !ordinary(old) {
		// Made by other means in our place, and of a kind that cannot be
		// turned into ours: nothing is left but to replace it.
		p.make = append(p.make, binapi.SRPolicyDel(bsid))
		exists = false
	}
	if !exists {
		old = binapi.Policy{}
	}
	// Of equal lists the newest stays, as the older ones may still have another
	// outer source: VPP puts a new one last. (Its index says nothing: those of
	// removed lists are given out again.)
	gone := slices.Clone(old.Lists)
	slices.Reverse(gone)
	for _, l := range want.SegmentLists {
		if i := slices.IndexFunc(gone, func(o binapi.SegmentList) bool { return sameList(o, l) }); i >= 0 {
			gone = slices.Delete(gone, i, i+1)
			continue
		}
		call, err := makeList(bsid, binapi.SegmentList{Segments: l.Segments, Weight: l.Weight}, exists)
		if err != nil {
			return p, err
		}
		exists = true
		p.make = append(p.make, call)
	}
	for _, l := range gone {
		p.remove = append(p.remove, l.Index)
	}
	return p, nil
}

// makeList adds a list to a policy, or adds the policy with it.
func makeList(bsid netip.Addr, l binapi.SegmentList, exists bool) (*binapi.Call, error) {
	if exists {
		return binapi.SRPolicyAddList(bsid, l)
	}
	return binapi.SRPolicyAdd(bsid, l)
}

// renewPolicies makes every list of our policies anew, and removes the old ones
// afterwards: a list keeps the outer source address and hop limit of the time
// it was made. only limits it to some policies; nil means all.
//
// Equal lists of a policy are what an earlier renewal left that was cut short:
// they become one. A list that cannot be made anew is kept, and is the error.
func (a *applier) renewPolicies(only map[netip.Addr]bool) (fatal, err error) {
	if only != nil && len(only) == 0 {
		return nil, nil
	}
	var now []binapi.Policy
	if err := do(a.ctx, a.c, binapi.SRPolicyLists(&now)); err != nil {
		return err, nil
	}
	var add []*binapi.Call
	var replaces [][]*binapi.Call // the removals that each addition allows
	for _, p := range now {
		if !a.own(p.BSID) || !ordinary(p) || only != nil && !only[p.BSID] {
			continue
		}
		for i, l := range p.Lists {
			if slices.ContainsFunc(p.Lists[:i], func(o binapi.SegmentList) bool { return equalLists(o, l) }) {
				continue
			}
			call, err := binapi.SRPolicyAddList(p.BSID, l)
			if err != nil {
				return nil, err
			}
			var old []*binapi.Call
			for _, o := range p.Lists[i:] {
				if equalLists(o, l) {
					old = append(old, binapi.SRPolicyDelList(p.BSID, o.Index))
				}
			}
			add, replaces = append(add, call), append(replaces, old)
		}
	}
	if len(add) == 0 {
		return nil, nil
	}
	if fatal := a.c.Do(a.ctx, add...); fatal != nil {
		return fatal, nil
	}
	var remove []*binapi.Call
	for i, call := range add {
		if call.Err == nil {
			remove = append(remove, replaces[i]...)
		}
	}
	if len(remove) > 0 {
		if fatal := a.c.Do(a.ctx, remove...); fatal != nil {
			return fatal, nil
		}
	}
	return nil, firstError(slices.Concat(add, remove))
}

func equalLists(l, m binapi.SegmentList) bool {
	return l.Weight == m.Weight && slices.Equal(l.Segments, m.Segments)
}

// twice reports whether a policy holds equal lists.
func twice(p binapi.Policy) bool {
	for i, l := range p.Lists {
		if slices.ContainsFunc(p.Lists[:i], func(o binapi.SegmentList) bool { return equalLists(o, l) }) {
			return true
		}
	}
	return false
}
