// Package controller joins the inputs (the cluster's objects, this node's pods,
// the underlay) into snapshots, compiles them, and hands the result to the
// reconciler. It also keeps this node's identity: its locator and what it
// publishes.
package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/compile"
	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/agent/switchover"
	"github.com/sidewinder-net/sidewinder/agent/underlay"
)

// Underlay answers for the way to other nodes.
type Underlay interface {
	// Settle finds the uplinks and keeps to them.
	Settle() ([]string, error)
	Resolve([]underlay.Target) (cluster.Underlay, error)
	Changed() <-chan struct{}
}

// Endpoints are the pods wired on this node.
type Endpoints interface {
	Endpoints() []cluster.Endpoint
	Changed() <-chan struct{}
	Problems() []status.Problem
}

// Dataplane is what Connect gives.
type Dataplane struct {
	// Kernel is there on every node.
	Kernel *reconcile.Reconciler
	// VPP is nil on a node without.
	VPP *VPP
	// Version of VPP or the kernel, for people.
	Version func() string
}

// VPP is the dataplane beside the kernel.
type VPP struct {
	Reconciler *reconcile.Reconciler
	Gate       Gate
}

// Gate switches the traffic between VPP and the kernel.
type Gate interface {
	// Narrow takes from VPP what it is not to carry any more.
	Narrow(dataplane.Redirects)
	// Want says what VPP is to carry once it has worked on this generation.
	Want(dataplane.Redirects, switchover.Links, uint64)
	// Active reports whether VPP carries the traffic.
	Active() bool
	Status() status.Dataplane
}

// Options for New.
type Options struct {
	Config   config.Config
	Source   source.Source
	Underlay Underlay
	// Connect opens the dataplane once the uplinks are known. Its error ends
	// Run.
	Connect func(ctx context.Context, uplinks []string) (Dataplane, error)
	Log     logrus.FieldLogger
}

// Controller is the node's agent less its doors and its dataplane.
type Controller struct {
	o     Options
	facts chan facts

	mu        sync.Mutex
	endpoints Endpoints
	dataplane Dataplane // zero until connected
	why       error     // why pods cannot be wired, nil when they can
	// self and objs are the last good ones: what is compiled when the newest
	// are not good enough to take over.
	self     cluster.Self
	objs     source.Objects
	underlay cluster.Underlay
	snapshot cluster.Snapshot
	result   compile.Result // the kernel's
	// vppGeneration is VPP's newest desired state.
	vppGeneration uint64
	// leaving are the objects of endpoints that are gone from the snapshot and
	// not yet confirmed to be gone from the dataplane.
	leaving map[string][]dataplane.Key
	stale   map[publish.Claim]time.Time
	// claimSeen: the claim has been read back from the source.
	claimSeen bool
}

// New makes a Controller; nothing happens before Run.
func New(o Options) *Controller {
	return &Controller{
		o: o, facts: make(chan facts, 1), stale: map[publish.Claim]time.Time{}, leaving: map[string][]dataplane.Key{},
		why: errors.New("the agent has just started"),
	}
}

// retryInterval is the time after which what could not be had is asked for
// again: an uplink, a locator from a store that did not answer.
const retryInterval = time.Second

// Run works until ctx ends. The endpoints come here and not with New, because
// their server needs the Controller first.
func (c *Controller) Run(ctx context.Context, endpoints Endpoints) error {
	c.mu.Lock()
	c.endpoints = endpoints
	c.mu.Unlock()
	if err := c.connect(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	go c.publisher(ctx)
	housekeeping := time.NewTicker(min(c.o.Config.ReleaseGrace/4, time.Minute))
	defer housekeeping.Stop()
	resync := time.NewTicker(c.o.Config.ResyncInterval)
	defer resync.Stop()
	retry := time.NewTicker(retryInterval)
	defer retry.Stop()
	c.refresh(ctx)
	for {
		due := true
		select {
		case <-ctx.Done():
			return nil
		case <-c.o.Source.Changed():
		case <-endpoints.Changed():
		case <-c.o.Underlay.Changed():
			// A link that flaps gives many events at once.
			time.Sleep(5 * time.Millisecond)
		case <-resync.C:
			// An event of the kernel may have been missed.
		case <-retry.C:
			due = c.reason() != nil
		case <-housekeeping.C:
			c.release(ctx)
			due = false
		}
		if due {
			c.refresh(ctx)
		}
	}
}

// connect waits for the uplinks and opens the dataplane.
func (c *Controller) connect(ctx context.Context) error {
	for {
		uplinks, err := c.o.Underlay.Settle()
		if err == nil {
			d, err := c.o.Connect(ctx, uplinks)
			if err != nil {
				return err
			}
			c.mu.Lock()
			c.dataplane = d
			c.mu.Unlock()
			return nil
		}
		c.mu.Lock()
		c.setWhy(fmt.Errorf("waiting for the uplink: %w", err))
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryInterval):
		}
	}
}

// setWhy notes why pods cannot be wired, and tells changes. c.mu is held.
func (c *Controller) setWhy(err error) {
	switch {
	case err != nil && (c.why == nil || c.why.Error() != err.Error()):
		c.o.Log.WithError(err).Warn("not ready")
	case err == nil && c.why != nil:
		c.o.Log.WithFields(logrus.Fields{"locator": c.self.Locator, "encapSource": c.self.EncapSource}).Info("ready")
	}
	c.why = err
}

// refresh takes in the newest inputs, and notes why it cannot.
func (c *Controller) refresh(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.update(ctx)
	c.setWhy(err)
}

// update takes in the newest inputs as far as they are good, and gives the
// generation of what came out; the error says what is missing. c.mu is held.
func (c *Controller) update(ctx context.Context) (uint64, error) {
	err := c.identify(ctx)
	generation, rerr := c.recompute()
	if err == nil {
		err = rerr
	}
	return generation, err
}

// identify finds out who this node is: once for the locator, again and again for
// what its Node object says.
func (c *Controller) identify(ctx context.Context) error {
	objs, synced := c.o.Source.Objects()
	if !synced {
		return errors.New("the source of cluster state has not been read yet")
	}
	name := c.o.Config.NodeName
	node, ok := objs.Nodes[name]
	if !ok {
		return fmt.Errorf("Node/%s does not exist; make it, or set nodeName to an existing node's name", name)
	}
	src := c.o.Config.EncapSourceAddr
	if !src.IsValid() {
		if src, ok = ipv6Address(node); !ok {
			return fmt.Errorf("Node/%s: status.addresses: has no IPv6 InternalIP; add one, or set encapSource in the configuration", name)
		}
	}
	if c.lostClaim(objs) {
		c.o.Log.WithField("locator", c.self.Locator).Warn("the claim on this node's locator is gone or another's; claiming again")
		c.self.Locator, c.claimSeen = netip.Prefix{}, false
	}
	if !c.self.Locator.IsValid() {
		locator, err := publish.ClaimLocator(ctx, c.o.Source, c.o.Config.BlockPrefix, name)
		if err != nil {
			return err
		}
		c.o.Log.WithField("locator", locator).Info("holding locator")
		c.self.Locator = locator
	}
	c.objs = objs
	c.self = cluster.Self{
		Name: name, Block: c.o.Config.BlockPrefix, Locator: c.self.Locator,
		EncapSource: src, SIDs: publish.SIDs(c.self.Locator),
	}
	return nil
}

// lostClaim: somebody else holds this node's locator, or its claim was there and
// is not any more. A claim just made may not have been read back yet.
func (c *Controller) lostClaim(objs source.Objects) bool {
	if !c.self.Locator.IsValid() {
		return false
	}
	holder, ok := objs.Locators[c.self.Locator]
	c.claimSeen = c.claimSeen || (ok && holder == c.o.Config.NodeName)
	if ok {
		return holder != c.o.Config.NodeName
	}
	return c.claimSeen
}

func ipv6Address(n cluster.Node) (netip.Addr, bool) {
	for _, a := range n.Addresses {
		if a.Is6() && !a.IsLinkLocalUnicast() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// recompute compiles the last good inputs with the endpoints as they are now.
// The error says why the outcome is not all that it could be; the generation is
// 0 when there is none yet. c.mu is held.
func (c *Controller) recompute() (uint64, error) {
	if !c.self.Locator.IsValid() || c.dataplane.Kernel == nil {
		return 0, errors.New("this node has no identity yet")
	}
	var targets []underlay.Target
	for name, n := range c.objs.SRv6Nodes {
		if _, known := c.objs.Nodes[name]; known && name != c.self.Name {
			targets = append(targets, underlay.Target{Locator: n.Locator, Address: n.EncapSource})
		}
	}
	u, err := c.o.Underlay.Resolve(targets)
	if err == nil {
		c.underlay = u
	}
	// Without an answer the last one holds: an uplink that is away is no reason
	// to take anything down, nor to keep pods from being removed.
	snap := cluster.Snapshot{
		Self: c.self, Nodes: c.objs.Nodes, SRv6Nodes: c.objs.SRv6Nodes, Locators: c.objs.Locators, Pools: c.objs.Pools, Pods: c.objs.Pods,
		Endpoints: map[string]cluster.Endpoint{}, Underlay: c.underlay,
		UplinkRx: rx(c.o.Config.VPP.UplinkRxMode), PodRx: rx(c.o.Config.VPP.PodRxMode),
	}
	for _, e := range c.endpoints.Endpoints() {
		snap.Endpoints[e.ID] = e
		delete(c.leaving, e.ID)
	}
	for id, keys := range c.leaving {
		if c.dataplane.absent(keys) {
			delete(c.leaving, id)
		}
	}
	for id, e := range c.snapshot.Endpoints {
		if _, stays := snap.Endpoints[id]; !stays {
			c.leaving[id] = endpointKeys(e)
		}
	}
	res := compile.Compile(snap, compile.Target{Kernel: true})
	// The kernel first: it is what VPP falls back to.
	generation := c.dataplane.Kernel.SetDesired(res.State)
	if v := c.dataplane.VPP; v != nil {
		res.Problems = append(res.Problems, status.Without(c.beside(v, snap), res.Problems)...)
	}
	c.tell(res.Problems)
	c.snapshot, c.result = snap, res
	c.offer(facts{
		node: cluster.SRv6Node{
			Name: c.self.Name, EncapSource: c.self.EncapSource, Locator: c.self.Locator, SIDs: c.self.SIDs,
			Prefixes: slices.Clone(c.objs.Nodes[c.self.Name].PodCIDRs),
		},
		generation: generation,
	})
	return generation, err
}

// rx leaves out what is the default anyway.
func rx(m dataplane.RxMode) dataplane.Rx {
	if m == dataplane.RxInterrupt {
		return dataplane.Rx{}
	}
	return dataplane.Rx{Mode: m}
}

// beside gives VPP the same state as the kernel, in its terms. c.mu is held.
func (c *Controller) beside(v *VPP, snap cluster.Snapshot) []status.Problem {
	res := compile.Compile(snap, compile.Target{})
	links := switchover.Links{Uplinks: slices.Sorted(maps.Keys(snap.Underlay.Uplinks))}
	for name, i := range res.State.Interfaces {
		if i.Role == dataplane.RolePod {
			links.Pods = append(links.Pods, string(name))
		}
	}
	slices.Sort(links.Pods)
	if !maps.Equal(c.snapshot.Underlay.Uplinks, snap.Underlay.Uplinks) {
		// VPP takes MAC and MTU from the link itself, and is told nothing when
		// they change.
		v.Reconciler.Trigger()
	}
	v.Gate.Narrow(res.Redirects)
	c.vppGeneration = v.Reconciler.SetDesired(res.State)
	v.Gate.Want(res.Redirects, links, c.vppGeneration)
	return res.Problems
}

// absent reports whether no dataplane was last seen with any of keys.
func (d Dataplane) absent(keys []dataplane.Key) bool {
	if !d.Kernel.Absent(keys) {
		return false
	}
	if d.VPP == nil || d.VPP.Reconciler.Absent(keys) {
		return true
	}
	// A VPP that is not there holds nothing; one that comes back starts empty,
	// or is compared as a whole.
	_, err := d.VPP.Reconciler.Unmet(0)
	return errors.Is(err, dataplane.ErrDisconnected)
}

// tell logs what is new among the problems, and what is over.
func (c *Controller) tell(now []status.Problem) {
	for _, p := range status.Without(now, c.result.Problems) {
		c.o.Log.WithField("object", p.Object).Warn(p.String())
	}
	for _, p := range status.Without(c.result.Problems, now) {
		c.o.Log.WithField("object", p.Object).Info("over: " + p.String())
	}
}

// Await recompiles with the endpoints as they are now, and blocks until the
// dataplane holds the endpoint's objects (present) or has let go of them.
//
// A removal is also done when the dataplane cannot be reached, or when this node
// does not find its identity: what is left in the dataplane goes as soon as
// there is one, because no record asks for it any more.
func (c *Controller) Await(ctx context.Context, endpointID string, present bool) error {
	if present {
		return c.awaitPresent(ctx, endpointID)
	}
	return c.awaitAbsent(ctx, endpointID)
}

func (c *Controller) awaitPresent(ctx context.Context, id string) error {
	c.mu.Lock()
	generation, err := c.update(ctx)
	e, ok := c.snapshot.Endpoints[id]
	d, vppGeneration := c.dataplane, c.vppGeneration
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("endpoint %s: is not recorded", id)
	}
	if err := d.Kernel.Await(ctx, generation, endpointKeys(e)); err != nil {
		return err
	}
	if d.VPP != nil && d.VPP.Gate.Active() {
		// The pod works already. Waiting spares it the change from the kernel
		// to VPP right after its start; a VPP that does not take it says so in
		// status, and the kernel carries the pod.
		vctx, cancel := context.WithTimeout(ctx, vppPatience)
		defer cancel()
		if err := d.VPP.Reconciler.Await(vctx, vppGeneration, endpointKeys(e)); err != nil {
			c.o.Log.WithError(err).WithField("endpoint", id).Warn("VPP does not carry the pod yet; the kernel does")
		}
	}
	return nil
}

// vppPatience is how long a pod that the kernel carries waits for VPP.
const vppPatience = 3 * time.Second

// identityGrace is how long a removal waits for an agent that has just started to
// find out who it is.
const identityGrace = 3 * time.Second

func (c *Controller) awaitAbsent(ctx context.Context, id string) error {
	for begin := time.Now(); ; {
		c.mu.Lock()
		generation, _ := c.update(ctx)
		_, still := c.snapshot.Endpoints[id]
		keys := c.leaving[id]
		d, vppGeneration := c.dataplane, c.vppGeneration
		c.mu.Unlock()
		switch {
		case generation == 0 && time.Since(begin) >= identityGrace:
			return nil
		case generation == 0:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(identityGrace / 30):
			}
			continue
		case still:
			return fmt.Errorf("endpoint %s: is still recorded", id)
		}
		if d.VPP != nil {
			if err := d.VPP.Reconciler.AwaitAbsent(ctx, vppGeneration, keys); err != nil {
				return err
			}
		}
		return d.Kernel.AwaitAbsent(ctx, generation, keys)
	}
}

// endpointKeys are the objects that carry an endpoint's traffic.
func endpointKeys(e cluster.Endpoint) []dataplane.Key {
	keys := []dataplane.Key{dataplane.InterfaceKey(e.HostInterface)}
	for _, ip := range e.IPs {
		keys = append(keys,
			dataplane.NeighbourKey{Interface: e.HostInterface, IP: ip},
			dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())})
	}
	return keys
}

// Resync compares the dataplane with what is wanted now, and answers when that
// is done. It also says why what is wanted is not up to date.
func (c *Controller) Resync(ctx context.Context) error {
	c.mu.Lock()
	generation, err := c.update(ctx)
	d := c.dataplane
	c.mu.Unlock()
	if generation == 0 {
		return err
	}
	if d.VPP != nil {
		// Where it cannot be reached there is nothing to compare.
		err = errors.Join(err, d.VPP.Reconciler.AwaitAbsent(ctx, d.VPP.Reconciler.Trigger(), nil))
	}
	return errors.Join(d.Kernel.Await(ctx, d.Kernel.Trigger(), nil), err)
}
