package source

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// Options are what the checks need to know.
type Options struct {
	// Block is the cluster's SID block, a /32.
	Block netip.Prefix
}

// Assemble puts the entries together. ok says that the objects people write
// (Node, Pod, IPPool) do not contradict each other; otherwise there are no
// Objects. The order of entries makes no difference.
//
// What agents write never gets in the way: a node whose agent is down goes on
// publishing what it once held, and its peers must go on without waiting for it.
// Where SRv6Nodes meet Node objects or each other, compile decides and reports;
// the problems given here together with Objects are those that it cannot see.
func Assemble(entries []Entry, o Options) (objs Objects, ok bool, problems []status.Problem) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), comparePlaces(a.place, b.place))
	})
	twice, contradictions := duplicates(entries)
	objs = newObjects()
	bySpace := make([][]held, spaces)
	var overlay []held // prefixes that pods get their addresses from
	for _, e := range entries {
		objs.add(e)
		for _, u := range e.uses {
			h := held{use: u, id: e.ID(), object: e.Name}
			if u.space.outsideBlock() && o.Block.IsValid() && u.prefix.Overlaps(o.Block) {
				contradictions = append(contradictions, problem(h.id, u.field, u.place,
					fmt.Sprintf("%s overlaps the SID block %s", publish.SIDText(u.prefix), o.Block), ""))
			}
			bySpace[u.space] = append(bySpace[u.space], h)
			if pool, isPool := e.value.(cluster.Pool); u.space == spacePodCIDR || isPool && !pool.Disabled {
				overlay = append(overlay, h)
			}
		}
	}
	for _, s := range exclusive {
		contradictions = append(contradictions, overlaps(bySpace[s])...)
	}
	contradictions = append(contradictions, covers(overlay, bySpace[spaceNodeAddress])...)
	if ok = len(contradictions) == 0; ok {
		problems = slices.Concat(twice, claimProblems(bySpace[spaceLocator], o.Block), publishedProblems(objs, bySpace))
	} else {
		objs, problems = Objects{}, slices.Concat(twice, contradictions)
	}
	SortProblems(problems)
	return objs, ok, problems
}

// duplicates are the objects that are defined more than once. Of an SRv6Node the
// last one counts: an agent has one file only, so that the others are copies.
func duplicates(sorted []Entry) (published, contradictions []status.Problem) {
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if a.Kind != b.Kind || a.Name != b.Name {
			continue
		}
		if a.Kind == v1alpha1.KindSRv6Node {
			published = append(published, problem(a.ID(), "metadata.name", a.place, "is not used: the object is defined again at "+orUnknown(b.place), "keep the one that the node's agent writes"))
			continue
		}
		contradictions = append(contradictions, problem(b.ID(), "metadata.name", b.place, "is defined a second time; the first is at "+orUnknown(a.place), "keep one of the two"))
	}
	return published, contradictions
}

func (objs *Objects) add(e Entry) {
	switch v := e.value.(type) {
	case cluster.Node:
		objs.Nodes[e.Name] = v
	case cluster.SRv6Node:
		objs.SRv6Nodes[e.Name] = v
	case cluster.Pool:
		objs.Pools[e.Name] = v
	case cluster.Pod:
		objs.Pods[e.Name] = v
	case publish.Claim:
		objs.Locators[v.Locator] = v.Node
	}
}

// held is a use with who makes it.
type held struct {
	use
	// id is the object as people say it, object its name.
	id, object string
}

// overlaps finds, for each prefix, the nearest one that holds it and has another
// owner: prefixes in order of address and length, with those that are still
// open on a stack.
func overlaps(uses []held) []status.Problem {
	slices.SortFunc(uses, func(a, b held) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()),
			comparePlaces(a.place, b.place), cmp.Compare(a.id, b.id))
	})
	var problems []status.Problem
	var open []held
	for _, u := range uses {
		for len(open) > 0 && !open[len(open)-1].prefix.Overlaps(u.prefix) {
			open = open[:len(open)-1]
		}
		for i := len(open) - 1; i >= 0; i-- {
			if open[i].owner != u.owner {
				problems = append(problems, overlap(open[i], u))
				break
			}
		}
		open = append(open, u)
	}
	return problems
}

// overlap reports a pair at the later of the two places.
func overlap(a, b held) status.Problem {
	if comparePlaces(a.place, b.place) > 0 {
		a, b = b, a
	}
	relation, remedy := "overlaps "+publish.SIDText(a.prefix)+" of", "give each address to one of the two"
	if a.prefix == b.prefix {
		relation, remedy = "also belongs to", "give it to one of the two"
	}
	return problem(b.id, b.field, b.place, fmt.Sprintf("%s %s %s, %s at %s", publish.SIDText(b.prefix), relation, a.id, a.field, orUnknown(a.place)), remedy)
}

// covers finds pod prefixes that hold an address of a node: packets between nodes
// would be taken for packets between pods, and the overlay would carry itself.
// One address of each prefix is reported.
func covers(overlay, addresses []held) []status.Problem {
	addresses = slices.Clone(addresses)
	slices.SortFunc(addresses, func(a, b held) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), comparePlaces(a.place, b.place))
	})
	var problems []status.Problem
	for _, p := range overlay {
		i, _ := slices.BinarySearchFunc(addresses, p.prefix.Masked().Addr(), func(h held, a netip.Addr) int { return h.prefix.Addr().Compare(a) })
		if i == len(addresses) || !p.prefix.Contains(addresses[i].prefix.Addr()) {
			continue
		}
		a := addresses[i]
		problems = append(problems, problem(p.id, p.field, p.place,
			fmt.Sprintf("%s contains %s, an address of %s, %s at %s", p.prefix, a.prefix.Addr(), a.id, a.field, orUnknown(a.place)),
			"give pods addresses apart from the nodes'"))
	}
	return problems
}

func problem(id, field, place, reason, remedy string) status.Problem {
	if place != "" {
		id = place + ": " + id
	}
	return status.Problem{Object: id, Field: field, Reason: reason, Remedy: remedy}
}

func orUnknown(place string) string {
	if place == "" {
		return "an unknown place"
	}
	return place
}

// SortProblems puts problems in their fixed order: by place, then by field.
func SortProblems(problems []status.Problem) {
	slices.SortStableFunc(problems, func(a, b status.Problem) int {
		return cmp.Or(comparePlaces(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
}

// comparePlaces orders "file:line…" texts with the lines as numbers.
func comparePlaces(a, b string) int {
	fileA, restA, _ := strings.Cut(a, ":")
	fileB, restB, _ := strings.Cut(b, ":")
	return cmp.Or(cmp.Compare(fileA, fileB), cmp.Compare(leadingNumber(restA), leadingNumber(restB)), cmp.Compare(restA, restB))
}

func leadingNumber(s string) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' || n > 1<<30 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}
