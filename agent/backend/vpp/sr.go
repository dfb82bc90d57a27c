package vpp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// sidOf writes a local SID in VPP's terms.
func sidOf(k dataplane.LocalSIDKey, v dataplane.LocalSID) (binapi.LocalSID, error) {
	out := binapi.LocalSID{SID: k.SID.Addr(), Table: v.Table}
	bits := 128
	switch v.Behaviour {
	case dataplane.BehaviourUN:
		out.Behaviour, bits = binapi.SREndUN, binapi.UNPrefixBits
	case dataplane.BehaviourEnd:
		out.Behaviour = binapi.SREnd
	case dataplane.BehaviourDT4:
		out.Behaviour = binapi.SREndDT4
	case dataplane.BehaviourDT6:
		out.Behaviour = binapi.SREndDT6
	default:
		return out, fmt.Errorf("%w: behaviour %s", dataplane.ErrUnsupported, v.Behaviour)
	}
	if k.SID.Bits() != bits {
		return out, fmt.Errorf("%w: behaviour %s on a /%d, VPP has it on a /%d only", dataplane.ErrUnsupported, v.Behaviour, k.SID.Bits(), bits)
	}
	return out, nil
}

// keyedSID is what VPP needs to find a SID: the address, and a behaviour of
// the same prefix length.
func keyedSID(k dataplane.LocalSIDKey) binapi.LocalSID {
	l := binapi.LocalSID{SID: k.SID.Addr(), Behaviour: binapi.SREnd}
	if k.SID.Bits() == binapi.UNPrefixBits {
		l.Behaviour = binapi.SREndUN
	}
	return l
}

// setLocalSIDs adds SIDs, and replaces those that are there and differ. VPP has
// no change of a SID: it is deleted and added back to back, and packets to it
// that come within those microseconds are dropped.
func (a *applier) setLocalSIDs(changes []dataplane.Change) error {
	var now []binapi.LocalSID
	if err := do(a.ctx, a.c, binapi.SRLocalSIDs(&now)); err != nil {
		return err
	}
	have := map[netip.Prefix]binapi.LocalSID{}
	for _, l := range now {
		have[sidPrefix(l)] = l
	}
	var tables []binapi.Table
	for _, ch := range changes {
		if v := ch.New.(dataplane.LocalSID); v.Table != 0 {
			tables = append(tables, binapi.Table{ID: v.Table, IP6: v.Behaviour == dataplane.BehaviourDT6})
		}
	}
	if err := a.ensureTables(tables); err != nil {
		return err
	}
	var calls []*binapi.Call
	var of []dataplane.Change
	for _, ch := range changes {
		k := ch.Key.(dataplane.LocalSIDKey)
		want, err := sidOf(k, ch.New.(dataplane.LocalSID))
		if err == nil && !a.own(want.SID) {
			err = fmt.Errorf("%w: it is outside the locator %s", dataplane.ErrUnsupported, a.opts.Locator)
		}
		if err != nil {
			a.fail(ch, err)
			continue
		}
		old, exists := have[k.SID]
		if exists && old == want {
			continue
		}
		if exists {
			calls, of = append(calls, binapi.SRLocalSIDDel(old)), append(of, ch)
		}
		calls, of = append(calls, binapi.SRLocalSIDAdd(want)), append(of, ch)
	}
	if len(calls) == 0 {
		return nil
	}
	if err := a.c.Do(a.ctx, calls...); err != nil {
		return err
	}
	for i, call := range calls {
		err := call.Err
		if binapi.Retval(err) == binapi.RetvalSIDAbsent {
			err = otherLength(of[i].Key.(dataplane.LocalSIDKey), err)
		}
		a.fail(of[i], err)
	}
	return nil
}

// sidPrefix is the prefix that a SID of this behaviour has when it was added
// over the API. VPP does not tell it.
func sidPrefix(l binapi.LocalSID) netip.Prefix {
	if l.Behaviour == binapi.SREndUN || l.Behaviour == binapi.SREndUNPerf {
		return netip.PrefixFrom(l.SID, binapi.UNPrefixBits)
	}
	return netip.PrefixFrom(l.SID, 128)
}

// otherLength explains a SID that VPP shows and cannot find: the API names one
// with the length of its behaviour. VPP's command line makes them with any, and
// with none ("address", which is shown as /128 and is kept as another).
func otherLength(k dataplane.LocalSIDKey, err error) error {
	return fmt.Errorf("VPP holds SID %[1]s, but not under the length /%[2]d: it was made on VPP's command line, and only there can it be removed: "+
		"vppctl sr localsid del address %[1]s, or, when it was made with a prefix, vppctl sr localsid del prefix %[1]s/<length>: %[3]w",
		k.SID.Addr(), k.SID.Bits(), err)
}

// run carries out calls; of says which change each belongs to.
func (a *applier) run(calls []*binapi.Call, of []dataplane.Change) error {
	if len(calls) == 0 {
		return nil
	}
	if err := a.c.Do(a.ctx, calls...); err != nil {
		return err
	}
	for i, call := range calls {
		a.fail(of[i], call.Err)
	}
	return nil
}

func (a *applier) deleteLocalSIDs(changes []dataplane.Change) error {
	calls, of := a.collect(changes, func(ch dataplane.Change) (*binapi.Call, error) {
		k := ch.Key.(dataplane.LocalSIDKey)
		if !a.own(k.SID.Addr()) {
			return nil, nil
		}
		return binapi.SRLocalSIDDel(keyedSID(k)), nil
	})
	if len(calls) == 0 {
		return nil
	}
	if err := a.c.Do(a.ctx, calls...); err != nil {
		return err
	}
	shown, err := a.stillShown(calls)
	if err != nil {
		return err
	}
	for i, call := range calls {
		err := call.Err
		if binapi.Retval(err) == binapi.RetvalSIDAbsent {
			err = nil
			if k := of[i].Key.(dataplane.LocalSIDKey); shown[k.SID] {
				err = otherLength(k, call.Err)
			}
		}
		a.fail(of[i], err)
	}
	return nil
}

// stillShown looks which SIDs VPP shows, if any of the deletions found none.
func (a *applier) stillShown(deletions []*binapi.Call) (map[netip.Prefix]bool, error) {
	absent := func(c *binapi.Call) bool { return binapi.Retval(c.Err) == binapi.RetvalSIDAbsent }
	if !slices.ContainsFunc(deletions, absent) {
		return nil, nil
	}
	var now []binapi.LocalSID
	if err := do(a.ctx, a.c, binapi.SRLocalSIDs(&now)); err != nil {
		return nil, err
	}
	shown := make(map[netip.Prefix]bool, len(now))
	for _, l := range now {
		shown[sidPrefix(l)] = true
	}
	return shown, nil
}

// steerings adds, moves or deletes steering entries. VPP moves one in a single
// step, so no packet finds none.
func (a *applier) steerings(changes []dataplane.Change) error {
	if changes[0].Op == dataplane.OpDelete {
		return a.each(changes, func(ch dataplane.Change) (*binapi.Call, error) {
			k := ch.Key.(dataplane.SteeringKey)
			return binapi.SRSteeringDel(binapi.Steering{Table: k.Table, Prefix: k.Prefix}), nil
		}, binapi.RetvalSteeringAbsent)
	}
	var tables []binapi.Table
	for _, ch := range changes {
		k := ch.Key.(dataplane.SteeringKey)
		tables = appendTable(tables, k.Table, k.Prefix)
	}
	if err := a.ensureTables(tables); err != nil {
		return err
	}
	calls, of := a.collect(changes, func(ch dataplane.Change) (*binapi.Call, error) {
		k, v := ch.Key.(dataplane.SteeringKey), ch.New.(dataplane.Steering)
		if !a.own(v.BSID) {
			return nil, fmt.Errorf("%w: BSID %s is outside the locator %s", dataplane.ErrUnsupported, v.BSID, a.opts.Locator)
		}
		return binapi.SRSteeringAdd(binapi.Steering{Table: k.Table, Prefix: k.Prefix, BSID: v.BSID}), nil
	})
	if len(calls) == 0 {
		return nil
	}
	if err := a.c.Do(a.ctx, calls...); err != nil {
		return err
	}
	for i, call := range calls {
		err := call.Err
		if binapi.Retval(err) == binapi.RetvalSteeringNoPolicy {
			err = fmt.Errorf("%w: there is no policy with BSID %s", dataplane.ErrNotReady, of[i].New.(dataplane.Steering).BSID)
		}
		a.fail(of[i], err)
	}
	return nil
}

// deletePolicies deletes policies that nothing is steered into. VPP does not
// look: it would leave the steering pointing at a free slot, and then at
// whichever policy gets that.
func (a *applier) deletePolicies(changes []dataplane.Change) error {
	var steerings []binapi.Steering
	if err := do(a.ctx, a.c, binapi.SRSteerings(&steerings)); err != nil {
		return err
	}
	users := map[netip.Addr]dataplane.SteeringKey{}
	for _, s := range steerings {
		users[s.BSID] = dataplane.SteeringKey{Table: s.Table, Prefix: s.Prefix}
	}
	return a.each(changes, func(ch dataplane.Change) (*binapi.Call, error) {
		bsid := ch.Key.(dataplane.PolicyKey).BSID
		if k, ok := users[bsid]; ok {
			return nil, fmt.Errorf("%w: %s is still steered into policy %s", dataplane.ErrNotReady, k, bsid)
		}
		if !a.own(bsid) {
			return nil, nil
		}
		return binapi.SRPolicyDel(bsid), nil
	}, binapi.RetvalPolicyAbsent)
}

func sameList(l binapi.SegmentList, m dataplane.SegmentList) bool {
	return l.Weight == m.Weight && slices.Equal(l.Segments, m.Segments)
}
