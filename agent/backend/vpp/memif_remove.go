package vpp

import (
	"errors"
	"slices"

	"github.com/sidewinder-net/sidewinder/binapi"
)

// removeMemif removes a memif with all that belongs to it; none at all is fine.
// The turn goes first, so that the pod's traffic is back on the veth, and the
// junction last, as it is the sign that there is something left.
func (a *applier) removeMemif(name string) (fatal, err error) {
	if !a.view.memifs.has(name) {
		return nil, nil
	}
	parts, err := readMemifs(a.ctx, a.c, a.view)
	if err != nil {
		return a.split(err)
	}
	p := parts[name]
	var calls []*binapi.Call
	for _, r := range slices.Concat(p.turns, p.veths) {
		calls = append(calls, binapi.RouteDel(r))
	}
	for _, x := range p.attached {
		calls = append(calls, binapi.ABFDetach(x))
	}
	for _, x := range p.policies {
		calls = append(calls, binapi.ABFPolicyDel(x))
	}
	for _, x := range p.acls {
		calls = append(calls, binapi.ACLDel(x.Index))
	}
	// VPP keeps an interface's neighbours for the next one with its number.
	for _, n := range slices.Concat(p.neighbours, p.pods) {
		calls = append(calls, binapi.NeighbourDel(n))
	}
	if p.hasIface {
		calls = append(calls, binapi.InterfaceSetUnnumbered(p.iface.Index, binapi.NoInterface), binapi.MemifDelete(p.iface.Index))
	}
	if p.socket != nil {
		calls = append(calls, binapi.MemifSocketDel(p.socket.ID))
	}
	if fatal := a.c.Do(a.ctx, calls...); fatal != nil {
		return fatal, nil
	}
	var failed []error
	for _, call := range calls {
		if call.Err != nil {
			failed = append(failed, call.Err)
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	delete(a.view.memifs.interfaces, name)
	if p.hasJunction {
		if fatal, err := a.do(binapi.LoopbackDelete(p.junction.Index)); fatal != nil || err != nil {
			return fatal, err
		}
		delete(a.view.memifs.junctions, name)
	}
	if !a.view.memifs.empty() {
		return nil, nil
	}
	calls = calls[:0]
	for _, r := range p.defaults {
		calls = append(calls, binapi.RouteDel(r))
	}
	return a.do(append(calls,
		binapi.IPTableDel(binapi.Table{ID: memifTable, Name: memifTableName}),
		binapi.IPTableDel(binapi.Table{ID: memifTable, IP6: true, Name: memifTableName}))...)
}
