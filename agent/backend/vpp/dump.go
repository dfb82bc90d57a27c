package vpp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// Dump implements dataplane.Backend.
func (b *Backend) Dump(ctx context.Context) (dataplane.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := b.connect(ctx)
	if err != nil {
		return dataplane.State{}, err
	}
	s, err := b.dump(ctx, c)
	if err != nil {
		return dataplane.State{}, lost(err)
	}
	b.dumped = c
	return s, nil
}

// raw is what VPP holds, of everybody.
type raw struct {
	interfaces []binapi.Interface
	rxQueues   []binapi.RxQueue
	tables     []binapi.Table
	sources    []binapi.FIBSource
	neighbours []binapi.Neighbour
	localSIDs  []binapi.LocalSID
	policies   []binapi.Policy
	steerings  []binapi.Steering

	routes    []binapi.Route
	addresses []netip.Prefix
	settings  settingsText
}

// dump reads everything in two rounds: the second asks for what the first named.
func (b *Backend) dump(ctx context.Context, c *binapi.Conn) (dataplane.State, error) {
	var r raw
	if err := do(ctx, c,
		binapi.Interfaces(&r.interfaces),
		binapi.RxQueues(&r.rxQueues),
		binapi.IPTables(&r.tables),
		binapi.FIBSources(&r.sources),
		binapi.Neighbours(false, &r.neighbours),
		binapi.Neighbours(true, &r.neighbours),
		binapi.SRLocalSIDs(&r.localSIDs),
		binapi.SRPolicies(&r.policies),
		binapi.SRSteerings(&r.steerings),
	); err != nil {
		return dataplane.State{}, err
	}
	v := newView(r.interfaces)
	calls := readSettings(&r.settings)
	source, hasSource := findSource(r.sources)
	if hasSource {
		for _, t := range r.tables {
			calls = append(calls, binapi.Routes(t.ID, t.IP6, source, &r.routes))
		}
	}
	if v.lo != nil {
		calls = append(calls,
			binapi.InterfaceAddresses(v.lo.Index, false, &r.addresses),
			binapi.InterfaceAddresses(v.lo.Index, true, &r.addresses))
	}
	if err := do(ctx, c, calls...); err != nil {
		return dataplane.State{}, err
	}

	s := dataplane.New()
	modes := map[binapi.Index][]binapi.RxMode{}
	for _, q := range r.rxQueues {
		modes[q.Interface] = append(modes[q.Interface], q.Mode)
	}
	for name, h := range v.byName {
		h.modes = modes[h.Index]
		s.Interfaces[dataplane.InterfaceKey(name)] = b.interfaceValue(h)
	}
	for _, p := range r.addresses {
		if !p.Addr().IsLinkLocalUnicast() || p.Addr().Is4() {
			s.Addresses[dataplane.AddressKey{Interface: loName, Prefix: p}] = dataplane.Address{}
		}
	}
	for _, n := range r.neighbours {
		if name, ok := v.byIndex[n.Interface]; ok && n.Static {
			s.Neighbours[dataplane.NeighbourKey{Interface: name, IP: n.IP}] = dataplane.Neighbour{MAC: dataplane.MAC(n.MAC)}
		}
	}
	for _, rt := range r.routes {
		s.Routes[dataplane.RouteKey{Table: rt.Table, Prefix: rt.Prefix}] = routeValue(rt, v)
	}
	if err := dumpMemifs(ctx, c, v, s); err != nil {
		return dataplane.State{}, err
	}
	b.dumpLocalSIDs(s, r.localSIDs)
	for _, p := range r.policies {
		if b.own(p.BSID) {
			s.Policies[dataplane.PolicyKey{BSID: p.BSID}] = policyValue(p)
		}
	}
	for _, st := range r.steerings {
		if b.own(st.BSID) {
			s.Steerings[dataplane.SteeringKey{Table: st.Table, Prefix: st.Prefix}] = dataplane.Steering{BSID: st.BSID}
		}
	}
	b.dumpSettings(s, v, r)
	return s, nil
}

// routeValue reads a route's paths. A path through an interface that is not
// ours cannot be one that this program made: it is named by its index, which
// equals nothing wanted.
func routeValue(r binapi.Route, v *view) dataplane.Route {
	var out dataplane.Route
	for _, p := range r.Paths {
		name, ok := v.byIndex[p.Interface]
		if !ok {
			name = p.Interface.String()
		}
		out.NextHops = append(out.NextHops, dataplane.NextHop{Interface: name, Gateway: p.Gateway, Weight: p.Weight})
	}
	if r.Foreign {
		out.NextHops = append(out.NextHops, dataplane.NextHop{Interface: "?", Weight: 1})
	}
	dataplane.SortNextHops(out.NextHops)
	return out
}

// policyValue reads a policy. One of another kind than this program makes has
// no lists, which equals nothing wanted.
func policyValue(p binapi.Policy) dataplane.Policy {
	var out dataplane.Policy
	if !ordinary(p) {
		return out
	}
	for _, l := range p.Lists {
		out.SegmentLists = append(out.SegmentLists, dataplane.SegmentList{Segments: l.Segments, Weight: l.Weight})
	}
	dataplane.SortSegmentLists(out.SegmentLists)
	return out
}

// ordinary: the policy encapsulates, chooses by weight, and is in the main table.
func ordinary(p binapi.Policy) bool { return p.Encap && !p.Spray && p.FIBTable == 0 }

// settingsText is what the command line tells of the settings.
type settingsText struct{ encapSource, hopLimit, fib string }

// readSettings asks for the settings, which no message tells.
func readSettings(t *settingsText) []*binapi.Call {
	return []*binapi.Call{
		binapi.CLI("show sr encaps source addr", &t.encapSource),
		binapi.CLI("show sr encaps hop-limit", &t.hopLimit),
		binapi.CLI("show ip6 fib table 0 ::/128", &t.fib),
	}
}

// lastWord is the text's last word: where the show commands put the value.
func lastWord(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

// flowHashOf reads the fields from a FIB's header:
// "ipv6-VRF:0, fib_index:0, flow hash:[src dst proto flowlabel ] epoch:0 …".
func flowHashOf(fib string) (string, bool) {
	_, rest, ok := strings.Cut(fib, "flow hash:[")
	if !ok {
		return "", false
	}
	fields, _, ok := strings.Cut(rest, "]")
	if !ok {
		return "", false
	}
	names := strings.Fields(fields)
	slices.Sort(names)
	return strings.Join(names, ","), true
}

// dumpSettings reports the settings that are marked as set. One that did not
// get everywhere is left out, so that it is set again: the outer source address
// is copied into each policy.
func (b *Backend) dumpSettings(s dataplane.State, v *view, r raw) {
	if v.lo == nil {
		return
	}
	if a, err := netip.ParseAddr(lastWord(r.settings.encapSource)); err == nil && v.lo.tag.has(flagEncapSource) {
		everywhere := true
		for _, p := range r.policies {
			if b.own(p.BSID) && p.EncapSource != a {
				everywhere = false
			}
		}
		if everywhere {
			s.Settings[dataplane.SettingEncapSource] = dataplane.Setting(a.String())
		}
	}
	if v.lo.tag.has(flagHopLimit) {
		s.Settings[dataplane.SettingEncapHopLimit] = dataplane.Setting(lastWord(r.settings.hopLimit))
	}
	if v.lo.tag.has(flagFlowLabel) {
		s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	}
	if h, ok := flowHashOf(r.settings.fib); ok && v.lo.tag.has(flagFlowHash) {
		s.Settings[dataplane.SettingFlowHash] = dataplane.Setting(h)
	}
}

// dumpLocalSIDs reports the SIDs in our locator.
func (b *Backend) dumpLocalSIDs(s dataplane.State, sids []binapi.LocalSID) {
	for _, l := range sids {
		if !b.own(l.SID) {
			continue
		}
		key := dataplane.LocalSIDKey{SID: sidPrefix(l)}
		value := dataplane.LocalSID{Table: l.Table}
		switch l.Behaviour {
		case binapi.SREndUN:
			value.Behaviour = dataplane.BehaviourUN
		case binapi.SREndUNPerf:
			value.Behaviour = "uN (perf)"
		case binapi.SREnd:
			value.Behaviour = dataplane.BehaviourEnd
		case binapi.SREndDT4:
			value.Behaviour = dataplane.BehaviourDT4
		case binapi.SREndDT6:
			value.Behaviour = dataplane.BehaviourDT6
		default:
			value.Behaviour = dataplane.Behaviour(fmt.Sprintf("VPP's %d", l.Behaviour))
		}
		s.LocalSIDs[key] = value
	}
}
