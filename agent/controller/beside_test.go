package controller_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/controller"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/agent/switchover"
)

// gate notes what the controller tells it, and in which order.
type gate struct {
	mu     sync.Mutex
	events []string
	want   dataplane.Redirects
	links  switchover.Links
	active bool
}

func (g *gate) Narrow(r dataplane.Redirects) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.want.Pods {
		if _, stays := r.Pods[p]; !stays {
			g.events = append(g.events, "narrow "+p.String())
		}
	}
}

func (g *gate) Want(r dataplane.Redirects, l switchover.Links, _ uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.want, g.links = r, l
}

func (g *gate) Active() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.active
}

func (g *gate) Status() status.Dataplane {
	if g.Active() {
		return status.Dataplane{Active: switchover.ActiveVPP}
	}
	return status.Dataplane{Active: switchover.ActiveKernel, Reason: "by the test"}
}

type pair struct {
	*world
	kernel, vpp *fake.Backend
	gate        *gate
	ctl         *controller.Controller
}

// startPair starts a controller with two dataplanes in memory.
func startPair(t *testing.T, w *world) *pair {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg := config.Default()
	cfg.NodeName, cfg.Dataplane = "n1", config.DataplaneVPP
	require.NoError(t, cfg.Validate())
	p := &pair{world: w, kernel: fake.New("up0", "swp1"), vpp: fake.New("up0", "swp1"), gate: &gate{active: true}}
	reconciler := func(be *fake.Backend) *reconcile.Reconciler {
		return reconcile.New(reconcile.Options{Backend: be, Log: log, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	}
	kernel, vpp := reconciler(p.kernel), reconciler(p.vpp)
	p.ctl = controller.New(controller.Options{
		Config: cfg, Source: w, Underlay: links{w}, Log: log,
		Connect: func(context.Context, []string) (controller.Dataplane, error) {
			return controller.Dataplane{Kernel: kernel, VPP: &controller.VPP{Reconciler: vpp, Gate: p.gate}, Version: func() string { return "test" }}, nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{kernel.Run, vpp.Run, func(ctx context.Context) error { return p.ctl.Run(ctx, pods{w}) }} {
		wg.Go(func() { _ = run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

// TestBothHoldTheSame: the kernel stands ready with the same SIDs, policies,
// steering and pods.
func TestBothHoldTheSame(t *testing.T) {
	w := newWorld()
	w.change(addNode("n1", 1))
	w.change(addNode("n2", 2))
	w.change(addPod("p1", 5))
	p := startPair(t, w)
	require.Eventually(t, func() bool { return p.ctl.Ready() == nil && p.ctl.Resync(t.Context()) == nil }, 5*time.Second, time.Millisecond)
	for _, object := range []string{"steering/10.244.2.0/24", "localsid/fcbb:bb00:1:e004::/128", "interface/swp1", "route/10.244.1.5/32"} {
		require.Contains(t, p.kernel.Text(), object)
		require.Contains(t, p.vpp.Text(), object)
	}
	require.Equal(t, switchover.Links{Uplinks: []string{"up0"}, Pods: []string{"swp1"}}, p.gate.links)
	require.Contains(t, p.gate.want.Pods, netip.MustParsePrefix("10.244.1.5/32"))
	require.Contains(t, p.gate.want.Uplink, netip.MustParsePrefix("fcbb:bb00:1::/48"))
	s := p.ctl.Status()
	require.Equal(t, "vpp", s.Dataplane.Active)
	require.NotNil(t, s.Standby)
	require.True(t, s.Standby.InSync)
}

// TestPodsNeedTheKernelAlone: with VPP away, or refusing, pods come and go.
func TestPodsNeedTheKernelAlone(t *testing.T) {
	for name, break_ := range map[string]func(*pair){
		"away": func(p *pair) { p.vpp.Disconnect("gone") },
		"refuses": func(p *pair) {
			p.vpp.Inject(fake.Fault{Match: func(c dataplane.Change) bool { return c.Op != dataplane.OpDelete }, Err: errors.New("boom")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.change(addNode("n1", 1))
			p := startPair(t, w)
			require.Eventually(t, func() bool { return p.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
			break_(p)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			w.change(addPod("p1", 5))
			require.NoError(t, p.ctl.Await(ctx, "p1", true))
			require.Contains(t, p.kernel.Text(), "route/10.244.1.5/32")
			require.NoError(t, p.ctl.Ready())
			w.change(func(_ *source.Objects, e map[string]cluster.Endpoint) { delete(e, "p1") })
			require.NoError(t, p.ctl.Await(ctx, "p1", false))
			require.NotContains(t, p.kernel.Text(), "swp1")
			require.Contains(t, p.gate.events, "narrow 10.244.1.5/32", "VPP loses the traffic before it forgets the pod")
		})
	}
}
