package dataplane

import (
	"fmt"
	"net/netip"
)

// Kind names one family of objects in a State. Its numeric order is the order
// in which objects are added; they are removed in the opposite order.
//
// The order follows what refers to what: a route names an interface, a policy
// needs the underlay route to its first segment to be of use, and steering
// refers to a policy by its binding SID.
type Kind uint8

// The kinds, in the order of creation.
const (
	KindSetting Kind = iota + 1
	KindInterface
	KindAddress
	KindNeighbour
	KindRoute
	KindLocalSID
	KindPolicy
	KindSteering
)

var kindNames = [...]string{
	KindSetting:   "setting",
	KindInterface: "interface",
	KindAddress:   "address",
	KindNeighbour: "neighbour",
	KindRoute:     "route",
	KindLocalSID:  "localsid",
	KindPolicy:    "policy",
	KindSteering:  "steering",
}

// Kinds lists every kind in the order of creation.
func Kinds() []Kind {
	return []Kind{KindSetting, KindInterface, KindAddress, KindNeighbour, KindRoute, KindLocalSID, KindPolicy, KindSteering}
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Key identifies one object within a State. The implementations are comparable,
// so a Key can itself be a map key.
type Key interface {
	closedSet
	Kind() Kind
	// String is "kind/identity", for logs, status and errors.
	String() string
}

// closedSet keeps foreign types from implementing Key: the set is closed.
type closedSet interface{ isKey() }

// SettingKey names a node-wide setting.
type SettingKey string

// The settings that compile emits. A backend that cannot hold one answers
// ErrUnsupported for it.
const (
	// SettingEncapSource is the outer source address of H.Encaps, an IPv6
	// address (RFC 8986 §5.1).
	SettingEncapSource SettingKey = "encap-source"
	// SettingEncapHopLimit is the outer hop limit, 1 to 255, decimal.
	SettingEncapHopLimit SettingKey = "encap-hop-limit"
	// SettingFlowLabel says how the outer flow label is made: "inner-hash"
	// (RFC 6437, RFC 8986 §6.2: a hash of the inner 5-tuple) or "none".
	SettingFlowLabel SettingKey = "flow-label"
	// SettingFlowHash lists the fields of the IPv6 ECMP hash, comma separated
	// and sorted: "dst,flowlabel,proto,src".
	SettingFlowHash SettingKey = "flow-hash"
)

// Values of the settings.
const (
	FlowLabelInnerHash   = "inner-hash"
	FlowLabelNone        = "none"
	FlowHashWithLabel    = "dst,flowlabel,proto,src"
	DefaultEncapHopLimit = "64"
)

// InterfaceKey is the name of a kernel interface on the host side. A backend
// that has interfaces of its own (VPP) maps the name.
type InterfaceKey string

// AddressKey is an address of the node on one of its interfaces. Interface "lo"
// is always there: the kernel's loopback, or one that a backend makes for itself.
type AddressKey struct {
	Interface string
	Prefix    netip.Prefix
}

// NeighbourKey is a static neighbour entry's identity.
type NeighbourKey struct {
	Interface string
	IP        netip.Addr
}

// RouteKey identifies a route. Table 0 is the default (main) table.
type RouteKey struct {
	Table  uint32
	Prefix netip.Prefix
}

// LocalSIDKey is a local SID. A full SID is a /128, a uN is as long as block
// and node together (/48 in F3216).
type LocalSIDKey struct{ SID netip.Prefix }

// PolicyKey identifies an SR policy by its binding SID (RFC 9256 §6).
type PolicyKey struct{ BSID netip.Addr }

// SteeringKey is a destination prefix steered into a policy.
type SteeringKey struct {
	Table  uint32
	Prefix netip.Prefix
}

func (SettingKey) isKey()   {}
func (InterfaceKey) isKey() {}
func (AddressKey) isKey()   {}
func (NeighbourKey) isKey() {}
func (RouteKey) isKey()     {}
func (LocalSIDKey) isKey()  {}
func (PolicyKey) isKey()    {}
func (SteeringKey) isKey()  {}

// Kind implements Key.
func (SettingKey) Kind() Kind { return KindSetting }

// Kind implements Key.
func (InterfaceKey) Kind() Kind { return KindInterface }

// Kind implements Key.
func (AddressKey) Kind() Kind { return KindAddress }

// Kind implements Key.
func (NeighbourKey) Kind() Kind { return KindNeighbour }

// Kind implements Key.
func (RouteKey) Kind() Kind { return KindRoute }

// Kind implements Key.
func (LocalSIDKey) Kind() Kind { return KindLocalSID }

// Kind implements Key.
func (PolicyKey) Kind() Kind { return KindPolicy }

// Kind implements Key.
func (SteeringKey) Kind() Kind { return KindSteering }

func (k SettingKey) String() string   { return "setting/" + string(k) }
func (k InterfaceKey) String() string { return "interface/" + string(k) }
func (k AddressKey) String() string   { return "address/" + k.Interface + "/" + k.Prefix.String() }
func (k NeighbourKey) String() string { return "neighbour/" + k.Interface + "/" + k.IP.String() }
func (k RouteKey) String() string     { return tableString("route/", k.Table, k.Prefix) }
func (k LocalSIDKey) String() string  { return "localsid/" + k.SID.String() }
func (k PolicyKey) String() string    { return "policy/" + k.BSID.String() }
func (k SteeringKey) String() string  { return tableString("steering/", k.Table, k.Prefix) }

func tableString(kind string, table uint32, p netip.Prefix) string {
	if table == 0 {
		return kind + p.String()
	}
	return fmt.Sprintf("%stable-%d/%s", kind, table, p)
}
