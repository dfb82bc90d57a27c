// Package conformance is the one suite that every dataplane.Backend passes: the
// one in memory, the Linux kernel, and VPP.
package conformance

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Bench is a backend on a dataplane that holds nothing of this program yet.
type Bench struct {
	Backend dataplane.Backend
	// Reopen gives a second backend on the same dataplane, as after a restart
	// of the agent.
	Reopen func(t *testing.T) dataplane.Backend
	// Uplink is a link that exists, with Gateway on its link.
	Uplink  string
	Gateway netip.Addr
	// Pods are two or more links that exist.
	Pods []string
	// MakeLink makes one more link appear.
	MakeLink func(t *testing.T, name string)
	// PlantForeign makes objects that are not this program's, by other means,
	// among them a route with a prefix that the suite also uses where the
	// dataplane can hold both; CheckForeign fails when one is gone.
	PlantForeign func(t *testing.T)
	CheckForeign func(t *testing.T)
	// Disconnect makes the dataplane unreachable until reconnect is called;
	// what it holds may be lost. nil where that cannot happen.
	Disconnect func(t *testing.T) (reconnect func())
}

// Harness makes benches.
type Harness struct {
	// New gives a fresh bench; what it makes is removed by t.Cleanup.
	New func(t *testing.T) *Bench
	// UnsupportedSettings are the settings that this dataplane cannot hold.
	// Each must answer ErrUnsupported; everything else must be held.
	UnsupportedSettings []dataplane.SettingKey
}

// Locator is the local locator in Sample. The whole of its /32 is the suite's.
var Locator = netip.MustParsePrefix("fcbb:bb00:1::/48")

const timeout = 20 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, *suite)
	}{
		{"StartsEmpty", startsEmpty},
		{"AddThenDumpIsEqual", addThenDump},
		{"ReapplyChangesNothing", reapply},
		{"ChangeEveryKind", changeEveryKind},
		{"RoutesBetweenForwardingAndDrop", forwardAndDrop},
		{"WeightsOfNextHops", nextHopWeights},
		{"OneListToSeveralAndBack", severalLists},
		{"LocatorChange", locatorChange},
		{"RemoveEveryKind", removeEveryKind},
		{"DeleteOfAbsentSucceeds", deleteAbsent},
		{"ReopenFindsEverything", reopen},
		{"ForeignObjectsAreLeftAlone", foreign},
		{"AnyPathSameEnd", anyPath},
		{"PartialFailureIsReportedAndRetried", partialFailure},
		{"SteeringWaitsForItsPolicy", steeringWaits},
		{"PolicyInUseStays", policyInUse},
		{"CancelledContext", cancelled},
		{"CancelledOnTheWay", cancelledOnTheWay},
		{"Disconnected", disconnected},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := h.New(t)
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			t.Cleanup(cancel)
			c.f(t, &suite{Bench: b, ctx: ctx, unsupported: h.UnsupportedSettings})
		})
	}
}

type suite struct {
	*Bench
	ctx         context.Context
	unsupported []dataplane.SettingKey
}

// apply applies what turns the dump into want, and checks that exactly the
// settings fail that the dataplane cannot hold.
func (s *suite) apply(t *testing.T, want dataplane.State) {
	t.Helper()
	s.applyOrdered(t, dataplane.Diff(want, s.dump(t)))
}

func (s *suite) applyOrdered(t *testing.T, changes []dataplane.Change) {
	t.Helper()
	s.requireFailures(t, changes, s.Backend.Apply(s.ctx, changes))
}

// requireFailures checks that err has a failure for each of these keys and for
// each setting that cannot be held, and nothing else. It gives the failures.
func (s *suite) requireFailures(t *testing.T, changes []dataplane.Change, err error, keys ...dataplane.Key) map[dataplane.Key]*dataplane.KeyError {
	t.Helper()
	failed, rest := dataplane.Failures(err)
	require.NoError(t, rest)
	for _, c := range changes {
		sk, ok := c.Key.(dataplane.SettingKey)
		if ok && c.Op != dataplane.OpDelete && slices.Contains(s.unsupported, sk) {
			require.Contains(t, failed, c.Key, "a setting that cannot be held must not be taken in silence")
			require.ErrorIs(t, failed[c.Key], dataplane.ErrUnsupported)
			continue
		}
		if slices.Contains(keys, c.Key) {
			require.Contains(t, failed, c.Key)
			require.Equal(t, c.Op, failed[c.Key].Op)
			continue
		}
		if e, bad := failed[c.Key]; bad {
			require.NoError(t, e)
		}
	}
	for k, e := range failed {
		require.True(t, slices.ContainsFunc(changes, func(c dataplane.Change) bool { return c.Key == k }), "nobody asked for this: %v", e)
	}
	return failed
}

func (s *suite) dump(t *testing.T) dataplane.State {
	t.Helper()
	st, err := s.Backend.Dump(s.ctx)
	require.NoError(t, err)
	return st
}

// requireState compares the dump with want, less what is unsupported.
func (s *suite) requireState(t *testing.T, want dataplane.State) {
	t.Helper()
	w := want.Clone()
	for _, k := range s.unsupported {
		delete(w.Settings, k)
	}
	require.Equal(t, w.Text(), s.dump(t).Text())
}
