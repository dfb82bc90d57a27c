package cniserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// The plugin must hear the reason rather than the end of its own patience:
// reading the request and a busy machine take their time as well.
func TestAnswerComesBeforeThePluginGivesUp(t *testing.T) {
	require.LessOrEqual(t, DefaultAwaitTimeout+readTimeout+DefaultAwaitTimeout/4, api.WireTimeout)
}

// hangs is a dataplane that does nothing until it is released.
func hangs(r *rig) (release func()) {
	goOn := make(chan struct{})
	r.setAwait(func(ctx context.Context, _ string, _ bool) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return func() { close(goOn) }
}

func TestHungDataplane(t *testing.T) {
	r := newRig(t)
	r.opt.AwaitTimeout = 200 * time.Millisecond
	r.start()
	release := hangs(r)
	start := time.Now()
	var e *api.Error
	require.ErrorAs(t, r.client.AddEndpoint(bg(), r.endpoint(1)), &e)
	require.Contains(t, e.Reason, "not ready with it in time")
	require.Less(t, time.Since(start), 2*r.opt.AwaitTimeout, "the release does not hold up the answer")
	require.Empty(t, r.server.Endpoints())
	require.Empty(t, r.files(suffixRecord))

	require.ErrorAs(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"), &e, "a DELETE waits for the release")
	require.Contains(t, e.Reason, "not ready with it in time")
	done := make(chan error, 1)
	go func() { done <- r.client.DeleteEndpoint(bg(), "c1", "eth0") }()
	select {
	case err := <-done:
		t.Fatalf("DELETE answered before the dataplane had let go: %v", err)
	case <-time.After(r.opt.AwaitTimeout / 4):
	}
	release()
	require.NoError(t, <-done)
	require.NoError(t, r.client.AddEndpoint(bg(), r.endpoint(1)))
}

// Waiting for another request for the endpoint is part of the same patience.
func TestRequestBehindAHungOne(t *testing.T) {
	r := newRig(t)
	r.opt.AwaitTimeout = 200 * time.Millisecond
	r.start()
	require.NoError(t, r.client.AddEndpoint(bg(), r.endpoint(1)))
	hangs(r)
	unlock, err := r.server.keys.lock(bg(), "c1/eth0")
	require.NoError(t, err)
	time.AfterFunc(r.opt.AwaitTimeout/2, unlock)
	start := time.Now()
	require.Error(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"))
	require.Less(t, time.Since(start), r.opt.AwaitTimeout*4/3)
}

// An earlier run may have removed the record before the dataplane had let go.
func TestDeleteOfUnknownWaits(t *testing.T) {
	r := newRig(t)
	r.start()
	asked := make(chan bool, 1)
	r.setAwait(func(_ context.Context, id string, present bool) error {
		asked <- id == "nobody/eth0" && !present
		return errors.New("stuck")
	})
	require.ErrorContains(t, r.client.DeleteEndpoint(bg(), "nobody", "eth0"), "stuck")
	require.True(t, <-asked)
	r.setAwait(nil)
	require.NoError(t, r.client.DeleteEndpoint(bg(), "nobody", "eth0"))
}

// The end of the agent does not wait for a release that hangs.
func TestEndWhileReleasing(t *testing.T) {
	r := newRig(t)
	r.opt.AwaitTimeout = 20 * time.Millisecond
	r.start()
	hangs(r)
	require.Error(t, r.client.AddEndpoint(bg(), r.endpoint(1)))
	start := time.Now()
	r.halt()
	require.Less(t, time.Since(start), 2*time.Second)
}
