package reconcile_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
)

func start(t *testing.T, b dataplane.Backend, o reconcile.Options) *reconcile.Reconciler {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	o.Backend, o.Log = b, log
	if o.MinBackoff == 0 {
		o.MinBackoff, o.MaxBackoff = time.Millisecond, 10*time.Millisecond
	}
	if o.Resync == 0 {
		o.Resync = time.Hour
	}
	r := reconcile.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return r
}

func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func drop(p string) (dataplane.RouteKey, dataplane.Route) {
	return dataplane.RouteKey{Prefix: netip.MustParsePrefix(p)}, dataplane.Route{}
}

func state(prefixes ...string) dataplane.State {
	s := dataplane.New()
	for _, p := range prefixes {
		k, v := drop(p)
		s.Set(k, v)
	}
	return s
}

func TestNothingIsTouchedBeforeADesiredState(t *testing.T) {
	b := fake.New()
	b.Disturb(func(s dataplane.State) { k, v := drop("10.0.0.0/8"); s.Set(k, v) })
	r := start(t, b, reconcile.Options{})
	r.Trigger()
	time.Sleep(20 * time.Millisecond)
	require.Equal(t, "route/10.0.0.0/8 = drop", b.Text())
	require.False(t, r.Status().InSync)
}

func TestReachesAndPrunes(t *testing.T) {
	b := fake.New()
	b.Disturb(func(s dataplane.State) { k, v := drop("10.0.0.0/8"); s.Set(k, v) })
	r := start(t, b, reconcile.Options{})
	g := r.SetDesired(state("10.1.0.0/16"))
	require.NoError(t, r.Await(wait(t), g, nil))
	require.Equal(t, "route/10.1.0.0/16 = drop", b.Text())
	require.True(t, r.Status().InSync)
}

func TestAFailedObjectHoldsNothingBackAndIsRetried(t *testing.T) {
	b := fake.New()
	bad, _ := drop("10.1.0.0/16")
	boom := errors.New("boom")
	b.Inject(fake.Fault{Match: func(c dataplane.Change) bool { return c.Key == dataplane.Key(bad) }, Err: boom})
	r := start(t, b, reconcile.Options{})
	g := r.SetDesired(state("10.1.0.0/16", "10.2.0.0/16"))
	require.ErrorIs(t, r.Await(wait(t), g, []dataplane.Key{bad}), boom)
	require.Equal(t, "route/10.2.0.0/16 = drop", b.Text())
	st := r.Status()
	require.False(t, st.InSync)
	require.Len(t, st.Failing, 1)
	require.Equal(t, "route/10.1.0.0/16", st.Failing[0].Key)
	b.ClearFaults()
	require.Eventually(t, func() bool { return r.Status().InSync }, 5*time.Second, time.Millisecond)
	require.Equal(t, state("10.1.0.0/16", "10.2.0.0/16").Text(), b.Text())
}

func TestUnsupportedIsToldAndNotRetried(t *testing.T) {
	b := fake.New()
	tries := 0
	b.Inject(fake.Fault{Match: func(c dataplane.Change) bool {
		if c.Key == dataplane.Key(dataplane.SettingFlowHash) {
			tries++
			return true
		}
		return false
	}, Err: dataplane.ErrUnsupported})
	r := start(t, b, reconcile.Options{})
	s := state("10.1.0.0/16")
	s.Settings[dataplane.SettingFlowHash] = "dst"
	require.NoError(t, r.Await(wait(t), r.SetDesired(s), nil))
	for range 5 {
		s = s.Clone()
		k, v := drop("10.9.0.0/16")
		s.Set(k, v)
		require.NoError(t, r.Await(wait(t), r.SetDesired(s), nil))
	}
	require.Equal(t, 1, tries)
	st := r.Status()
	require.True(t, st.InSync)
	require.Len(t, st.Unsupported, 1)
	// Another value is another question.
	s = s.Clone()
	s.Settings[dataplane.SettingFlowHash] = "src"
	require.NoError(t, r.Await(wait(t), r.SetDesired(s), nil))
	require.Equal(t, 2, tries)
}

func TestWaitsForWhatIsNotReady(t *testing.T) {
	b := fake.New("uplink0")
	// A long backoff: what helps is that the link's interface object appears.
	r := start(t, b, reconcile.Options{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	s := dataplane.New()
	pod := dataplane.InterfaceKey("swpod")
	s.Interfaces[pod] = dataplane.Interface{Role: dataplane.RolePod}
	route := dataplane.RouteKey{Prefix: netip.MustParsePrefix("10.1.0.1/32")}
	s.Routes[route] = dataplane.Route{NextHops: []dataplane.NextHop{{Interface: "swpod", Weight: 1}}}
	g := r.SetDesired(s)
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	err := r.Await(short, g, []dataplane.Key{pod, route})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, dataplane.ErrNotReady, "the error says what was waited for")
	b.AddLink("swpod")
	require.NoError(t, r.Await(wait(t), g, []dataplane.Key{pod, route}))
}

// TestTriggerHurriesWhatWaits: a link that comes back is used at once, however
// long it was away.
func TestTriggerHurriesWhatWaits(t *testing.T) {
	b := fake.New()
	r := start(t, b, reconcile.Options{MinBackoff: time.Millisecond, MaxBackoff: time.Hour})
	s := dataplane.New()
	pod := dataplane.InterfaceKey("swpod")
	s.Interfaces[pod] = dataplane.Interface{Role: dataplane.RolePod}
	g := r.SetDesired(s)
	// By the 12th try in a row it waits for seconds.
	require.Eventually(t, func() bool { f := r.Status().Failing; return len(f) == 1 && f[0].Attempts >= 12 }, 20*time.Second, time.Millisecond)
	b.AddLink("swpod")
	begin := time.Now()
	r.Trigger()
	require.NoError(t, r.Await(wait(t), g, []dataplane.Key{pod}))
	require.Less(t, time.Since(begin), time.Second)
}

func TestComesBackAfterADisconnect(t *testing.T) {
	b := fake.New()
	r := start(t, b, reconcile.Options{})
	require.NoError(t, r.Await(wait(t), r.SetDesired(state("10.1.0.0/16")), nil))
	b.Disconnect("killed")
	g := r.SetDesired(state("10.2.0.0/16"))
	require.Eventually(t, func() bool { return r.Status().Error != "" }, 5*time.Second, time.Millisecond)
	require.Contains(t, r.Status().Error, "killed")
	b.Wipe()
	b.ClearFaults()
	require.NoError(t, r.Await(wait(t), g, nil))
	require.Equal(t, "route/10.2.0.0/16 = drop", b.Text())
	require.Empty(t, r.Status().Error)
}

func TestDriftIsRepaired(t *testing.T) {
	for name, trigger := range map[string]func(*reconcile.Reconciler){
		"on request":   func(r *reconcile.Reconciler) { r.Trigger() },
		"periodically": func(*reconcile.Reconciler) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := fake.New()
			r := start(t, b, reconcile.Options{Resync: 20 * time.Millisecond})
			require.NoError(t, r.Await(wait(t), r.SetDesired(state("10.1.0.0/16")), nil))
			b.Disturb(func(s dataplane.State) {
				k, _ := drop("10.1.0.0/16")
				s.Delete(k)
				k, v := drop("10.66.0.0/16")
				s.Set(k, v)
			})
			trigger(r)
			require.Eventually(t, func() bool { return b.Text() == "route/10.1.0.0/16 = drop" }, 5*time.Second, time.Millisecond)
		})
	}
}

// TestTriggerIsAnsweredAfterTheComparison: whoever awaits it may rely on drift
// being repaired.
func TestTriggerIsAnsweredAfterTheComparison(t *testing.T) {
	b := fake.New()
	r := start(t, b, reconcile.Options{})
	require.NoError(t, r.Await(wait(t), r.SetDesired(state("10.1.0.0/16")), nil))
	for range 500 {
		b.Wipe()
		r.SetDesired(state("10.1.0.0/16"))
		require.NoError(t, r.Await(wait(t), r.Trigger(), nil))
		require.Equal(t, "route/10.1.0.0/16 = drop", b.Text())
	}
}

func TestOnlyTheNewestStateCounts(t *testing.T) {
	b := fake.New()
	r := start(t, b, reconcile.Options{})
	var g uint64
	for range 200 {
		r.SetDesired(state("10.1.0.0/16", "10.3.0.0/16"))
		g = r.SetDesired(state("10.2.0.0/16"))
	}
	require.NoError(t, r.Await(wait(t), g, nil))
	require.Equal(t, "route/10.2.0.0/16 = drop", b.Text())
}
