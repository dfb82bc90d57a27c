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
	// Self is this node's name. What it published itself is its output, not
	// its input: where that meets another node's facts, this node must go on
	// to take in what it is to publish now, or two nodes that swap a prefix
	// would wait for each other for ever. Its SRv6Node is kept among the
	// objects but takes no part in the comparison with others.
	Self string
}

// Assemble puts the entries together, or says all that contradicts itself in
// them; then there are no Objects. The order of entries makes no difference.
//
// An SRv6Node without a Node is what a removed node left behind, and compile uses
// nothing of it. It takes no part in the comparison with others, or it would keep
// its addresses from the node that gets them next.
func Assemble(entries []Entry, o Options) (Objects, []status.Problem) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), comparePlaces(a.place, b.place))
	})
	var problems []status.Problem
	for i := 1; i < len(entries); i++ {
		a, b := entries[i-1], entries[i]
		if a.Kind == b.Kind && a.Name == b.Name {
			problems = append(problems, problem(b.ID(), "metadata.name", b.place, "is defined a second time; the first is at "+orUnknown(a.place), "keep one of the two"))
		}
	}

	objs := newObjects()
	for _, e := range entries {
		objs.add(e)
	}
	bySpace := make([][]held, spaces)
	for _, e := range entries {
		for _, u := range e.uses {
			problems = append(problems, checkBlock(e, u, o.Block)...)
			if e.Kind == v1alpha1.KindSRv6Node && objs.leftOut(e.Name, o.Self) {
				continue
			}
			bySpace[u.space] = append(bySpace[u.space], held{use: u, id: e.ID()})
		}
	}
	for _, s := range bySpace {
		problems = append(problems, overlaps(s)...)
	}
	if len(problems) > 0 {
		SortProblems(problems)
		return Objects{}, problems
	}
	return objs, nil
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

// leftOut: the node's published facts are not compared with others'.
func (objs *Objects) leftOut(node, self string) bool {
	if node == self {
		return true
	}
	_, known := objs.Nodes[node]
	return !known
}

func checkBlock(e Entry, u use, block netip.Prefix) []status.Problem {
	if !block.IsValid() {
		return nil
	}
	switch {
	case u.space == spaceLocator && !(block.Contains(u.prefix.Addr()) && u.prefix.Bits() >= block.Bits()):
		return []status.Problem{problem(e.ID(), u.field, u.place, fmt.Sprintf("%s is not in the SID block %s", u.prefix, block), "")}
	case u.space.outsideBlock() && u.prefix.Overlaps(block):
		return []status.Problem{problem(e.ID(), u.field, u.place, fmt.Sprintf("%s overlaps the SID block %s", text(u.prefix), block), "")}
	}
	return nil
}

type held struct {
	use
	id string
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
	relation, remedy := "overlaps "+text(a.prefix)+" of", "give each address to one of the two"
	if a.prefix == b.prefix {
		relation, remedy = "also belongs to", "give it to one of the two"
	}
	return problem(b.id, b.field, b.place, fmt.Sprintf("%s %s %s, %s at %s", text(b.prefix), relation, a.id, a.field, orUnknown(a.place)), remedy)
}

func problem(id, field, place, reason, remedy string) status.Problem {
	if place != "" {
		id = place + ": " + id
	}
	return status.Problem{Object: id, Field: field, Reason: reason, Remedy: remedy}
}

func text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
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
