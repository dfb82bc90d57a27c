package vpp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// A pod's memif shares the pod's addresses with the veth; destination ports
// choose between the two. VPP has no route by port, so a packet to the pod takes
// a turn through the pod's junction, a loopback, which sends back to VPP what is
// sent to it, as if it had been received there:
//
//	main table: pod/32 ─► junction, in memifTable
//	  ─► ABF policy of the junction: the ports' access list ─► memif
//	  ─► memifTable: pod/32 ─► veth; all else (ICMP errors) ─► main table
//
// The first route comes from a FIB source of its own, which is preferred to that
// of the state's routes: without the memif, or when it fails, the state's route
// to the veth is what holds. The turn costs one hop of the TTL, which also ends a
// packet that would come around for ever.
//
// One value of the state, an Interface of RoleMemif, stands for all of it.

// memifTable is the table of the junctions.
const memifTable = 0x5357

// memifTableName does not follow tableName: the table is nobody's in the state.
const memifTableName = tagPrefix + "memif"

// Roles, in a tag, of the two interfaces.
const (
	roleMemif    = string(dataplane.RoleMemif)
	roleJunction = "junction"
)

// memifSourceName is the FIB source of all routes here, preferred to sourceName's.
const (
	memifSourceName     = "sidewinder-memif"
	memifSourcePriority = sourcePriority - 1
)

// Junctions are loopbacks numbered from here on. Each has an address of its own
// (link-local, in memifTable alone), which turns IPv4 on.
const (
	firstJunction = 8400
	maxJunctions  = 4096
)

func junctionAddress(n uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, 128 + byte(n>>8), byte(n)}), 32)
}

// junctionMAC is every junction's own, and that of the pod as seen from there.
func junctionMAC() binapi.MAC { return binapi.MAC{2, 0x53, 0x57, 0, 0, 1} }

// memifNumbers begins the numbers that are ours to choose; the junction's index
// makes the rest.
const memifNumbers = 0x53000000

func memifSocketID(junction binapi.Index) uint32 { return memifNumbers + uint32(junction) }

func memifPolicyID(junction binapi.Index, is6 bool) uint32 {
	id := memifNumbers + 2*uint32(junction)
	if is6 {
		id++
	}
	return id
}

// memifGroups of messages beside the core's. VPP has them by plugins that nobody
// without a memif needs.
func memifGroups() []binapi.Group {
	return []binapi.Group{binapi.GroupMemif, binapi.GroupACL, binapi.GroupABF}
}

// canMemif: VPP has all that a memif takes.
func canMemif(c *binapi.Conn) error {
	var plugins []string
	for _, g := range memifGroups() {
		for _, m := range c.Missing(g) {
			if !slices.Contains(plugins, m.Plugin) {
				plugins = append(plugins, m.Plugin)
			}
		}
	}
	if len(plugins) == 0 {
		return nil
	}
	return fmt.Errorf("%w: a memif needs VPP's %s; load them in VPP's startup configuration", dataplane.ErrUnsupported, strings.Join(plugins, ", "))
}

// memifRules are the access list of a pod's ports. VPP lets a later fragment,
// which has no ports, match the first rule of its protocol: that is one which
// denies port 0, so that they go to the veth.
func memifRules(ports []dataplane.PortRange) []binapi.PortRule {
	var out []binapi.PortRule
	for _, is6 := range []bool{false, true} {
		for _, p := range []dataplane.Protocol{dataplane.ProtocolTCP, dataplane.ProtocolUDP} {
			out = append(out, binapi.PortRule{IP6: is6, Protocol: uint8(p)})
		}
		for _, r := range ports {
			out = append(out, binapi.PortRule{Permit: true, IP6: is6, Protocol: uint8(r.Protocol), First: r.First, Last: r.Last})
		}
	}
	return out
}

// memifPorts reads the access list back; false when it is not one of ours.
func memifPorts(rules []binapi.PortRule) (string, bool) {
	var ports []dataplane.PortRange
	for _, r := range rules {
		if r.Permit && !r.IP6 {
			ports = append(ports, dataplane.PortRange{Protocol: dataplane.Protocol(r.Protocol), First: r.First, Last: r.Last})
		}
	}
	return dataplane.FormatPorts(ports), slices.Equal(rules, memifRules(dataplane.MergePorts(ports)))
}

// memifWish is what is wanted, read and checked.
type memifWish struct {
	name   string
	value  dataplane.Interface
	ips    []netip.Addr
	ports  []dataplane.PortRange
	socket string
}

func newMemifWish(name string, v dataplane.Interface) (w memifWish, err error) {
	w = memifWish{name: name, value: v, socket: binapi.AbstractSocket(v.Memif.Socket, v.Memif.Netns)}
	if w.ips, err = dataplane.ParseIPs(v.Memif.IPs); err != nil {
		return w, err
	}
	if w.ports, err = dataplane.ParsePorts(v.Memif.Ports); err != nil {
		return w, err
	}
	switch {
	case name != string(dataplane.MemifKey(v.Memif.Veth)):
		return w, fmt.Errorf("%w: memif %q beside link %q: its name is to be %q", dataplane.ErrUnsupported, name, v.Memif.Veth, dataplane.MemifKey(v.Memif.Veth))
	case len(w.ips) == 0:
		return w, fmt.Errorf("%w: memif %q has no address", dataplane.ErrUnsupported, name)
	case v.MAC.IsZero() != v.Memif.L3 || v.Memif.PeerMAC.IsZero() != v.Memif.L3:
		return w, fmt.Errorf("%w: memif %q: MAC addresses are for an Ethernet memif, and needed there", dataplane.ErrUnsupported, name)
	case len(w.socket) >= binapi.MaxSocketText:
		return w, fmt.Errorf("%w: socket %q is longer than %d bytes", dataplane.ErrUnsupported, w.socket, binapi.MaxSocketText-1)
	case strings.ContainsAny(v.Memif.Netns+v.Memif.Socket, ", \"'"):
		return w, fmt.Errorf("%w: socket %q has a character that VPP takes for something else", dataplane.ErrUnsupported, w.socket)
	}
	return w, nil
}

// setMemif makes a memif, or makes it anew: whoever is at its other end connects
// again.
func (a *applier) setMemif(name string, want dataplane.Interface) (fatal, err error) {
	w, err := newMemifWish(name, want)
	if err != nil {
		return nil, err
	}
	if err := checkRx(want.Rx); err != nil {
		return nil, err
	}
	if err := canMemif(a.c); err != nil {
		return nil, err
	}
	veth, err := a.view.index(want.Memif.Veth)
	if err != nil {
		return nil, err
	}
	if fatal, err := a.ensureLoopback(); fatal != nil || err != nil {
		return fatal, err
	}
	if fatal, err := a.removeMemif(name); fatal != nil || err != nil {
		return fatal, err
	}
	m := &memifMaker{applier: a, memifWish: w, veth: veth}
	for _, step := range []func() error{m.makeJunction, m.makeInterface, m.makePolicies, m.makeTurn} {
		if err := step(); err != nil {
			return a.split(err)
		}
	}
	return nil, nil
}

// split tells an error of the connection from VPP's refusal.
func (a *applier) split(err error) (fatal, refused error) {
	if errors.Is(err, binapi.ErrDisconnected) || a.ctx.Err() != nil {
		return err, nil
	}
	return nil, err
}

// memifMaker makes one memif, step by step. What is there after a step that
// failed is found by its junction, and removed before the next attempt.
type memifMaker struct {
	*applier
	memifWish
	veth     binapi.Index
	junction binapi.Index
	memif    binapi.Index
	source   uint8
}

// makeJunction makes the loopback first: its tag is the sign that there is
// something to remove.
func (m *memifMaker) makeJunction() error {
	n, err := m.freeJunction()
	if err != nil {
		return err
	}
	t := tag{role: roleJunction, name: m.name}
	if err := do(m.ctx, m.c, binapi.InterfaceSetTag(m.junction, t.String())); err != nil {
		return err
	}
	m.view.memifs.junctions[m.name] = held{Interface: binapi.Interface{Index: m.junction, Name: binapi.LoopbackName(n)}, tag: t}
	if m.source, err = m.sourceOf(memifSourceName, memifSourcePriority); err != nil {
		return err
	}
	calls := []*binapi.Call{
		binapi.IPTableAdd(binapi.Table{ID: memifTable, Name: memifTableName}),
		binapi.IPTableAdd(binapi.Table{ID: memifTable, IP6: true, Name: memifTableName}),
		binapi.InterfaceSetTable(m.junction, memifTable, false),
		binapi.InterfaceSetTable(m.junction, memifTable, true),
		binapi.InterfaceSetMAC(m.junction, junctionMAC()),
		binapi.InterfaceAddAddress(m.junction, junctionAddress(n-firstJunction)),
		binapi.InterfaceEnableIP6(m.junction),
		binapi.InterfaceSuppressRA(m.junction),
		binapi.InterfaceSetUp(m.junction, true),
	}
	for _, p := range memifDefaults() {
		calls = append(calls, binapi.RouteReplace(binapi.Route{
			Table: memifTable, Prefix: p, Source: m.source, Paths: []binapi.Path{{Interface: binapi.NoInterface, Weight: 1}},
		}))
	}
	for _, ip := range m.ips {
		calls = append(calls, binapi.NeighbourAdd(binapi.Neighbour{Interface: m.junction, IP: ip, MAC: junctionMAC()}))
	}
	return do(m.ctx, m.c, calls...)
}

// memifDefaults lead from memifTable to the main one.
func memifDefaults() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// freeJunction makes a loopback, or takes one that was made and not tagged.
func (m *memifMaker) freeJunction() (uint32, error) {
	taken := map[string]bool{}
	for _, h := range m.view.memifs.junctions {
		taken[h.Name] = true
	}
	foreign := map[string]binapi.Interface{}
	for _, i := range m.view.others {
		foreign[i.Name] = i
	}
	for n := uint32(firstJunction); n < firstJunction+maxJunctions; n++ {
		name := binapi.LoopbackName(n)
		if taken[name] {
			continue
		}
		i, there := foreign[name]
		if !there {
			return n, do(m.ctx, m.c, binapi.LoopbackCreate(n, &m.junction))
		}
		ours, err := m.untouched(i)
		if err != nil {
			return 0, err
		}
		if ours {
			m.junction = i.Index
			return n, nil
		}
	}
	return 0, fmt.Errorf("VPP's %s to %s are all in use", binapi.LoopbackName(firstJunction), binapi.LoopbackName(firstJunction+maxJunctions-1))
}

// makeInterface makes the memif itself. A namespace that is not there (any more)
// is VPP's error when it opens the socket.
func (m *memifMaker) makeInterface() error {
	id := memifSocketID(m.junction)
	// The number may be left from a junction that had this index before.
	if err := m.c.Do(m.ctx, binapi.MemifSocketDel(id)); err != nil {
		return err
	}
	if err := do(m.ctx, m.c, binapi.MemifSocketAdd(binapi.MemifSocket{ID: id, Filename: m.socket})); err != nil {
		return err
	}
	create := binapi.Memif{Socket: id, L3: m.value.Memif.L3, MAC: binapi.MAC(m.value.MAC)}
	if err := do(m.ctx, m.c, binapi.MemifCreate(create, &m.memif)); err != nil {
		if binapi.Retval(err) != 0 {
			return fmt.Errorf("%w: socket %q: %w", dataplane.ErrNotReady, m.socket, err)
		}
		return err
	}
	t := tag{role: roleMemif, name: m.name, rx: m.value.Rx}
	h := held{Interface: binapi.Interface{Index: m.memif, MAC: binapi.MAC(m.value.MAC)}, tag: t}
	if err := do(m.ctx, m.c, binapi.InterfaceSetTag(m.memif, t.String())); err != nil {
		return err
	}
	m.view.memifs.interfaces[m.name] = h
	return m.settleMemif()
}

// settleMemif sets the interface up.
func (m *memifMaker) settleMemif() error {
	ip6 := binapi.InterfaceEnableIP6(m.memif)
	calls := []*binapi.Call{
		binapi.InterfaceSetMTU(m.memif, uint32(m.value.MTU)), binapi.InterfaceSetUnnumbered(m.memif, m.view.lo.Index), ip6,
	}
	if !m.value.Memif.L3 {
		// Without Ethernet there is no neighbour discovery, and nothing to
		// advertise.
		calls = append(calls, binapi.InterfaceSuppressRA(m.memif))
	}
	calls = append(calls, binapi.InterfaceSetRxMode(m.memif, rxModes()[m.value.Rx.Mode]), binapi.InterfaceSetUp(m.memif, true))
	if !m.value.Memif.L3 {
		for _, ip := range m.ips {
			calls = append(calls, binapi.NeighbourAdd(binapi.Neighbour{Interface: m.memif, IP: ip, MAC: binapi.MAC(m.value.Memif.PeerMAC)}))
		}
	}
	return do(m.ctx, m.c, calls...)
}

// makePolicies makes the choice by port. VPP does not check what a policy or an
// attachment refers to, so each step waits for the one before.
func (m *memifMaker) makePolicies() error {
	var acl uint32
	if err := do(m.ctx, m.c, binapi.ACLAdd(binapi.ACL{Tag: memifACLTag(m.name), Rules: memifRules(m.ports)}, &acl)); err != nil {
		return err
	}
	for _, p := range memifPolicies(m.junction, m.memif, acl, m.ips) {
		if err := do(m.ctx, m.c, binapi.ABFPolicyAdd(p)); err != nil {
			return err
		}
		if err := do(m.ctx, m.c, binapi.ABFAttach(memifAttachment(m.junction, p))); err != nil {
			return err
		}
	}
	return nil
}

func memifACLTag(name string) string { return tagPrefix + roleMemif + ":" + name }

// memifPolicies are one for each family that the pod has. All its addresses
// have the same layer-2 address, so one of them is the next hop for all.
func memifPolicies(junction, memif binapi.Index, acl uint32, ips []netip.Addr) []binapi.ABFPolicy {
	var out []binapi.ABFPolicy
	for _, is6 := range []bool{false, true} {
		if i := slices.IndexFunc(ips, func(ip netip.Addr) bool { return ip.Is6() == is6 }); i >= 0 {
			out = append(out, binapi.ABFPolicy{
				ID: memifPolicyID(junction, is6), ACL: acl, Path: binapi.Path{Interface: memif, Gateway: ips[i], Weight: 1},
			})
		}
	}
	return out
}

func memifAttachment(junction binapi.Index, p binapi.ABFPolicy) binapi.ABFAttachment {
	return binapi.ABFAttachment{Policy: p.ID, Interface: junction, IP6: p.Path.Gateway.Is6()}
}

// makeTurn turns the pod's traffic over, last of all.
func (m *memifMaker) makeTurn() error {
	if err := m.vethRoutes(m.ips, m.veth); err != nil {
		return err
	}
	calls := make([]*binapi.Call, 0, len(m.ips))
	for _, ip := range m.ips {
		calls = append(calls, binapi.RouteReplace(hostRoute(0, ip, m.source, m.junction)))
	}
	return do(m.ctx, m.c, calls...)
}

// vethRoutes makes the routes for what is not the memif's: those from the
// junction, and with them the state's own, which VPP does not tell of while the
// turn hides them.
func (a *applier) vethRoutes(ips []netip.Addr, veth binapi.Index) error {
	source, err := a.sourceOf(memifSourceName, memifSourcePriority)
	if err != nil {
		return err
	}
	own, err := a.fibSource()
	if err != nil {
		return err
	}
	calls := make([]*binapi.Call, 0, 2*len(ips))
	for _, ip := range ips {
		calls = append(calls, binapi.RouteReplace(hostRoute(0, ip, own, veth)), binapi.RouteReplace(hostRoute(memifTable, ip, source, veth)))
	}
	return do(a.ctx, a.c, calls...)
}

func hostRoute(table uint32, ip netip.Addr, source uint8, to binapi.Index) binapi.Route {
	return binapi.Route{Table: table, Prefix: netip.PrefixFrom(ip, ip.BitLen()), Source: source, Paths: []binapi.Path{{Interface: to, Weight: 1}}}
}

// followVeths makes the routes to veths anew that have been set up: one that was
// made anew is another interface, even if it has the same index. VPP shares the
// paths of equal routes, and dead ones with them, so that all must go first.
func (a *applier) followVeths(changes []dataplane.Change) error {
	var parts map[string]*memifParts
	for _, ch := range changes {
		veth := string(ch.Key.(dataplane.InterfaceKey))
		name := string(dataplane.MemifKey(veth))
		if _, ok := a.view.memifs.junctions[name]; !ok || ch.Op == dataplane.OpDelete {
			continue
		}
		index, err := a.view.index(veth)
		if err != nil {
			continue // its own change has failed, and said so
		}
		if parts == nil {
			if parts, err = readMemifs(a.ctx, a.c, a.view); err != nil {
				return err
			}
		}
		p := parts[name]
		own, err := a.fibSource()
		if err != nil {
			return err
		}
		var calls []*binapi.Call
		for _, r := range p.veths {
			calls = append(calls, binapi.RouteDel(r), binapi.RouteDel(binapi.Route{Prefix: r.Prefix, Source: own}))
		}
		if err := do(a.ctx, a.c, calls...); err != nil {
			return err
		}
		if err := a.vethRoutes(p.ips(), index); err != nil {
			return err
		}
	}
	return nil
}
