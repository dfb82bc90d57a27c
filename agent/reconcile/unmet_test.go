package reconcile_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
)

// gated is a backend whose calls wait to be let through.
type gated struct {
	*fake.Backend
	dump, apply chan struct{}
}

func (g gated) Dump(ctx context.Context) (dataplane.State, error) {
	<-g.dump
	return g.Backend.Dump(ctx)
}

func (g gated) Apply(ctx context.Context, c []dataplane.Change) error {
	<-g.apply
	return g.Backend.Apply(ctx, c)
}

// TestUnmetIsNotKnownInBetween: while a dataplane is compared, or filled again
// after it started anew, nobody may take it for complete.
func TestUnmetIsNotKnownInBetween(t *testing.T) {
	be := gated{fake.New("up0"), make(chan struct{}), make(chan struct{})}
	stepped := make(chan struct{}, 100)
	rec := start(t, be, reconcile.Options{Stepped: func() { stepped <- struct{}{} }})
	t.Cleanup(func() { close(be.dump); close(be.apply) })
	_, err := rec.Unmet(0)
	require.ErrorIs(t, err, dataplane.ErrNotReady, "nothing is desired yet")

	s := dataplane.New()
	s.Interfaces["up0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	g := rec.SetDesired(s)
	be.dump <- struct{}{}
	be.apply <- struct{}{}
	<-stepped
	unmet, err := rec.Unmet(g)
	require.NoError(t, err)
	require.Empty(t, unmet)

	be.Wipe()
	rec.Trigger()
	notReady := func(when string) {
		t.Helper()
		time.Sleep(20 * time.Millisecond)
		_, err := rec.Unmet(g)
		require.ErrorIs(t, err, dataplane.ErrNotReady, when)
	}
	notReady("it is being looked at")
	be.dump <- struct{}{}
	notReady("it was found empty, and is being filled")
	boom := errors.New("boom")
	be.Inject(fake.Fault{Match: func(dataplane.Change) bool { return true }, Err: boom})
	be.apply <- struct{}{}
	<-stepped
	unmet, err = rec.Unmet(g)
	if err == nil { // else the next try is under way already
		require.ErrorIs(t, unmet[dataplane.InterfaceKey("up0")], boom)
	} else {
		require.ErrorIs(t, err, dataplane.ErrNotReady)
	}
}
