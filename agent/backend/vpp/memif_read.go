package vpp

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// memifView are the interfaces behind memifs, by the memif's name.
type memifView struct {
	junctions, interfaces map[string]held
}

func newMemifView() memifView {
	return memifView{junctions: map[string]held{}, interfaces: map[string]held{}}
}

// take notes an interface; false when it has nothing to do with a memif.
func (v memifView) take(i binapi.Interface, t tag) bool {
	switch t.role {
	case roleJunction:
		v.junctions[t.name] = held{Interface: i, tag: t}
	case roleMemif:
		v.interfaces[t.name] = held{Interface: i, tag: t}
	default:
		return false
	}
	return true
}

func (v memifView) has(name string) bool {
	_, junction := v.junctions[name]
	_, iface := v.interfaces[name]
	return junction || iface
}

func (v memifView) empty() bool { return len(v.junctions) == 0 && len(v.interfaces) == 0 }

// memifParts is all that VPP holds of one memif.
type memifParts struct {
	name            string
	junction, iface held
	hasJunction     bool
	hasIface        bool

	acls       []binapi.ACL
	policies   []binapi.ABFPolicy
	attached   []binapi.ABFAttachment
	socket     *binapi.MemifSocket
	details    *binapi.Memif
	neighbours []binapi.Neighbour
	// pods are the junction's neighbours.
	pods []binapi.Neighbour
	// turns lead to the junction, veths from it to the veth, defaults to the
	// main table.
	turns, veths, defaults []binapi.Route
}

// readMemifs reads what VPP holds of the memifs in the view.
func readMemifs(ctx context.Context, c *binapi.Conn, v *view) (map[string]*memifParts, error) {
	out := map[string]*memifParts{}
	part := func(name string) *memifParts {
		if out[name] == nil {
			out[name] = &memifParts{name: name}
		}
		return out[name]
	}
	for name, h := range v.memifs.junctions {
		p := part(name)
		p.junction, p.hasJunction = h, true
	}
	for name, h := range v.memifs.interfaces {
		p := part(name)
		p.iface, p.hasIface = h, true
	}
	if len(out) == 0 || canMemif(c) != nil {
		return out, nil
	}
	var r struct {
		queues     []binapi.RxQueue
		acls       []binapi.ACL
		policies   []binapi.ABFPolicy
		attached   []binapi.ABFAttachment
		sockets    []binapi.MemifSocket
		memifs     []binapi.Memif
		neighbours []binapi.Neighbour
		sources    []binapi.FIBSource
		routes     []binapi.Route
	}
	if err := do(ctx, c, binapi.RxQueues(&r.queues), binapi.ACLs(&r.acls), binapi.ABFPolicies(&r.policies), binapi.ABFAttachments(&r.attached),
		binapi.MemifSockets(&r.sockets), binapi.Memifs(&r.memifs),
		binapi.Neighbours(false, &r.neighbours), binapi.Neighbours(true, &r.neighbours), binapi.FIBSources(&r.sources)); err != nil {
		return nil, err
	}
	source, known := sourceByName(r.sources, memifSourceName)
	if known {
		if err := do(ctx, c, binapi.Routes(0, false, source, &r.routes), binapi.Routes(0, true, source, &r.routes),
			binapi.Routes(memifTable, false, source, &r.routes), binapi.Routes(memifTable, true, source, &r.routes)); err != nil {
			return nil, err
		}
	}
	byJunction := map[binapi.Index]*memifParts{}
	byIface := map[binapi.Index]*memifParts{}
	byACL := map[string]*memifParts{}
	byPolicy := map[uint32]*memifParts{}
	bySocket := map[uint32]*memifParts{}
	for name, p := range out {
		byACL[memifACLTag(name)] = p
		if p.hasJunction {
			i := p.junction.Index
			byJunction[i], bySocket[memifSocketID(i)] = p, p
			byPolicy[memifPolicyID(i, false)], byPolicy[memifPolicyID(i, true)] = p, p
		}
		if p.hasIface {
			byIface[p.iface.Index] = p
		}
	}
	for _, x := range r.memifs {
		if p := bySocket[x.Socket]; p != nil && !p.hasIface {
			// Its maker ended before it was tagged.
			p.iface, p.hasIface = held{Interface: binapi.Interface{Index: x.Index}}, true
			byIface[x.Index] = p
		}
	}
	for _, q := range r.queues {
		if p := byIface[q.Interface]; p != nil {
			p.iface.modes = append(p.iface.modes, q.Mode)
		}
	}
	for _, x := range r.acls {
		if p := byACL[x.Tag]; p != nil {
			p.acls = append(p.acls, x)
		}
	}
	for _, x := range r.policies {
		if p := byPolicy[x.ID]; p != nil {
			p.policies = append(p.policies, x)
		}
	}
	for _, x := range r.attached {
		if p := byJunction[x.Interface]; p != nil {
			p.attached = append(p.attached, x)
		}
	}
	for _, x := range r.sockets {
		if p := bySocket[x.ID]; p != nil {
			p.socket = &x
		}
	}
	for _, x := range r.memifs {
		if p := byIface[x.Index]; p != nil {
			p.details = &x
		}
	}
	for _, x := range r.neighbours {
		if p := byIface[x.Interface]; p != nil && x.Static {
			p.neighbours = append(p.neighbours, x)
		}
		if p := byJunction[x.Interface]; p != nil && x.Static && x.MAC == junctionMAC() {
			p.pods = append(p.pods, x)
		}
	}
	sortMemifRoutes(r.routes, v, out, byJunction)
	return out, nil
}

// sortMemifRoutes gives each memif the routes that are its own.
func sortMemifRoutes(routes []binapi.Route, v *view, parts map[string]*memifParts, byJunction map[binapi.Index]*memifParts) {
	turn := map[netip.Prefix]*memifParts{}
	for _, x := range routes {
		if x.Table != memifTable && len(x.Paths) == 1 {
			if p := byJunction[x.Paths[0].Interface]; p != nil {
				p.turns = append(p.turns, x)
				turn[x.Prefix] = p
			}
		}
	}
	// One that was made without its turn is known by the veth.
	byVeth := map[string]*memifParts{}
	for name, p := range parts {
		byVeth[vethOf(name)] = p
	}
	for _, x := range routes {
		switch {
		case x.Table != memifTable:
		case x.Prefix.Bits() == 0:
			for _, p := range parts {
				p.defaults = append(p.defaults, x)
			}
		default:
			p := turn[x.Prefix]
			if p == nil && len(x.Paths) == 1 {
				p = byVeth[v.byIndex[x.Paths[0].Interface]]
			}
			if p != nil {
				p.veths = append(p.veths, x)
			}
		}
	}
}

// ips are the addresses that are turned to the junction.
func (p *memifParts) ips() []netip.Addr {
	var out []netip.Addr
	for _, r := range p.turns {
		out = append(out, r.Prefix.Addr())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// value reads a memif back, as it was asked for. One that is not whole has an
// MTU that nobody asks for.
func (p *memifParts) value(v *view) dataplane.Interface {
	out := dataplane.Interface{Role: dataplane.RoleMemif, MTU: needsRepair, Rx: p.iface.tag.rx}
	if !p.hasJunction || !p.hasIface || p.details == nil || p.socket == nil {
		return out
	}
	ips := p.ips()
	veth := vethOf(p.name)
	m := dataplane.Memif{L3: p.details.L3, IPs: dataplane.FormatIPs(ips), Veth: veth}
	var ok bool
	if m.Socket, m.Netns, ok = parseAbstractSocket(p.socket.Filename); !ok {
		return out
	}
	listed := false
	if len(p.acls) == 1 && !p.acls[0].Foreign {
		m.Ports, listed = memifPorts(p.acls[0].Rules)
	}
	if len(p.neighbours) > 0 {
		m.PeerMAC = dataplane.MAC(p.neighbours[0].MAC)
	}
	out.Memif = m
	if !m.L3 {
		out.MAC = dataplane.MAC(p.iface.MAC)
	}
	if listed && p.whole(v, veth, ips, m.PeerMAC) {
		out.MTU = uint16(p.iface.MTU)
	}
	return out
}

// vethOf is the link beside which a memif is, by its name.
func vethOf(memif string) string {
	return strings.TrimSuffix(memif, string(dataplane.MemifKey("")))
}

// whole: everything is there as setMemif makes it.
func (p *memifParts) whole(v *view, veth string, ips []netip.Addr, peer dataplane.MAC) bool {
	if !p.junction.AdminUp || !p.iface.AdminUp || !p.iface.receivesAs() || p.details.Socket != memifSocketID(p.junction.Index) || len(ips) == 0 {
		return false
	}
	if !slices.Equal(neighbourIPs(p.pods, junctionMAC()), ips) || !p.details.L3 && !slices.Equal(neighbourIPs(p.neighbours, binapi.MAC(peer)), ips) {
		return false
	}
	if !p.wholePolicies(memifPolicies(p.junction.Index, p.iface.Index, p.acls[0].Index, ips)) {
		return false
	}
	index, err := v.index(veth)
	if err != nil || len(p.veths) != len(ips) || len(p.defaults) != len(memifDefaults()) {
		return false
	}
	for _, r := range p.veths {
		if len(r.Paths) != 1 || r.Paths[0].Interface != index || r.Foreign {
			return false
		}
	}
	return true
}

// wholePolicies: these policies are there and attached, and no others.
func (p *memifParts) wholePolicies(want []binapi.ABFPolicy) bool {
	if len(p.policies) != len(want) || len(p.attached) != len(want) {
		return false
	}
	for _, w := range want {
		if !slices.Contains(p.policies, w) || !slices.Contains(p.attached, memifAttachment(p.junction.Index, w)) {
			return false
		}
	}
	return true
}

// neighbourIPs are those with a layer-2 address, sorted.
func neighbourIPs(all []binapi.Neighbour, mac binapi.MAC) []netip.Addr {
	var out []netip.Addr
	for _, n := range all {
		if n.MAC == mac {
			out = append(out, n.IP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// parseAbstractSocket reads binapi.AbstractSocket's text.
func parseAbstractSocket(s string) (name, netns string, ok bool) {
	rest, ok := strings.CutPrefix(s, "abstract:")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ",netns_name=")
}

// dumpMemifs adds the memifs to the state, and the state's routes to their pods,
// which VPP does not tell of while the turn hides them. They were made together
// with the routes from the junction (applier.vethRoutes), and are the same.
func dumpMemifs(ctx context.Context, c *binapi.Conn, v *view, s dataplane.State) error {
	if v.memifs.empty() {
		return nil
	}
	parts, err := readMemifs(ctx, c, v)
	if err != nil {
		return err
	}
	for name, p := range parts {
		s.Interfaces[dataplane.InterfaceKey(name)] = p.value(v)
		hidden := p.ips()
		for _, r := range p.veths {
			if slices.Contains(hidden, r.Prefix.Addr()) {
				s.Routes[dataplane.RouteKey{Prefix: r.Prefix}] = routeValue(r, v)
			}
		}
	}
	return nil
}
