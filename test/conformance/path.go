package conformance

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// anyPath walks at random through subsets and ends in one state, by several
// ways: the end must be the same.
func anyPath(t *testing.T, s *suite) {
	final := s.Sample()
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		for range 3 {
			s.apply(t, closed(subset(final, rnd)))
		}
		s.apply(t, final)
		s.requireState(t, final)
	}
}

// subset takes about half of the objects.
func subset(full dataplane.State, rnd *rand.Rand) dataplane.State {
	out := full.Clone()
	keys := slices.Collect(maps.Keys(maps.Collect(full.All())))
	sortKeys(keys)
	for _, k := range keys {
		if rnd.IntN(2) == 0 {
			out.Delete(k)
		}
	}
	return out
}

// closed removes whatever refers to something that is not there.
func closed(s dataplane.State) dataplane.State {
	for k, v := range s.Steerings {
		if _, ok := s.Policies[dataplane.PolicyKey{BSID: v.BSID}]; !ok {
			delete(s.Steerings, k)
		}
	}
	has := func(name string) bool {
		_, ok := s.Interfaces[dataplane.InterfaceKey(name)]
		return ok
	}
	for k := range s.Neighbours {
		if !has(k.Interface) {
			delete(s.Neighbours, k)
		}
	}
	for k, v := range s.Routes {
		for _, nh := range v.NextHops {
			if !has(nh.Interface) {
				delete(s.Routes, k)
			}
		}
	}
	return s
}

// sortKeys puts keys into one order, so that a test does the same each time.
func sortKeys(keys []dataplane.Key) {
	slices.SortFunc(keys, func(a, b dataplane.Key) int { return strings.Compare(a.String(), b.String()) })
}
