// Package dataplane is the vocabulary between what the agent wants and what a
// packet path holds: State, Key, Change and Backend. It is a leaf: it imports
// nothing of the project, and no interface index, handle or other number that
// only one backend understands appears in it.
package dataplane

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// State is everything this program keeps in a dataplane. The zero State is
// empty and can be read; use New for one to be filled.
type State struct {
	Settings   map[SettingKey]Setting
	Interfaces map[InterfaceKey]Interface
	Addresses  map[AddressKey]Address
	Neighbours map[NeighbourKey]Neighbour
	Routes     map[RouteKey]Route
	LocalSIDs  map[LocalSIDKey]LocalSID
	Policies   map[PolicyKey]Policy
	Steerings  map[SteeringKey]Steering
}

// New returns an empty State with all maps made.
func New() State {
	return State{
		Settings:   map[SettingKey]Setting{},
		Interfaces: map[InterfaceKey]Interface{},
		Addresses:  map[AddressKey]Address{},
		Neighbours: map[NeighbourKey]Neighbour{},
		Routes:     map[RouteKey]Route{},
		LocalSIDs:  map[LocalSIDKey]LocalSID{},
		Policies:   map[PolicyKey]Policy{},
		Steerings:  map[SteeringKey]Steering{},
	}
}

// Value is the part of an object that can change while its Key stays: one of
// Setting, Interface, Address, Neighbour, Route, LocalSID, Policy, Steering.
type Value interface {
	// Equal reports whether the two values program the same behaviour. Values
	// of different types are never equal.
	Equal(Value) bool
	String() string
}

// Setting is the value of a node-wide setting, in text (see the SettingKeys).
type Setting string

// InterfaceRole says what an interface is for.
type InterfaceRole string

// The roles.
const (
	// RoleUplink faces the underlay and belongs to the host: it is used, never
	// created, renamed, re-addressed or removed.
	RoleUplink InterfaceRole = "uplink"
	// RolePod is the host's end of a pod's veth.
	RolePod InterfaceRole = "pod"
)

// MAC is an Ethernet address. The zero MAC means "leave as it is".
type MAC [6]byte

// ParseMAC reads the usual colon form.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, err
	}
	if len(hw) != 6 {
		return MAC{}, fmt.Errorf("MAC address %q has %d bytes, want 6", s, len(hw))
	}
	return MAC(hw), nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether m is the zero MAC.
func (m MAC) IsZero() bool { return m == MAC{} }

// Interface is an interface that the dataplane forwards on.
type Interface struct {
	Role InterfaceRole
	// MTU is the largest IP packet in bytes, without the Ethernet header.
	// 0 (uplink) leaves it as it is.
	MTU uint16
	// MAC is this end's address. Zero (uplink): as it is.
	MAC MAC
	// Rx is how a userspace dataplane receives; the kernel has no such choice.
	Rx Rx
	// Memif is for RoleMemif alone.
	Memif Memif
}

// Rx is how a userspace dataplane receives from an interface. The zero value is
// its default.
type Rx struct {
	Mode RxMode
	// Queues to receive from. 0: all that the link has (uplink), one (pod).
	Queues uint8
	// Ring and TxRing are the descriptors of a queue, powers of two from 256
	// on. 0: the driver's default.
	Ring, TxRing uint16
}

// RxMode is when a userspace dataplane looks for packets.
type RxMode string

// The modes, as VPP names them. The default is RxInterrupt.
const (
	RxInterrupt RxMode = "interrupt"
	RxAdaptive  RxMode = "adaptive"
	RxPolling   RxMode = "polling"
)

// Address has no attributes beside its key.
type Address struct{}

// Neighbour is a static layer-2 address.
type Neighbour struct{ MAC MAC }

// NextHop is one path of a route.
type NextHop struct {
	Interface string
	// Gateway is the next hop's address; the zero Addr means that the
	// destination itself is on the link.
	Gateway netip.Addr
	// Weight is the path's relative share, 1 or more.
	Weight uint8
}

// Route forwards a prefix without encapsulation, or drops it.
type Route struct {
	// NextHops are sorted (SortNextHops) and without duplicates. None means
	// that packets are dropped silently.
	NextHops []NextHop
}

// Behaviour is an SRv6 endpoint behaviour (RFC 8986 §4, RFC 9800 §4).
type Behaviour string

// The behaviours.
const (
	BehaviourEnd Behaviour = "End"
	// BehaviourUN is End with the NEXT-C-SID flavor, in F3216 layout.
	BehaviourUN   Behaviour = "uN"
	BehaviourDT4  Behaviour = "End.DT4"
	BehaviourDT6  Behaviour = "End.DT6"
	BehaviourDT46 Behaviour = "End.DT46"
)

// LocalSID is what this node does with packets to one of its SIDs.
type LocalSID struct {
	Behaviour Behaviour
	// Table is where the inner destination is looked up, for End.DT*.
	Table uint32
}

// SegmentList is one path through the network (RFC 9256 §2.4).
type SegmentList struct {
	// Segments in the order of travel: the first is the first to be visited.
	Segments []netip.Addr
	// Weight is the list's share among the policy's lists, 1 or more.
	Weight uint32
}

// Policy is an SR policy's forwarding entry: H.Encaps.Red (RFC 8986 §5.2) into
// one of its segment lists, chosen per flow by weight.
type Policy struct {
	// SegmentLists are sorted (SortSegmentLists); at least one.
	SegmentLists []SegmentList
}

// Steering sends a prefix into the policy with this binding SID.
type Steering struct{ BSID netip.Addr }

// Equal implements Value.
func (v Setting) Equal(o Value) bool { return v == o }

// Equal implements Value.
func (v Interface) Equal(o Value) bool { return v == o }

// Equal implements Value.
func (v Address) Equal(o Value) bool { return v == o }

// Equal implements Value.
func (v Neighbour) Equal(o Value) bool { return v == o }

// Equal implements Value.
func (v LocalSID) Equal(o Value) bool { return v == o }

// Equal implements Value.
func (v Steering) Equal(o Value) bool { return v == o }

// Equal implements Value.
func (v Route) Equal(o Value) bool {
	w, ok := o.(Route)
	return ok && slices.Equal(v.NextHops, w.NextHops)
}

// Equal implements Value.
func (v Policy) Equal(o Value) bool {
	w, ok := o.(Policy)
	return ok && slices.EqualFunc(v.SegmentLists, w.SegmentLists, func(a, b SegmentList) bool {
		return a.Weight == b.Weight && slices.Equal(a.Segments, b.Segments)
	})
}

func (v Setting) String() string   { return string(v) }
func (v Address) String() string   { return "" }
func (v Neighbour) String() string { return v.MAC.String() }
func (v Steering) String() string  { return "bsid " + v.BSID.String() }

func (v Interface) String() string {
	s := fmt.Sprintf("%s mtu %d mac %s", v.Role, v.MTU, v.MAC)
	if v.Rx != (Rx{}) {
		s += " " + v.Rx.String()
	}
	if v.Memif != (Memif{}) {
		s += " " + v.Memif.String()
	}
	return s
}

func (r Rx) String() string {
	return fmt.Sprintf("rx mode %q queues %d ring %d/%d", r.Mode, r.Queues, r.Ring, r.TxRing)
}

func (v LocalSID) String() string { return fmt.Sprintf("%s table %d", v.Behaviour, v.Table) }

func (v Route) String() string {
	if len(v.NextHops) == 0 {
		return "drop"
	}
	parts := make([]string, len(v.NextHops))
	for i, nh := range v.NextHops {
		parts[i] = nh.String()
	}
	return strings.Join(parts, ", ")
}

func (n NextHop) String() string {
	s := "dev " + n.Interface
	if n.Gateway.IsValid() {
		s = "via " + n.Gateway.String() + " " + s
	}
	if n.Weight != 1 {
		s += fmt.Sprintf(" weight %d", n.Weight)
	}
	return s
}

func (v Policy) String() string {
	parts := make([]string, len(v.SegmentLists))
	for i, l := range v.SegmentLists {
		segs := make([]string, len(l.Segments))
		for j, s := range l.Segments {
			segs[j] = s.String()
		}
		parts[i] = "[" + strings.Join(segs, " ") + "]"
		if l.Weight != 1 {
			parts[i] += fmt.Sprintf(" weight %d", l.Weight)
		}
	}
	return strings.Join(parts, ", ")
}

// SortNextHops puts next hops into the one order that State uses.
func SortNextHops(n []NextHop) {
	slices.SortFunc(n, func(a, b NextHop) int {
		if c := strings.Compare(a.Interface, b.Interface); c != 0 {
			return c
		}
		if c := a.Gateway.Compare(b.Gateway); c != 0 {
			return c
		}
		return int(a.Weight) - int(b.Weight)
	})
}

// SortSegmentLists puts segment lists into the one order that State uses.
func SortSegmentLists(l []SegmentList) {
	slices.SortFunc(l, func(a, b SegmentList) int {
		if c := slices.CompareFunc(a.Segments, b.Segments, netip.Addr.Compare); c != 0 {
			return c
		}
		return int(int64(a.Weight) - int64(b.Weight))
	})
}

// All yields every object, kind by kind in the order of creation, in no
// particular order within a kind.
func (s State) All() iter.Seq2[Key, Value] {
	return func(yield func(Key, Value) bool) {
		_ = each(s.Settings, yield) && each(s.Interfaces, yield) && each(s.Addresses, yield) &&
			each(s.Neighbours, yield) && each(s.Routes, yield) && each(s.LocalSIDs, yield) &&
			each(s.Policies, yield) && each(s.Steerings, yield)
	}
}

func each[K interface {
	comparable
	Key
}, V Value](m map[K]V, yield func(Key, Value) bool) bool {
	for k, v := range m {
		if !yield(k, v) {
			return false
		}
	}
	return true
}

// Len is the number of objects.
func (s State) Len() int {
	return len(s.Settings) + len(s.Interfaces) + len(s.Addresses) + len(s.Neighbours) +
		len(s.Routes) + len(s.LocalSIDs) + len(s.Policies) + len(s.Steerings)
}

// Get returns the object with this key, or false.
func (s State) Get(k Key) (Value, bool) {
	switch k := k.(type) {
	case SettingKey:
		return lookup(s.Settings, k)
	case InterfaceKey:
		return lookup(s.Interfaces, k)
	case AddressKey:
		return lookup(s.Addresses, k)
	case NeighbourKey:
		return lookup(s.Neighbours, k)
	case RouteKey:
		return lookup(s.Routes, k)
	case LocalSIDKey:
		return lookup(s.LocalSIDs, k)
	case PolicyKey:
		return lookup(s.Policies, k)
	case SteeringKey:
		return lookup(s.Steerings, k)
	}
	return nil, false
}

func lookup[K comparable, V Value](m map[K]V, k K) (Value, bool) {
	v, ok := m[k]
	if !ok {
		return nil, false
	}
	return v, true
}

// Set adds or replaces one object. It panics when the value's type does not
// belong to the key's: that is a programming error, not an input error.
func (s State) Set(k Key, v Value) {
	switch k := k.(type) {
	case SettingKey:
		s.Settings[k] = v.(Setting)
	case InterfaceKey:
		s.Interfaces[k] = v.(Interface)
	case AddressKey:
		s.Addresses[k] = v.(Address)
	case NeighbourKey:
		s.Neighbours[k] = v.(Neighbour)
	case RouteKey:
		s.Routes[k] = v.(Route)
	case LocalSIDKey:
		s.LocalSIDs[k] = v.(LocalSID)
	case PolicyKey:
		s.Policies[k] = v.(Policy)
	case SteeringKey:
		s.Steerings[k] = v.(Steering)
	default:
		panic(fmt.Sprintf("dataplane: unknown key type %T", k))
	}
}

// Delete removes one object; an absent one is no error.
func (s State) Delete(k Key) {
	switch k := k.(type) {
	case SettingKey:
		delete(s.Settings, k)
	case InterfaceKey:
		delete(s.Interfaces, k)
	case AddressKey:
		delete(s.Addresses, k)
	case NeighbourKey:
		delete(s.Neighbours, k)
	case RouteKey:
		delete(s.Routes, k)
	case LocalSIDKey:
		delete(s.LocalSIDs, k)
	case PolicyKey:
		delete(s.Policies, k)
	case SteeringKey:
		delete(s.Steerings, k)
	}
}

// Clone copies the maps. Slices inside values are shared: values are never
// changed in place.
func (s State) Clone() State {
	c := New()
	maps.Copy(c.Settings, s.Settings)
	maps.Copy(c.Interfaces, s.Interfaces)
	maps.Copy(c.Addresses, s.Addresses)
	maps.Copy(c.Neighbours, s.Neighbours)
	maps.Copy(c.Routes, s.Routes)
	maps.Copy(c.LocalSIDs, s.LocalSIDs)
	maps.Copy(c.Policies, s.Policies)
	maps.Copy(c.Steerings, s.Steerings)
	return c
}

// Text writes the state one object a line, sorted: for tests, logs and people.
func (s State) Text() string {
	lines := make([]string, 0, s.Len())
	for k, v := range s.All() {
		line := k.String()
		if t := v.String(); t != "" {
			line += " = " + t
		}
		lines = append(lines, line)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
