package source

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/status"
)

// claimProblems are claims of another block, which nobody here can use. They
// stay behind when the cluster's block is changed.
func claimProblems(claims []held, block netip.Prefix) []status.Problem {
	var problems []status.Problem
	for _, c := range claims {
		if block.IsValid() && !block.Contains(c.prefix.Addr()) {
			problems = append(problems, problem(c.id, c.field, c.place, fmt.Sprintf("%s is not in the SID block %s", c.prefix, block),
				"give all nodes the same block; if it was changed, remove the object"))
		}
	}
	return problems
}

// publishedProblems are what SRv6Nodes have wrong that compile cannot see. Those
// of nodes that are gone have no part in it: nothing of them is used.
func publishedProblems(objs Objects, bySpace [][]held) []status.Problem {
	known := func(h held) bool { _, ok := objs.Nodes[h.object]; return ok }
	claims := make(map[netip.Prefix]held, len(bySpace[spaceLocator]))
	for _, c := range bySpace[spaceLocator] {
		claims[c.prefix] = c
	}
	var problems []status.Problem
	for _, l := range bySpace[spacePublishedLocator] {
		c, claimed := claims[l.prefix]
		// Where the holder publishes it as well, compile sees it.
		if claimed && c.owner != l.owner && known(l) && objs.SRv6Nodes[c.owner].Locator != l.prefix {
			problems = append(problems, problem(l.id, l.field, l.place,
				fmt.Sprintf("%s is held by node %s, %s at %s", l.prefix, c.owner, c.id, orUnknown(c.place)),
				"start the agent of node "+l.object+", which claims another, or remove its SRv6Node"))
		}
	}
	// An address that a Node object names is that node's: compile sees it.
	named := make(map[netip.Prefix]bool, len(bySpace[spaceNodeAddress]))
	for _, a := range bySpace[spaceNodeAddress] {
		named[a.prefix] = true
	}
	sources := slices.DeleteFunc(slices.Clone(bySpace[spaceEncapSource]), func(h held) bool { return !known(h) || named[h.prefix] })
	return append(problems, overlaps(sources)...)
}
