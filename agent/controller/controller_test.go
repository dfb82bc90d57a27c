package controller_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
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
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/agent/underlay"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

var block = netip.MustParsePrefix("fcbb:bb00::/32")

// world is every input of a controller, in memory.
type world struct {
	mu        sync.Mutex
	objs      source.Objects
	synced    bool
	claims    []publish.Claim
	published map[string]cluster.SRv6Node
	endpoints map[string]cluster.Endpoint
	changed   chan struct{}
	podsMoved chan struct{}
	linksSeen chan struct{}
	noUplink  error
	resolved  int // calls of Resolve
}

func newWorld() *world {
	return &world{
		objs: source.Objects{
			Nodes: map[string]cluster.Node{}, SRv6Nodes: map[string]cluster.SRv6Node{},
			Locators: map[netip.Prefix]string{}, Pools: map[string]cluster.Pool{}, Pods: map[string]cluster.Pod{},
		},
		synced: true, published: map[string]cluster.SRv6Node{}, endpoints: map[string]cluster.Endpoint{},
		changed: make(chan struct{}, 1), podsMoved: make(chan struct{}, 1), linksSeen: make(chan struct{}, 1),
	}
}

// change edits copies, as a source does, and signals.
func (w *world) change(f func(o *source.Objects, e map[string]cluster.Endpoint)) {
	w.mu.Lock()
	w.objs.Nodes, w.objs.SRv6Nodes = maps.Clone(w.objs.Nodes), maps.Clone(w.objs.SRv6Nodes)
	w.objs.Pools, w.objs.Pods = maps.Clone(w.objs.Pools), maps.Clone(w.objs.Pods)
	w.endpoints = maps.Clone(w.endpoints)
	f(&w.objs, w.endpoints)
	w.mu.Unlock()
	for _, c := range []chan struct{}{w.changed, w.podsMoved} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (w *world) Run(context.Context) error { return nil }
func (w *world) Objects() (source.Objects, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objs, w.synced
}
func (w *world) Changed() <-chan struct{} { return w.changed }
func (w *world) Errors() []status.Problem { return nil }
func (w *world) Inventory(context.Context) (publish.Inventory, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return publish.Inventory{Claims: slices.Clone(w.claims)}, nil
}
func (w *world) CreateClaim(_ context.Context, c publish.Claim) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.claims {
		if o.Locator == c.Locator {
			return publish.ErrTaken
		}
	}
	w.claims = append(w.claims, c)
	w.objs.Locators = maps.Clone(w.objs.Locators)
	w.objs.Locators[c.Locator] = c.Node
	return nil
}
func (w *world) ReleaseClaim(_ context.Context, c publish.Claim) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claims = slices.DeleteFunc(w.claims, func(o publish.Claim) bool { return o == c })
	w.objs.Locators = maps.Clone(w.objs.Locators)
	delete(w.objs.Locators, c.Locator)
	return nil
}
func (w *world) PublishNode(_ context.Context, n cluster.SRv6Node, _ v1alpha1.SRv6NodeStatus) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published[n.Name] = n
	return nil
}
func (w *world) UnpublishNode(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.published, name)
	return nil
}
func (w *world) publishedNode(name string) (cluster.SRv6Node, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.published[name]
	return n, ok
}

// pods is the world's side that is the CNI server in real life.
type pods struct{ *world }

func (p pods) Endpoints() []cluster.Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.endpoints))
}
func (p pods) Changed() <-chan struct{}   { return p.podsMoved }
func (p pods) Problems() []status.Problem { return nil }

// links routes every target over one uplink.
type links struct{ *world }

func (l links) Changed() <-chan struct{} { return l.linksSeen }
func (l links) Settle() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return []string{"up0"}, l.noUplink
}
func (l links) Resolve(targets []underlay.Target) (cluster.Underlay, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resolved++
	if l.noUplink != nil {
		return cluster.Underlay{}, l.noUplink
	}
	u := cluster.Underlay{
		Uplinks: map[string]cluster.Uplink{"up0": {Name: "up0", MTU: 1500}},
		Routes:  map[netip.Prefix]cluster.UnderlayRoute{},
	}
	for _, t := range targets {
		u.Routes[t.Locator] = cluster.UnderlayRoute{NextHops: []dataplane.NextHop{{Interface: "up0", Gateway: t.Address, Weight: 1}}}
	}
	return u, nil
}

type running struct {
	*world
	be  *fake.Backend
	rec *reconcile.Reconciler
	ctl *controller.Controller
}

func start(t *testing.T, w *world, be *fake.Backend, grace time.Duration) *running {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg := config.Default()
	cfg.NodeName, cfg.ReleaseGrace = "n1", grace
	require.NoError(t, cfg.Validate())
	rec := reconcile.New(reconcile.Options{Backend: be, Log: log, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	ctl := controller.New(controller.Options{
		Config: cfg, Source: w, Underlay: links{w}, Log: log,
		Connect: func(context.Context, []string) (controller.Dataplane, error) {
			return controller.Dataplane{Kernel: rec, Version: func() string { return "test" }}, nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); _ = rec.Run(ctx) }()
	go func() { defer wg.Done(); _ = ctl.Run(ctx, pods{w}) }()
	t.Cleanup(func() { cancel(); wg.Wait() })
	return &running{w, be, rec, ctl}
}

func addNode(name string, id uint16) func(*source.Objects, map[string]cluster.Endpoint) {
	return func(o *source.Objects, _ map[string]cluster.Endpoint) {
		l := v1alpha1.Locator(block, id)
		addr := netip.MustParseAddr(fmt.Sprintf("fd53::%x", id))
		cidr := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", id))}
		o.Nodes[name] = cluster.Node{Name: name, Addresses: []netip.Addr{addr}, PodCIDRs: cidr}
		if name != "n1" {
			o.SRv6Nodes[name] = cluster.SRv6Node{Name: name, EncapSource: addr, Locator: l, SIDs: publish.SIDs(l), Prefixes: cidr}
		}
	}
}

func addPod(id string, last byte) func(*source.Objects, map[string]cluster.Endpoint) {
	return func(_ *source.Objects, e map[string]cluster.Endpoint) {
		e[id] = cluster.Endpoint{
			ID: id, Name: id, HostInterface: "sw" + id, MTU: 1460, WholeChecksums: true, PodMAC: dataplane.MAC{2, last},
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, last})},
		}
	}
}

// TestPathIndependence: the same events in every order, one by one or all at
// once, some of them twice, come to the same dataplane.
func TestPathIndependence(t *testing.T) {
	type event = func(*source.Objects, map[string]cluster.Endpoint)
	events := []event{
		addNode("n2", 2),
		addNode("n3", 3),
		func(o *source.Objects, _ map[string]cluster.Endpoint) { delete(o.Nodes, "n4") },
		addPod("p1", 5),
		func(_ *source.Objects, e map[string]cluster.Endpoint) { delete(e, "p0") },
	}
	run := func(t *testing.T, order []int, mode string) string {
		be := fake.New("up0", "swp0", "swp1")
		w := newWorld()
		w.change(addNode("n1", 1))
		w.change(addNode("n4", 4))
		w.change(addPod("p0", 4))
		r := start(t, w, be, time.Hour)
		switch mode {
		case "squashed":
			w.change(func(o *source.Objects, e map[string]cluster.Endpoint) {
				for _, i := range order {
					events[i](o, e)
				}
			})
		default:
			for _, i := range order {
				w.change(events[i])
				if mode == "repeated" {
					w.change(events[order[0]])
				}
				if mode == "settled" {
					require.Eventually(t, func() bool { return r.ctl.Resync(t.Context()) == nil }, 5*time.Second, time.Millisecond)
				}
			}
		}
		require.Eventually(t, func() bool {
			return r.ctl.Ready() == nil && r.ctl.Resync(t.Context()) == nil && r.rec.Status().InSync
		}, 5*time.Second, time.Millisecond)
		return be.Text()
	}
	want := run(t, []int{0, 1, 2, 3, 4}, "settled")
	require.Contains(t, want, "steering/10.244.2.0/24")
	require.Contains(t, want, "interface/swp1")
	require.NotContains(t, want, "swp0")
	require.NotContains(t, want, "10.244.4.0")
	for i, order := range permutations(len(events)) {
		mode := []string{"one by one", "squashed", "repeated", "settled"}[i%4]
		t.Run(fmt.Sprint(order, " ", mode), func(t *testing.T) {
			require.Equal(t, want, run(t, order, mode))
		})
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

func TestNothingHappensBeforeTheSourceIsRead(t *testing.T) {
	w := newWorld()
	w.synced = false
	be := fake.New("up0")
	be.Disturb(func(s dataplane.State) {
		s.Routes[dataplane.RouteKey{Prefix: netip.MustParsePrefix("10.0.0.0/8")}] = dataplane.Route{}
	})
	r := start(t, w, be, time.Hour)
	time.Sleep(30 * time.Millisecond)
	require.ErrorContains(t, r.ctl.Ready(), "has not been read yet")
	require.Equal(t, "route/10.0.0.0/8 = drop", be.Text())
}

func TestReasonsForNotBeingReady(t *testing.T) {
	w := newWorld()
	r := start(t, w, fake.New("up0"), time.Hour)
	why := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool { err := r.ctl.Ready(); return err != nil && err.Error() == text }, 5*time.Second, time.Millisecond, "want: %s", text)
	}
	why("Node/n1 does not exist; make it, or set nodeName to an existing node's name")
	w.change(func(o *source.Objects, _ map[string]cluster.Endpoint) {
		o.Nodes["n1"] = cluster.Node{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")}}
	})
	why("Node/n1: status.addresses: has no IPv6 InternalIP; add one, or set encapSource in the configuration")
	w.change(addNode("n1", 1))
	require.Eventually(t, func() bool { return r.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
	cfg, err := r.ctl.NodeConfig()
	require.NoError(t, err)
	require.Equal(t, 1460, cfg.MTU)
	require.Eventually(t, func() bool { n, ok := w.publishedNode("n1"); return ok && n.Locator == v1alpha1.Locator(block, 1) }, 5*time.Second, time.Millisecond)
	r.be.Disconnect("gone")
	r.rec.Trigger()
	require.Eventually(t, func() bool { return r.ctl.Ready() != nil }, 5*time.Second, time.Millisecond)
	require.ErrorContains(t, r.ctl.Ready(), "gone")
}

// TestFactsAreTrueWhenPublished: peers hear of SIDs only when the dataplane has
// them.
func TestFactsAreTrueWhenPublished(t *testing.T) {
	w := newWorld()
	w.change(addNode("n1", 1))
	be := fake.New("up0")
	be.Inject(fake.Fault{Match: func(c dataplane.Change) bool { return c.Key.Kind() == dataplane.KindLocalSID }, Err: dataplane.ErrNotReady})
	start(t, w, be, time.Hour)
	time.Sleep(50 * time.Millisecond)
	_, ok := w.publishedNode("n1")
	require.False(t, ok)
	be.ClearFaults()
	require.Eventually(t, func() bool { _, ok := w.publishedNode("n1"); return ok }, 5*time.Second, time.Millisecond)
}

func TestAwait(t *testing.T) {
	w := newWorld()
	w.change(addNode("n1", 1))
	be := fake.New("up0", "swp1")
	r := start(t, w, be, time.Hour)
	require.Eventually(t, func() bool { return r.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	w.change(addPod("p1", 5))
	require.NoError(t, r.ctl.Await(ctx, "p1", true))
	require.Contains(t, be.Text(), "route/10.244.1.5/32 = dev swp1")
	w.change(func(_ *source.Objects, e map[string]cluster.Endpoint) { delete(e, "p1") })
	require.NoError(t, r.ctl.Await(ctx, "p1", false))
	require.NotContains(t, be.Text(), "swp1")
	require.Error(t, r.ctl.Await(ctx, "p1", true), "it is not recorded")
}

// TestGoneInputsRemoveNothing: when this node's own Node object, or the uplink,
// is away, what is there stays, and pods can still be removed.
func TestGoneInputsRemoveNothing(t *testing.T) {
	for name, take := range map[string]func(*world){
		"node object": func(w *world) {
			w.change(func(o *source.Objects, _ map[string]cluster.Endpoint) { delete(o.Nodes, "n1"); delete(o.Nodes, "n2") })
		},
		"uplink": func(w *world) {
			w.mu.Lock()
			w.noUplink = underlay.ErrNoUplink
			w.mu.Unlock()
			w.change(func(*source.Objects, map[string]cluster.Endpoint) {})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.change(addNode("n1", 1))
			w.change(addNode("n2", 2))
			w.change(addPod("p1", 5))
			w.change(addPod("p2", 6))
			be := fake.New("up0", "swp1", "swp2")
			r := start(t, w, be, time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			require.Eventually(t, func() bool { return r.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
			require.NoError(t, r.ctl.Await(ctx, "p2", true))
			take(w)
			require.Eventually(t, func() bool { return r.ctl.Ready() != nil }, 5*time.Second, time.Millisecond)
			w.change(func(_ *source.Objects, e map[string]cluster.Endpoint) { delete(e, "p1") })
			require.NoError(t, r.ctl.Await(ctx, "p1", false))
			_ = r.ctl.Resync(ctx)
			require.NotContains(t, be.Text(), "swp1")
			require.Contains(t, be.Text(), "interface/swp2")
			require.Contains(t, be.Text(), "steering/10.244.2.0/24")
			require.Contains(t, be.Text(), "route/fcbb:bb00:2::/48")
		})
	}
}

// withPod starts a controller whose node has pod p1 wired. The context ends after
// a few seconds.
func withPod(t *testing.T) (*running, context.Context) {
	t.Helper()
	w := newWorld()
	w.change(addNode("n1", 1))
	w.change(addPod("p1", 5))
	r := start(t, w, fake.New("up0", "swp1"), time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	require.Eventually(t, func() bool { return r.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
	require.NoError(t, r.ctl.Await(ctx, "p1", true))
	return r, ctx
}

// TestRemovalThatFailsIsTold: also when the removal was noticed, and tried,
// before anyone waited for it.
func TestRemovalThatFailsIsTold(t *testing.T) {
	r, ctx := withPod(t)
	w, be := r.world, r.be
	boom := errors.New("boom")
	be.Inject(fake.Fault{Match: func(c dataplane.Change) bool { return c.Op == dataplane.OpDelete }, Err: boom})
	w.change(func(_ *source.Objects, e map[string]cluster.Endpoint) { delete(e, "p1") })
	require.Eventually(t, func() bool { return len(r.rec.Status().Failing) > 0 }, 5*time.Second, time.Millisecond)
	require.ErrorIs(t, r.ctl.Await(ctx, "p1", false), boom)
	be.ClearFaults()
	require.Eventually(t, func() bool { return r.ctl.Await(ctx, "p1", false) == nil }, 5*time.Second, time.Millisecond)
	require.NotContains(t, be.Text(), "swp1")
}

// TestRemovalWhileTheDataplaneIsAway: a node whose VPP does not come back can be
// drained.
func TestRemovalWhileTheDataplaneIsAway(t *testing.T) {
	r, ctx := withPod(t)
	w, be := r.world, r.be
	be.Disconnect("dead")
	r.rec.Trigger()
	w.change(func(_ *source.Objects, e map[string]cluster.Endpoint) { delete(e, "p1") })
	require.NoError(t, r.ctl.Await(ctx, "p1", false))
	require.Contains(t, be.Text(), "swp1")
	be.ClearFaults()
	require.Eventually(t, func() bool { return !strings.Contains(be.Text(), "swp1") }, 5*time.Second, time.Millisecond)
}

// TestRestIsRest: without events nothing is computed again.
func TestRestIsRest(t *testing.T) {
	w := newWorld()
	w.change(addNode("n1", 1))
	r := start(t, w, fake.New("up0"), time.Hour)
	require.Eventually(t, func() bool { return r.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
	time.Sleep(100 * time.Millisecond) // what the start still causes
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.resolved
	}
	before := count()
	time.Sleep(2500 * time.Millisecond)
	require.Equal(t, before, count())
}

// TestWaitingForTheUplinkIsTold: there is a status before there is a dataplane.
func TestWaitingForTheUplinkIsTold(t *testing.T) {
	w := newWorld()
	w.noUplink = underlay.ErrNoUplink
	w.change(addNode("n1", 1))
	r := start(t, w, fake.New("up0"), time.Hour)
	require.Eventually(t, func() bool { return strings.Contains(r.ctl.Status().Reason, "waiting for the uplink") }, 5*time.Second, time.Millisecond)
	require.NoError(t, r.ctl.Await(t.Context(), "unknown", false), "what is not there can go")
	require.Error(t, r.ctl.Await(t.Context(), "unknown", true))
	w.mu.Lock()
	w.noUplink = nil
	w.mu.Unlock()
	require.Eventually(t, func() bool { return r.ctl.Ready() == nil }, 5*time.Second, time.Millisecond)
}

func TestLocatorOfARemovedNodeIsReleasedAfterTheGrace(t *testing.T) {
	w := newWorld()
	w.change(addNode("n1", 1))
	gone := publish.Claim{Locator: v1alpha1.Locator(block, 9), Node: "gone"}
	require.NoError(t, w.CreateClaim(t.Context(), gone))
	w.published["gone"] = cluster.SRv6Node{Name: "gone"}
	begin := time.Now()
	start(t, w, fake.New("up0"), time.Second)
	require.Eventually(t, func() bool {
		inv, _ := w.Inventory(t.Context())
		return !slices.Contains(inv.Claims, gone)
	}, 10*time.Second, 5*time.Millisecond)
	require.GreaterOrEqual(t, time.Since(begin), time.Second)
	_, ok := w.publishedNode("gone")
	require.False(t, ok)
	inv, _ := w.Inventory(t.Context())
	require.Len(t, inv.Claims, 1, "this node's own claim stays")
}

// TestALostLocatorIsReplaced: the claim was given to another while this node was
// thought to be gone.
func TestALostLocatorIsReplaced(t *testing.T) {
	w := newWorld()
	w.change(addNode("n1", 1))
	r := start(t, w, fake.New("up0"), time.Hour)
	first := v1alpha1.Locator(block, 1)
	require.Eventually(t, func() bool { n, ok := w.publishedNode("n1"); return ok && n.Locator == first }, 5*time.Second, time.Millisecond)
	require.NoError(t, w.ReleaseClaim(t.Context(), publish.Claim{Locator: first, Node: "n1"}))
	require.NoError(t, w.CreateClaim(t.Context(), publish.Claim{Locator: first, Node: "thief"}))
	w.change(addNode("n2", 7))
	second := v1alpha1.Locator(block, 2)
	require.Eventually(t, func() bool { n, ok := w.publishedNode("n1"); return ok && n.Locator == second }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return r.ctl.Resync(t.Context()) == nil && r.rec.Status().InSync }, 5*time.Second, time.Millisecond)
	require.NotContains(t, r.be.Text(), "localsid/fcbb:bb00:1:")
	require.Contains(t, r.be.Text(), "localsid/fcbb:bb00:2:e004::/128")
}
