package fake_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/test/conformance"
)

// shared lets two backends look at one dataplane.
type shared struct{ *fake.Backend }

func (shared) Close() error { return nil }

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Harness{New: func(t *testing.T) *conformance.Bench {
		b := fake.New("uplink0", "pod1", "pod2")
		return &conformance.Bench{
			Backend: b,
			Reopen:  func(*testing.T) dataplane.Backend { return shared{b} },
			Uplink:  "uplink0",
			Gateway: netip.MustParseAddr("fd53:77::fe"),
			Pods:    []string{"pod1", "pod2"},
			MakeLink: func(_ *testing.T, name string) {
				b.AddLink(name)
			},
			Disconnect: func(*testing.T) func() {
				b.Disconnect("the test says so")
				return b.ClearFaults
			},
			// Nothing foreign can be in a map of our own.
			PlantForeign: func(*testing.T) {},
			CheckForeign: func(*testing.T) {},
		}
	}})
}

func TestFaults(t *testing.T) {
	ctx := context.Background()
	b := fake.New()
	boom := errors.New("boom")
	b.Inject(fake.Fault{Match: func(c dataplane.Change) bool { return c.Key.Kind() == dataplane.KindSetting }, Err: boom, Times: 1})
	change := []dataplane.Change{{Op: dataplane.OpAdd, Key: dataplane.SettingEncapSource, New: dataplane.Setting("fd00::1")}}

	failed, rest := dataplane.Failures(b.Apply(ctx, change))
	require.NoError(t, rest)
	require.ErrorIs(t, failed[dataplane.SettingEncapSource], boom)
	require.Empty(t, b.Text())
	require.NoError(t, b.Apply(ctx, change), "the fault was for one time")
	require.Equal(t, "setting/encap-source = fd00::1", b.Text())
	require.Equal(t, []string{"add setting/encap-source"}, b.Log())

	b.Disconnect("test")
	_, err := b.Dump(ctx)
	require.ErrorIs(t, err, dataplane.ErrDisconnected)
	_, rest = dataplane.Failures(b.Apply(ctx, change))
	require.ErrorIs(t, rest, dataplane.ErrDisconnected)
	b.ClearFaults()
	require.NoError(t, b.Apply(ctx, change))
}
