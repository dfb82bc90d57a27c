package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/test/conformance"
)

// bent is a backend with one fault. In each function nil is what is right.
type bent struct {
	*fake.Backend
	// apply carries out one change in its own way; done is false where it
	// leaves it to the right one.
	apply func(b *fake.Backend, c dataplane.Change) (done bool, err error)
	// ended answers for the changes that are left when the context ends.
	ended func(left []dataplane.Change, err error) error
	// down answers for a dataplane that cannot be reached.
	down func(changes []dataplane.Change, err error) error
}

func (b bent) Apply(ctx context.Context, changes []dataplane.Change) error {
	var errs []error
	for i, c := range changes {
		if err := ctx.Err(); err != nil {
			if b.ended != nil {
				return errors.Join(append(errs, b.ended(changes[i:], err))...)
			}
			return errors.Join(append(errs, err)...)
		}
		if b.apply != nil {
			if done, err := b.apply(b.Backend, c); done {
				if err != nil {
					errs = append(errs, &dataplane.KeyError{Op: c.Op, Key: c.Key, Err: err})
				}
				continue
			}
		}
		err := b.Backend.Apply(context.Background(), []dataplane.Change{c})
		if errors.Is(err, dataplane.ErrDisconnected) {
			if b.down != nil {
				return b.down(changes, err)
			}
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// force changes the state whatever the rules are.
func force(b *fake.Backend, c dataplane.Change) {
	b.Disturb(func(s dataplane.State) {
		if c.Op == dataplane.OpDelete {
			s.Delete(c.Key)
			return
		}
		s.Set(c.Key, c.New)
	})
}

// eachFailed is one failure for each change.
func eachFailed(changes []dataplane.Change, err error) error {
	var errs []error
	for _, c := range changes {
		errs = append(errs, &dataplane.KeyError{Op: c.Op, Key: c.Key, Err: err})
	}
	return errors.Join(errs...)
}

func sets(c dataplane.Change, k dataplane.Kind) bool {
	return c.Op != dataplane.OpDelete && c.Key.Kind() == k
}

func deletes(c dataplane.Change, k dataplane.Kind) bool {
	return c.Op == dataplane.OpDelete && c.Key.Kind() == k
}

// faults are what backends get wrong, and the case of the suite that finds it.
func faults() map[string]struct {
	finds       string
	unsupported []dataplane.SettingKey
	bent        bent
} {
	type fault = struct {
		finds       string
		unsupported []dataplane.SettingKey
		bent        bent
	}
	noHash := []dataplane.SettingKey{dataplane.SettingFlowHash}
	refuse := func(k dataplane.SettingKey, err error) bent {
		return bent{apply: func(_ *fake.Backend, c dataplane.Change) (bool, error) {
			return c.Key == dataplane.Key(k) && c.Op != dataplane.OpDelete, err
		}}
	}
	return map[string]fault{
		"swallows a setting that it cannot hold":     {"AddThenDumpIsEqual", noHash, refuse(dataplane.SettingFlowHash, nil)},
		"holds a setting that it is said not to":     {"AddThenDumpIsEqual", noHash, bent{}},
		"refuses a setting that it should hold":      {"AddThenDumpIsEqual", nil, refuse(dataplane.SettingFlowHash, dataplane.ErrUnsupported)},
		"refuses a setting with an error of its own": {"AddThenDumpIsEqual", noHash, refuse(dataplane.SettingFlowHash, errors.New("no"))},
		"refuses settings during a partial failure": {"PartialFailureIsReportedAndRetried", nil,
			refuse(dataplane.SettingFlowHash, dataplane.ErrUnsupported)},
		"refuses an address as unsupported during a partial failure": {"PartialFailureIsReportedAndRetried", nil, bent{
			apply: func(_ *fake.Backend, c dataplane.Change) (bool, error) {
				return sets(c, dataplane.KindAddress), dataplane.ErrUnsupported
			}}},
		"removes the steering with its policy": {"PolicyInUseStays", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				if !deletes(c, dataplane.KindPolicy) {
					return false, nil
				}
				b.Disturb(func(s dataplane.State) {
					for k, v := range s.Steerings {
						if v.BSID == c.Key.(dataplane.PolicyKey).BSID {
							delete(s.Steerings, k)
						}
					}
				})
				return false, nil
			}}},
		"keeps a policy in use without a word": {"PolicyInUseStays", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				return deletes(c, dataplane.KindPolicy) && b.Apply(context.Background(), []dataplane.Change{c}) != nil, nil
			}}},
		"keeps a policy in use with another error": {"PolicyInUseStays", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				err := b.Apply(context.Background(), []dataplane.Change{c})
				if err != nil && deletes(c, dataplane.KindPolicy) {
					err = errors.New(err.Error())
				}
				return true, err
			}}},
		"steers into nothing": {"SteeringWaitsForItsPolicy", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				if sets(c, dataplane.KindSteering) {
					force(b, c)
					return true, nil
				}
				return false, nil
			}}},
		"steers into nothing on an update": {"SteeringWaitsForItsPolicy", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				if sets(c, dataplane.KindSteering) && c.Op == dataplane.OpUpdate {
					force(b, c)
					return true, nil
				}
				return false, nil
			}}},
		"removes a steering that cannot move": {"SteeringWaitsForItsPolicy", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				if sets(c, dataplane.KindSteering) {
					force(b, dataplane.Change{Op: dataplane.OpDelete, Key: c.Key})
				}
				return false, nil
			}}},
		"forgets that a route drops": {"RoutesBetweenForwardingAndDrop", nil, bent{
			apply: func(_ *fake.Backend, c dataplane.Change) (bool, error) {
				return sets(c, dataplane.KindRoute) && c.Op == dataplane.OpUpdate && len(c.New.(dataplane.Route).NextHops) == 0, nil
			}}},
		"ignores the weights of next hops": {"WeightsOfNextHops", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				if !sets(c, dataplane.KindRoute) {
					return false, nil
				}
				r := dataplane.Route{NextHops: slices.Clone(c.New.(dataplane.Route).NextHops)}
				for i := range r.NextHops {
					r.NextHops[i].Weight = 1
				}
				c.New = r
				return true, b.Apply(context.Background(), []dataplane.Change{c})
			}}},
		"only adds segment lists": {"OneListToSeveralAndBack", nil, bent{
			apply: func(_ *fake.Backend, c dataplane.Change) (bool, error) {
				return sets(c, dataplane.KindPolicy) && c.Op == dataplane.OpUpdate &&
					len(c.New.(dataplane.Policy).SegmentLists) < len(c.Old.(dataplane.Policy).SegmentLists), nil
			}}},
		"keeps local SIDs of an earlier locator": {"LocatorChange", nil, bent{
			apply: func(_ *fake.Backend, c dataplane.Change) (bool, error) {
				return deletes(c, dataplane.KindLocalSID), nil
			}}},
		"removes all neighbours with the first": {"RemoveEveryKind", nil, bent{
			apply: func(b *fake.Backend, c dataplane.Change) (bool, error) {
				if deletes(c, dataplane.KindNeighbour) {
					b.Disturb(func(s dataplane.State) { clear(s.Neighbours) })
				}
				return false, nil
			}}},
		"fails to remove what is absent": {"DeleteOfAbsentSucceeds", nil, bent{
			apply: func(_ *fake.Backend, c dataplane.Change) (bool, error) {
				return c.Op == dataplane.OpDelete, errors.New("no such object")
			}}},
		"blames each change for the end of the context": {"CancelledContext", nil, bent{ended: eachFailed}},
		"blames each that is left when cut short":       {"CancelledOnTheWay", nil, bent{ended: eachFailed}},
		"says nothing when cut short": {"CancelledOnTheWay", nil, bent{
			ended: func([]dataplane.Change, error) error { return nil }}},
		"blames each change for the lost connection": {"Disconnected", nil, bent{down: eachFailed}},
		"hides what kind of failure the lost connection is": {"Disconnected", nil, bent{
			down: func(_ []dataplane.Change, err error) error { return errors.New(err.Error()) }}},
	}
}

// chosen names the fault in a process of its own.
const chosen = "SIDEWINDER_TEST_FAULT"

// TestFaultIsFound: the suite fails where it should for each fault, in a process
// of its own, and passes without one.
func TestFaultIsFound(t *testing.T) {
	run := func(fault, suiteCase string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBentBackend$/^"+suiteCase+"$", "-test.v")
		cmd.Env = append(os.Environ(), chosen+"="+fault)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			out, err := run(name, f.finds)
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passes:\n%s", out)
			require.Contains(t, out, "--- FAIL: TestBentBackend/"+f.finds)
			require.NotContains(t, out, "panic:")
		})
	}
	out, err := run("none", ".*")
	require.NoError(t, err, out)
	require.Contains(t, out, "--- PASS: TestBentBackend/Disconnected")
}

// TestBentBackend is the other process.
func TestBentBackend(t *testing.T) {
	name := os.Getenv(chosen)
	if name == "" {
		t.Skip("run by TestFaultIsFound")
	}
	f, ok := faults()[name]
	require.True(t, ok || name == "none", "no such fault: %q", name)
	conformance.Run(t, conformance.Harness{
		UnsupportedSettings: f.unsupported,
		New: func(*testing.T) *conformance.Bench {
			b := f.bent
			b.Backend = fake.New("uplink0", "pod1", "pod2")
			return &conformance.Bench{
				Backend: b,
				Reopen:  func(*testing.T) dataplane.Backend { return b },
				Uplink:  "uplink0",
				Gateway: netip.MustParseAddr("fd53:77::fe"),
				Pods:    []string{"pod1", "pod2"},
				MakeLink: func(_ *testing.T, name string) {
					b.AddLink(name)
				},
				PlantForeign: func(*testing.T) {},
				CheckForeign: func(*testing.T) {},
				Disconnect: func(*testing.T) func() {
					b.Disconnect(fmt.Sprintf("fault %q", name))
					return b.ClearFaults
				},
			}
		},
	})
}
