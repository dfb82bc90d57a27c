package cniserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// vanished starts again with the records of pods 1 and 2, of which 1 has lost its
// host interface, but not its namespace.
func vanished(t *testing.T, recheck time.Duration) *rig {
	t.Helper()
	r := newRig(t)
	r.opt.RecheckInterval = recheck
	r.start()
	for n := 1; n <= 2; n++ {
		require.NoError(t, r.client.AddEndpoint(bg(), r.endpoint(n)))
	}
	r.halt()
	r.sys.set(1, false, true)
	r.sys.set(2, true, true)
	r.start()
	require.Equal(t, []string{"c1/eth0", "c2/eth0"}, ids(r.server))
	problems := r.server.Problems()
	require.Len(t, problems, 1)
	require.Equal(t, "endpoint c1/eth0: hostInterface: sw1 of pod default/pod1 does not exist any more (delete the pod: its replacement gets a new interface; if the pod is gone already, remove what is left of it: ip netns delete p1)", problems[0].String())
	return r
}

func ids(s *Server) []string {
	var out []string
	for _, ep := range s.Endpoints() {
		out = append(out, ep.ID)
	}
	return out
}

// requireDropped: the record of pod 1 is gone for good, and that was told.
func requireDropped(t *testing.T, r *rig, want ...string) {
	t.Helper()
	require.Equal(t, want, ids(r.server))
	require.Len(t, r.files(suffixRecord), len(want))
	require.Empty(t, r.server.Problems())
	select {
	case <-r.server.Changed():
	default:
		t.Fatal("no change was told")
	}
}

func TestVanishedRecordGoesWithItsNamespace(t *testing.T) {
	t.Run("when the problems are asked for", func(t *testing.T) {
		r := vanished(t, time.Hour)
		r.sys.set(1, false, false)
		require.Empty(t, r.server.Problems())
		requireDropped(t, r, "c2/eth0")
	})
	t.Run("after a while", func(t *testing.T) {
		r := vanished(t, 5*time.Millisecond)
		r.sys.set(1, false, false)
		require.Eventually(t, func() bool { return len(ids(r.server)) == 1 }, 5*time.Second, time.Millisecond)
		requireDropped(t, r, "c2/eth0")
	})
	t.Run("when another pod is deleted", func(t *testing.T) {
		r := vanished(t, time.Hour)
		r.sys.set(1, false, false)
		require.NoError(t, r.client.DeleteEndpoint(bg(), "c2", "eth0"))
		require.Empty(t, ids(r.server))
		requireDropped(t, r)
	})
	t.Run("its addresses are free again", func(t *testing.T) {
		r := vanished(t, time.Hour)
		r.sys.set(1, false, false)
		require.Empty(t, r.server.Problems())
		ep := r.endpoint(3)
		ep.IPs, ep.HostInterface = r.endpoint(1).IPs, "sw1"
		require.NoError(t, r.client.AddEndpoint(bg(), ep))
	})
}

func TestVanishedRecordThatIsStillNeeded(t *testing.T) {
	r := vanished(t, time.Millisecond)
	time.Sleep(20 * time.Millisecond)
	require.Len(t, r.server.Problems(), 1, "the namespace is there")
	require.Len(t, ids(r.server), 2)
	// An interface that is there again is a pod like any other, whatever
	// becomes of the path of its namespace.
	r.sys.set(1, true, true)
	// A check that is under way with the old answer is not waited for: the next
	// one sees the interface.
	require.Eventually(t, func() bool { return len(r.server.Problems()) == 0 }, 5*time.Second, time.Millisecond)
	r.sys.set(1, false, false)
	time.Sleep(20 * time.Millisecond)
	require.Equal(t, []string{"c1/eth0", "c2/eth0"}, ids(r.server))
}

func TestVanishedRecordGoesWithItsPod(t *testing.T) {
	t.Run("deleted", func(t *testing.T) {
		r := vanished(t, time.Hour)
		require.NoError(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"))
		requireDropped(t, r, "c2/eth0")
	})
	t.Run("a new sandbox", func(t *testing.T) {
		r := vanished(t, time.Hour)
		ep := r.endpoint(3)
		require.NoError(t, r.client.AddEndpoint(bg(), ep))
		require.Len(t, r.server.Problems(), 1, "another pod is no reason")
		ep = r.endpoint(4)
		ep.Name = "pod1"
		require.NoError(t, r.client.AddEndpoint(bg(), ep))
		requireDropped(t, r, "c2/eth0", "c3/eth0", "c4/eth0")
	})
	t.Run("a second interface of the pod is not a new sandbox", func(t *testing.T) {
		r := vanished(t, time.Hour)
		ep := r.endpoint(3)
		ep.Name, ep.IfName = "pod1", "net1"
		require.NoError(t, r.client.AddEndpoint(bg(), ep))
		require.Len(t, r.server.Problems(), 1)
	})
}

// A DELETE that comes after the record was dropped still waits for the dataplane.
func TestDeleteOfDroppedRecordWaits(t *testing.T) {
	r := vanished(t, time.Hour)
	r.sys.set(1, false, false)
	r.setAwait(func(context.Context, string, bool) error { return errors.New("stuck") })
	require.ErrorContains(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"), "stuck")
	r.setAwait(nil)
	require.NoError(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"))
}

// A record that a request is working on is left to the request.
func TestRecheckWaitsForNobody(t *testing.T) {
	r := vanished(t, time.Hour)
	inside, goOn := make(chan struct{}), make(chan struct{})
	r.setAwait(func(_ context.Context, _ string, present bool) error {
		if present {
			close(inside)
			<-goOn
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- r.client.AddEndpoint(bg(), r.endpoint(1)) }() // The same again.
	<-inside
	r.sys.set(1, false, false)
	require.Len(t, r.server.Problems(), 1)
	close(goOn)
	require.NoError(t, <-done)
	require.Empty(t, r.server.Problems())
	require.Equal(t, []string{"c2/eth0"}, ids(r.server))
}

// What is dropped without a request is let go of as well.
func TestDroppedRecordsAreLetGo(t *testing.T) {
	watch := func(r *rig) chan string {
		gone := make(chan string, 4)
		r.setAwait(func(_ context.Context, id string, present bool) error {
			if !present {
				gone <- id
			}
			return nil
		})
		return gone
	}
	t.Run("vanished", func(t *testing.T) {
		r := vanished(t, time.Hour)
		gone := watch(r)
		r.sys.set(1, false, false)
		require.Empty(t, r.server.Problems())
		require.Equal(t, "c1/eth0", <-gone)
	})
	t.Run("replaced", func(t *testing.T) {
		r := vanished(t, time.Hour)
		gone := watch(r)
		ep := r.endpoint(4)
		ep.Name = "pod1"
		require.NoError(t, r.client.AddEndpoint(bg(), ep))
		require.Equal(t, "c1/eth0", <-gone)
	})
	t.Run("its address is another's", func(t *testing.T) {
		r := vanished(t, time.Hour)
		gone := watch(r)
		ep := r.endpoint(4)
		ep.IPs = r.endpoint(1).IPs
		r.sys.set(1, false, true)
		require.NoError(t, r.client.AddEndpoint(bg(), ep))
		require.Equal(t, "c1/eth0", <-gone)
	})
}

func TestRemoveNetns(t *testing.T) {
	for path, want := range map[string]string{
		"/var/run/netns/cni-1": "ip netns delete cni-1",
		"/run/netns/cni-1":     "ip netns delete cni-1",
		"/proc/12/ns/net":      "end the process whose network namespace is /proc/12/ns/net",
		"/tmp/ns":              "umount /tmp/ns && rm /tmp/ns",
	} {
		require.Equal(t, want, removeNetns(path))
	}
}
