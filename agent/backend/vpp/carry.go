package vpp

import (
	"slices"

	"github.com/sidewinder-net/sidewinder/binapi"
)

// carried is what of ours goes through an interface in VPP. When the interface
// is made anew, VPP keeps routes through the old one and drops their packets,
// though they look the same where the new one has the old one's number.
type carried struct {
	neighbours []binapi.Neighbour
	routes     []binapi.Route
}

// takeOff takes from VPP what goes through an interface, and tells what it was.
// A route with other ways as well keeps those.
func (a *applier) takeOff(i binapi.Index) (c carried, err error) {
	if c, err = a.through(i); err != nil {
		return c, err
	}
	var calls []*binapi.Call
	for _, r := range c.routes {
		r.Paths = slices.DeleteFunc(slices.Clone(r.Paths), func(p binapi.Path) bool { return p.Interface == i })
		if len(r.Paths) > 0 {
			calls = append(calls, binapi.RouteReplace(r))
		} else {
			calls = append(calls, binapi.RouteDel(r))
		}
	}
	for _, n := range c.neighbours {
		calls = append(calls, binapi.NeighbourDel(n))
	}
	// What VPP refuses to let go of is put in again all the same.
	return c, a.c.Do(a.ctx, calls...)
}

// through reads what of ours goes through an interface.
func (a *applier) through(i binapi.Index) (c carried, err error) {
	var tables []binapi.Table
	var sources []binapi.FIBSource
	var neighbours []binapi.Neighbour
	if err := do(a.ctx, a.c, binapi.IPTables(&tables), binapi.FIBSources(&sources),
		binapi.Neighbours(false, &neighbours), binapi.Neighbours(true, &neighbours)); err != nil {
		return c, err
	}
	for _, n := range neighbours {
		if n.Interface == i && n.Static {
			c.neighbours = append(c.neighbours, n)
		}
	}
	source, ok := findSource(sources)
	if !ok {
		return c, nil
	}
	var calls []*binapi.Call
	var routes []binapi.Route
	for _, t := range tables {
		calls = append(calls, binapi.Routes(t.ID, t.IP6, source, &routes))
	}
	if err := do(a.ctx, a.c, calls...); err != nil {
		return c, err
	}
	for _, r := range routes {
		if slices.ContainsFunc(r.Paths, func(p binapi.Path) bool { return p.Interface == i }) {
			r.Source = source
			c.routes = append(c.routes, r)
		}
	}
	return c, nil
}

// putBack gives VPP again what takeOff took, through the new interface.
func (a *applier) putBack(c carried, from, to binapi.Index) (fatal, err error) {
	var calls []*binapi.Call
	for _, n := range c.neighbours {
		n.Interface = to
		calls = append(calls, binapi.NeighbourAdd(n))
	}
	for _, r := range c.routes {
		r.Paths = slices.Clone(r.Paths)
		for i := range r.Paths {
			if r.Paths[i].Interface == from {
				r.Paths[i].Interface = to
			}
		}
		calls = append(calls, binapi.RouteReplace(r))
	}
	return a.do(calls...)
}
