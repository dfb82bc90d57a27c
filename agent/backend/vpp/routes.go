package vpp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// sourceName is our FIB source in VPP: who our routes come from.
const sourceName = "sidewinder"

// sourcePriority: after interfaces and SRv6, before routes that were added by
// hand or by other clients of the API (0x80, 0x81).
const sourcePriority = 0x40

func findSource(sources []binapi.FIBSource) (uint8, bool) { return sourceByName(sources, sourceName) }

func sourceByName(sources []binapi.FIBSource, name string) (uint8, bool) {
	for _, s := range sources {
		if s.Name == name {
			return s.ID, true
		}
	}
	return 0, false
}

// fibSource finds our source, or registers it.
func (a *applier) fibSource() (uint8, error) {
	if a.source == 0 {
		id, err := a.sourceOf(sourceName, sourcePriority)
		if err != nil {
			return 0, err
		}
		a.source = id
	}
	return a.source, nil
}

// sourceOf finds a source by its name, or registers it.
func (a *applier) sourceOf(name string, priority uint8) (uint8, error) {
	var sources []binapi.FIBSource
	if err := do(a.ctx, a.c, binapi.FIBSources(&sources)); err != nil {
		return 0, err
	}
	if id, ok := sourceByName(sources, name); ok {
		return id, nil
	}
	var id uint8
	err := do(a.ctx, a.c, binapi.FIBSourceAdd(name, priority, &id))
	return id, err
}

// tableName marks the tables that this program made.
func tableName(id uint32) string { return fmt.Sprintf("%s%d", tagPrefix, id) }

// ensureTables makes the tables that are not there. Table 0 always is.
func (a *applier) ensureTables(want []binapi.Table) error {
	if a.tables == nil {
		var have []binapi.Table
		if err := do(a.ctx, a.c, binapi.IPTables(&have)); err != nil {
			return err
		}
		a.tables = map[binapi.Table]bool{}
		for _, t := range have {
			a.tables[binapi.Table{ID: t.ID, IP6: t.IP6}] = true
		}
	}
	var calls []*binapi.Call
	for _, t := range want {
		if !a.tables[t] {
			a.tables[t] = true
			calls = append(calls, binapi.IPTableAdd(binapi.Table{ID: t.ID, IP6: t.IP6, Name: tableName(t.ID)}))
		}
	}
	return do(a.ctx, a.c, calls...)
}

// addresses adds or deletes addresses of the loopback, the only ones that VPP
// has of its own: those of the uplink are the kernel's.
func (a *applier) addresses(changes []dataplane.Change) error {
	var noLoopback error
	for _, ch := range changes {
		if ch.Op != dataplane.OpDelete && ch.Key.(dataplane.AddressKey).Interface == loName {
			var fatal error
			if fatal, noLoopback = a.ensureLoopback(); fatal != nil {
				return fatal
			}
			break
		}
	}
	// VPP refuses an address that it has, whoever has it.
	var have []netip.Prefix
	if lo := a.view.lo; lo != nil {
		if err := do(a.ctx, a.c, binapi.InterfaceAddresses(lo.Index, false, &have), binapi.InterfaceAddresses(lo.Index, true, &have)); err != nil {
			return err
		}
	}
	return a.each(changes, func(ch dataplane.Change) (*binapi.Call, error) {
		k := ch.Key.(dataplane.AddressKey)
		del := ch.Op == dataplane.OpDelete
		switch {
		case del && (k.Interface != loName || a.view.lo == nil):
			return nil, nil
		case k.Interface != loName:
			return nil, fmt.Errorf("%w: address on %q: VPP has addresses on %q only, those of the uplink stay with the kernel",
				dataplane.ErrUnsupported, k.Interface, loName)
		case noLoopback != nil:
			return nil, noLoopback
		case del:
			return binapi.InterfaceDelAddress(a.view.lo.Index, k.Prefix), nil
		case slices.Contains(have, k.Prefix):
			return nil, nil
		}
		return binapi.InterfaceAddAddress(a.view.lo.Index, k.Prefix), nil
	}, binapi.RetvalAddressAbsent)
}

func (a *applier) neighbours(changes []dataplane.Change) error {
	return a.each(changes, func(ch dataplane.Change) (*binapi.Call, error) {
		k := ch.Key.(dataplane.NeighbourKey)
		i, err := a.view.index(k.Interface)
		if ch.Op == dataplane.OpDelete {
			if err != nil {
				return nil, nil // gone with the interface
			}
			return binapi.NeighbourDel(binapi.Neighbour{Interface: i, IP: k.IP}), nil
		}
		if err != nil {
			return nil, err
		}
		return binapi.NeighbourAdd(binapi.Neighbour{Interface: i, IP: k.IP, MAC: binapi.MAC(ch.New.(dataplane.Neighbour).MAC)}), nil
	}, binapi.RetvalNoSuchEntry)
}

func (a *applier) routes(changes []dataplane.Change) error {
	source, err := a.fibSource()
	if err != nil {
		return err
	}
	if changes[0].Op == dataplane.OpDelete {
		return a.each(changes, func(ch dataplane.Change) (*binapi.Call, error) {
			k := ch.Key.(dataplane.RouteKey)
			return binapi.RouteDel(binapi.Route{Table: k.Table, Prefix: k.Prefix, Source: source}), nil
		}, retvalNoSuchFIB)
	}
	tables := make([]binapi.Table, 0, 1)
	for _, ch := range changes {
		k := ch.Key.(dataplane.RouteKey)
		tables = appendTable(tables, k.Table, k.Prefix)
	}
	if err := a.ensureTables(tables); err != nil {
		return err
	}
	return a.each(changes, func(ch dataplane.Change) (*binapi.Call, error) {
		k := ch.Key.(dataplane.RouteKey)
		r := binapi.Route{Table: k.Table, Prefix: k.Prefix, Source: source}
		for _, nh := range ch.New.(dataplane.Route).NextHops {
			i, err := a.view.index(nh.Interface)
			if err != nil {
				return nil, err
			}
			r.Paths = append(r.Paths, binapi.Path{Interface: i, Gateway: nh.Gateway.WithZone(""), Weight: nh.Weight})
		}
		if len(r.Paths) > maxPaths {
			return nil, fmt.Errorf("%w: %d next hops; a route has at most %d", dataplane.ErrUnsupported, len(r.Paths), maxPaths)
		}
		return binapi.RouteReplace(r), nil
	})
}

const (
	// maxPaths is what the message's 8-bit count can say.
	maxPaths = 255
	// retvalNoSuchFIB: VNET_API_ERROR_NO_SUCH_FIB.
	retvalNoSuchFIB = -3
)

// appendTable adds a table other than the main one.
func appendTable(tables []binapi.Table, id uint32, p netip.Prefix) []binapi.Table {
	if id == 0 {
		return tables
	}
	return append(tables, binapi.Table{ID: id, IP6: p.Addr().Is6()})
}

// tidy removes what this program made beside the state's objects, and nothing
// of the state needs any more: the loopback, and tables.
func (a *applier) tidy() error {
	var tables []binapi.Table
	if err := do(a.ctx, a.c, binapi.IPTables(&tables)); err != nil {
		return err
	}
	ours := tables[:0]
	for _, t := range tables {
		if t.ID != 0 && t.Name == tableName(t.ID) {
			ours = append(ours, t)
		}
	}
	lo := a.view.lo
	if len(ours) == 0 && (lo == nil || lo.tag.flags != "" || len(a.view.byName) > 0 || !a.view.memifs.empty()) {
		return nil
	}
	s, err := a.dump(a.ctx, a.c)
	if err != nil {
		return err
	}
	var calls []*binapi.Call
	if lo != nil && lo.tag.flags == "" && len(a.view.byName) == 0 && a.view.memifs.empty() && len(s.Addresses) == 0 {
		calls = append(calls, binapi.LoopbackDelete(lo.Index))
		a.view.lo = nil
	}
	used := usedTables(s)
	for _, t := range ours {
		if !used[binapi.Table{ID: t.ID, IP6: t.IP6}] {
			calls = append(calls, binapi.IPTableDel(t))
		}
	}
	if len(calls) == 0 {
		return nil
	}
	return do(a.ctx, a.c, calls...)
}

func usedTables(s dataplane.State) map[binapi.Table]bool {
	used := map[binapi.Table]bool{}
	for k := range s.Routes {
		used[binapi.Table{ID: k.Table, IP6: k.Prefix.Addr().Is6()}] = true
	}
	for k := range s.Steerings {
		used[binapi.Table{ID: k.Table, IP6: k.Prefix.Addr().Is6()}] = true
	}
	for _, v := range s.LocalSIDs {
		switch v.Behaviour {
		case dataplane.BehaviourDT4:
			used[binapi.Table{ID: v.Table}] = true
		case dataplane.BehaviourDT6:
			used[binapi.Table{ID: v.Table, IP6: true}] = true
		}
	}
	return used
}
