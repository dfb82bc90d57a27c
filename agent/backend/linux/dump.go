package linux

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Dump implements dataplane.Backend.
func (b *Backend) Dump(ctx context.Context) (dataplane.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.closed(); err != nil {
		return dataplane.State{}, err
	}
	return b.read(ctx)
}

// read reads everything of ours and refreshes the index.
func (b *Backend) read(ctx context.Context) (dataplane.State, error) {
	b.loaded = false
	s := dataplane.New()
	links, err := b.conn.links()
	if err != nil {
		return dataplane.State{}, err
	}
	var g global
	if err := b.thread.do(func() (err error) { b.hookTunnels(); g, err = readGlobal(); return err }); err != nil {
		return dataplane.State{}, err
	}
	b.readInterfaces(s, links, g)
	for _, step := range []func() error{
		func() error { return b.readSettings(s, g) },
		func() error { return b.readAddresses(s, links) },
		func() error { return b.readNeighbours(s, links) },
		func() error { return b.readForwarding(s, links) },
	} {
		if err := ctx.Err(); err != nil {
			return dataplane.State{}, err
		}
		if err := step(); err != nil {
			return dataplane.State{}, err
		}
	}
	for k, a := range b.asked {
		if v, ok := s.Get(k); ok && v.Equal(a.held) {
			s.Set(k, a.want)
		}
	}
	b.loaded = true
	return s, nil
}

// readForwarding adds policies, steerings, local SIDs and routes.
func (b *Backend) readForwarding(s dataplane.State, links *linkTable) error {
	var objects map[uint32]nexthop
	err := b.conn.dumpNexthops(func(n nexthop) { objects[n.id] = n }, func() { objects = map[uint32]nexthop{} })
	if err != nil {
		return fmt.Errorf("reading nexthops: %w", err)
	}
	var routes []kernelRoute
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		from := len(routes)
		err := b.conn.dumpRoutes(family, 0, Protocol, func() { routes = routes[:from] }, func(r kernelRoute) { routes = append(routes, r) })
		if err != nil {
			return fmt.Errorf("reading routes: %w", err)
		}
	}
	b.indexPolicies(s, objects, routes)
	mtu := b.uplinkMTU(links)
	b.own = make(map[slot]struct{}, len(routes))
	for _, r := range routes {
		b.own[r.slot] = struct{}{}
		switch r.metric {
		case metricLocalSID:
			if r.table == unix.RT_TABLE_MAIN {
				s.LocalSIDs[dataplane.LocalSIDKey{SID: r.prefix}] = b.localSIDOf(r, links)
			}
		case metricSteering:
			k := dataplane.SteeringKey{Table: mainAsZero(r.table), Prefix: r.prefix}
			s.Steerings[k] = dataplane.Steering{BSID: invalidBSID}
			// A route with the wrong MTU needs repair as well.
			if e := b.index.byGroup[r.nexthopID]; e != nil && r.lockedMTU == e.lockedMTU(mtu) {
				s.Steerings[k] = dataplane.Steering{BSID: e.bsid}
			}
		case metricRoute:
			k := dataplane.RouteKey{Table: mainAsZero(r.table), Prefix: r.prefix}
			s.Routes[k] = routeOf(r, s.Routes[k], links)
		}
	}
	return nil
}

// localSIDOf is a SID as the route has it. On a device other than the first
// uplink it is not what was applied.
func (b *Backend) localSIDOf(r kernelRoute, links *linkTable) dataplane.LocalSID {
	if r.encapType != encapSeg6Local || len(r.hops) != 1 || len(b.uplinks) == 0 || links.nameOf(r.hops[0].index) != b.uplinks[0] {
		return dataplane.LocalSID{}
	}
	return decodeLocalSID(r.encap)
}

// routeOf is the route's next hops, added to those of other routes in the same
// slot.
func routeOf(r kernelRoute, same dataplane.Route, links *linkTable) dataplane.Route {
	if r.kind == unix.RTN_BLACKHOLE {
		return same
	}
	v := dataplane.Route{NextHops: append([]dataplane.NextHop(nil), same.NextHops...)}
	for _, h := range r.hops {
		v.NextHops = append(v.NextHops, dataplane.NextHop{
			Interface: links.nameOf(h.index), Gateway: h.gateway, Weight: uint8(min(h.weight, 255)),
		})
	}
	if len(r.hops) == 0 { // neither a drop nor a path: not what we make
		v.NextHops = append(v.NextHops, dataplane.NextHop{})
	}
	dataplane.SortNextHops(v.NextHops)
	return v
}

// indexPolicies finds the policies by their binding SIDs' routes, and notes the
// objects that nothing needs.
func (b *Backend) indexPolicies(s dataplane.State, objects map[uint32]nexthop, routes []kernelRoute) {
	x := newPolicyIndex()
	x.next = b.index.next
	needed := map[uint32]bool{}
	need := func(id uint32) {
		needed[id] = true
		for _, w := range objects[id].group {
			needed[w.id] = true
		}
	}
	for _, r := range routes {
		if r.nexthopID != 0 {
			need(r.nexthopID)
		}
		if r.metric != metricBSID || r.table != policyTable || !r.prefix.Addr().Is6() || r.prefix.Bits() != 128 {
			continue
		}
		bsid := r.prefix.Addr()
		group := objects[r.nexthopID].group
		if len(group) == 0 {
			s.Policies[dataplane.PolicyKey{BSID: bsid}] = dataplane.Policy{}
			continue
		}
		e := &policyEntry{bsid: bsid, group: r.nexthopID}
		for _, w := range group {
			e.members = append(e.members, member{id: w.id, weight: w.weight, segments: objects[w.id].segments})
		}
		x.add(e)
		s.Policies[dataplane.PolicyKey{BSID: bsid}] = e.policy()
	}
	// Groups first: a group whose last member goes is removed by the kernel.
	var lists []uint32
	for id, n := range objects {
		x.used[id] = true
		switch {
		case needed[id]:
		case n.group != nil:
			x.garbage = append(x.garbage, id)
		default:
			lists = append(lists, id)
		}
	}
	x.garbage = append(x.garbage, lists...)
	b.index = x
}
