package source

import (
	"net/netip"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
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

// space is a set of addresses in which no two owners may meet.
type space int

const (
	spaceNodeAddress space = iota
	spacePodCIDR
	spacePrefix
	spaceLocator
	spacePool
	spacePodIP
	spaces
)

// outsideBlock: the space holds pods' addresses, which must not be SIDs.
func (s space) outsideBlock() bool {
	return s == spacePodCIDR || s == spacePrefix || s == spacePool || s == spacePodIP
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
	if e.Kind != v1alpha1.KindSRv6Node {
		return publish.Claim{}, false
	}
	for _, u := range e.uses {
		if u.space == spaceLocator {
			return publish.Claim{Locator: u.prefix, Node: e.Name}, true
		}
	}
	return publish.Claim{}, false
}

// Place is where the object stands, like "nodes.yaml:3".
func (e Entry) Place() string { return e.place }

// File is the file part of Place.
func (e Entry) File() string {
	file, _, _ := strings.Cut(e.place, ":")
	return file
}
