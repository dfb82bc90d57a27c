package source

import (
	"net/netip"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/publish"
)

// Kinds of the objects that are not this project's own.
const (
	KindNode   = "Node"
	KindPod    = "Pod"
	KindIPPool = "IPPool"
)

// Entry is one valid object with where it came from, ready to be put together
// with the others by Assemble.
type Entry struct {
	Kind string
	// Name is the object's name; namespace/name for a pod.
	Name string
	// value is a cluster.Node, cluster.SRv6Node, cluster.Pool, cluster.Pod or
	// publish.Claim.
	value any
	// place is where the object's name stands, like "nodes.yaml:3".
	place string
	uses  []use
}

// use is an address or prefix that an object lays claim to.
type use struct {
	space  space
	owner  string
	field  string
	prefix netip.Prefix
	place  string
}

// space is a set of addresses that are used in one way.
type space int

const (
	spaceNodeAddress space = iota
	spacePodCIDR
	spacePool
	spacePodIP
	// spaceLocator holds the claims on locators.
	spaceLocator
	// What nodes published of themselves.
	spacePublishedLocator
	spaceEncapSource
	spaces
)

// exclusive are the spaces in which no two owners may meet.
var exclusive = [...]space{spaceNodeAddress, spacePodCIDR, spacePool, spacePodIP}

// outsideBlock: the space holds pods' addresses, which must not be SIDs.
func (s space) outsideBlock() bool {
	return s == spacePodCIDR || s == spacePool || s == spacePodIP
}

func (e *Entry) use(s space, owner, field string, p netip.Prefix) {
	e.uses = append(e.uses, use{space: s, owner: owner, field: field, prefix: p})
}

// ID is the object as people say it: Node/n1.
func (e Entry) ID() string { return e.Kind + "/" + e.Name }

// SetPlaces records where the object's fields stand, for messages. at gives the
// place of a field path, like "nodes.yaml:3".
func (e *Entry) SetPlaces(at func(field string) string) {
	e.place = at("metadata.name")
	for i := range e.uses {
		e.uses[i].place = at(e.uses[i].field)
	}
}

// Claim is the claim that an SRv6Locator makes.
func (e Entry) Claim() (publish.Claim, bool) {
	c, ok := e.value.(publish.Claim)
	return c, ok
}

// Published is the locator that an SRv6Node publishes.
func (e Entry) Published() (publish.Claim, bool) {
	n, ok := e.value.(cluster.SRv6Node)
	return publish.Claim{Locator: n.Locator, Node: n.Name}, ok
}

// Place is where the object stands, like "nodes.yaml:3".
func (e Entry) Place() string { return e.place }

// File is the file part of Place.
func (e Entry) File() string {
	file, _, _ := strings.Cut(e.place, ":")
	return file
}
