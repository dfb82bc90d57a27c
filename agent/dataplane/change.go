package dataplane

import (
	"slices"
	"strings"
)

// Op is what a Change does.
type Op uint8

// The operations.
const (
	OpAdd Op = iota + 1
	OpUpdate
	OpDelete
)

func (o Op) String() string {
	switch o {
	case OpAdd:
		return "add"
	case OpUpdate:
		return "update"
	case OpDelete:
		return "delete"
	}
	return "op?"
}

// Change is one step from the state a dataplane holds to the one that is wanted.
type Change struct {
	Op  Op
	Key Key
	// New is the wanted value; nil for OpDelete.
	New Value
	// Old is the value held now, as far as known; nil for OpAdd. A backend may
	// use it to find what to replace, and must cope when it is out of date.
	Old Value
}

// Diff lists the changes that turn have into want, in the order in which they
// are to be applied: first additions and updates in the order of kinds, then
// deletions in the opposite order, so that whatever carries traffic is made
// before it is referred to and broken only after nothing refers to it any more.
// Within a kind the order is that of the keys' text, so that equal inputs give
// equal output.
func Diff(want, have State) []Change {
	var out []Change
	for k, v := range want.All() {
		old, ok := have.Get(k)
		switch {
		case !ok:
			out = append(out, Change{Op: OpAdd, Key: k, New: v})
		case !v.Equal(old):
			out = append(out, Change{Op: OpUpdate, Key: k, New: v, Old: old})
		}
	}
	for k, v := range have.All() {
		if _, ok := want.Get(k); !ok {
			out = append(out, Change{Op: OpDelete, Key: k, Old: v})
		}
	}
	Order(out)
	return out
}

// Order sorts changes as Diff documents it.
func Order(changes []Change) {
	type ranked struct {
		Change
		text string
	}
	rs := make([]ranked, len(changes))
	for i, c := range changes {
		rs[i] = ranked{c, c.Key.String()}
	}
	slices.SortStableFunc(rs, func(a, b ranked) int {
		if c := phase(a.Change) - phase(b.Change); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text)
	})
	for i := range rs {
		changes[i] = rs[i].Change
	}
}

// phase numbers the steps: 1 to 8 for additions by kind, then 101 to 108 for
// deletions by kind in the opposite order.
func phase(c Change) int {
	if c.Op == OpDelete {
		return 100 + int(KindSteering) - int(c.Key.Kind()) + 1
	}
	return int(c.Key.Kind())
}
