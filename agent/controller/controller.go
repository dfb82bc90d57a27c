// Package controller joins the inputs (the cluster's objects, this node's pods,
// the underlay) into snapshots, compiles them, and hands the result to the
// reconciler. It also keeps this node's identity: its locator and what it
// publishes.
package controller

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/sidewinder-net/sidewinder/agent/underlay"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
	cniapi "github.com/sidewinder-net/sidewinder/cni/api"
)

// Underlay answers for the way to other nodes.
type Underlay interface {
	Resolve([]underlay.Target) (cluster.Underlay, error)
	Changed() <-chan struct{}
}

// Endpoints are the pods wired on this node.
type Endpoints interface {
	Endpoints() []cluster.Endpoint
	Changed() <-chan struct{}
	Problems() []status.Problem
}

// Options for New.
type Options struct {
	Config     config.Config
	Source     source.Source
	Underlay   Underlay
	Reconciler *reconcile.Reconciler
	// Version of the dataplane, for people.
	Version func() string
	Log     logrus.FieldLogger
}

// Controller is the node's agent less its doors and its dataplane.
type Controller struct {
	o         Options
	endpoints Endpoints
	facts     chan facts

	mu       sync.Mutex
	self     cluster.Self
	snapshot cluster.Snapshot
	result   compile.Result
	compiled bool
	why      error // why pods cannot be wired, nil when they can
	stale    map[publish.Claim]time.Time
	// claimSeen: the claim has been read back from the source.
	claimSeen bool
}

// New makes a Controller; nothing happens before Run.
func New(o Options) *Controller {
	return &Controller{
		o: o, facts: make(chan facts, 1), stale: map[publish.Claim]time.Time{},
		why: errors.New("the agent has just started"),
	}
}

// Run works until ctx ends. The endpoints come here and not with New, because
// their server needs the Controller first.
func (c *Controller) Run(ctx context.Context, endpoints Endpoints) error {
	c.mu.Lock()
	c.endpoints = endpoints
	c.mu.Unlock()
	go c.publisher(ctx)
	housekeeping := time.NewTicker(min(c.o.Config.ReleaseGrace/4, time.Minute))
	defer housekeeping.Stop()
	// What could not be had is asked for again: a locator from a store that did
	// not answer, an uplink that is not there yet.
	retry := time.NewTicker(2 * time.Second)
	defer retry.Stop()
	for {
		c.refresh(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-c.o.Source.Changed():
		case <-endpoints.Changed():
		case <-c.o.Underlay.Changed():
			// A link that flaps gives many events at once.
			time.Sleep(5 * time.Millisecond)
		case <-retry.C:
			if c.reason() == nil {
				continue
			}
		case <-housekeeping.C:
			c.release(ctx)
			continue
		}
	}
}

// refresh makes a new snapshot and desired state, and notes why it cannot.
func (c *Controller) refresh(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.identify(ctx)
	if err == nil {
		_, err = c.recompute()
	}
	if err != nil && (c.why == nil || c.why.Error() != err.Error()) {
		c.o.Log.WithError(err).Warn("not ready")
	}
	if err == nil && c.why != nil {
		c.o.Log.WithFields(logrus.Fields{"locator": c.self.Locator, "encapSource": c.self.EncapSource}).Info("ready")
	}
	c.why = err
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

// recompute compiles the newest inputs. c.mu is held.
func (c *Controller) recompute() (uint64, error) {
	if !c.self.Locator.IsValid() || c.endpoints == nil {
		return 0, errors.New("this node has no identity yet")
	}
	objs, _ := c.o.Source.Objects()
	var targets []underlay.Target
	for name, n := range objs.SRv6Nodes {
		if _, known := objs.Nodes[name]; known && name != c.self.Name {
			targets = append(targets, underlay.Target{Locator: n.Locator, Address: n.EncapSource})
		}
	}
	u, err := c.o.Underlay.Resolve(targets)
	if err != nil {
		return 0, err
	}
	snap := cluster.Snapshot{
		Self: c.self, Nodes: objs.Nodes, SRv6Nodes: objs.SRv6Nodes, Pools: objs.Pools, Pods: objs.Pods,
		Endpoints: map[string]cluster.Endpoint{}, Underlay: u,
	}
	for _, e := range c.endpoints.Endpoints() {
		snap.Endpoints[e.ID] = e
	}
	res := compile.Compile(snap, compile.Target{Kernel: c.o.Config.Dataplane == config.DataplaneLinux})
	if !slices.Equal(res.Problems, c.result.Problems) {
		for _, p := range res.Problems {
			c.o.Log.WithField("object", p.Object).Warn(p.String())
		}
	}
	c.snapshot, c.result, c.compiled = snap, res, true
	generation := c.o.Reconciler.SetDesired(res.State)
	c.offer(facts{
		node: cluster.SRv6Node{
			Name: c.self.Name, EncapSource: c.self.EncapSource, Locator: c.self.Locator, SIDs: c.self.SIDs,
			Prefixes: slices.Clone(objs.Nodes[c.self.Name].PodCIDRs),
		},
		generation: generation,
	})
	return generation, nil
}

// Await recompiles with the endpoints as they are now, and blocks until the
// dataplane holds the endpoint's objects (present) or has let go of them.
func (c *Controller) Await(ctx context.Context, endpointID string, present bool) error {
	c.mu.Lock()
	keys := endpointKeys(c.snapshot.Endpoints[endpointID])
	generation, err := c.recompute()
	if err != nil {
		c.mu.Unlock()
		return err
	}
	e, ok := c.snapshot.Endpoints[endpointID]
	c.mu.Unlock()
	if present != ok {
		return fmt.Errorf("endpoint %s: recorded: %t, expected: %t", endpointID, ok, present)
	}
	if present {
		keys = endpointKeys(e)
	}
	return c.o.Reconciler.Await(ctx, generation, keys)
}

// endpointKeys are the objects that carry an endpoint's traffic.
func endpointKeys(e cluster.Endpoint) []dataplane.Key {
	if e.ID == "" {
		return nil
	}
	keys := []dataplane.Key{dataplane.InterfaceKey(e.HostInterface)}
	for _, ip := range e.IPs {
		keys = append(keys,
			dataplane.NeighbourKey{Interface: e.HostInterface, IP: ip},
			dataplane.RouteKey{Prefix: netip.PrefixFrom(ip, ip.BitLen())})
	}
	return keys
}

// NodeConfig is what the CNI plugin needs.
func (c *Controller) NodeConfig() (cniapi.NodeConfig, error) {
	if err := c.Ready(); err != nil {
		return cniapi.NodeConfig{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return cniapi.NodeConfig{
		MTU:               c.podMTU(),
		DisableTxChecksum: c.o.Config.Dataplane == config.DataplaneVPP,
	}, nil
}

// podMTU is the smallest uplink's MTU less the encapsulation. c.mu is held.
func (c *Controller) podMTU() int {
	if c.o.Config.PodMTU != 0 {
		return c.o.Config.PodMTU
	}
	mtu := 0
	for _, u := range c.snapshot.Underlay.Uplinks {
		if m := int(u.MTU) - config.EncapOverhead; mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}

func (c *Controller) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// Ready says why pods cannot be wired, nil when they can.
func (c *Controller) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		return c.why
	}
	if mtu := c.podMTU(); mtu < config.MinPodMTU {
		return fmt.Errorf("the uplink's MTU leaves %d bytes to pods, IPv6 needs %d: raise the uplink's MTU to %d or more", mtu, config.MinPodMTU, config.MinPodMTU+config.EncapOverhead)
	}
	if e := c.o.Reconciler.Status().Error; e != "" {
		return errors.New(e)
	}
	return nil
}

// Status is the agent's status.
func (c *Controller) Status() status.Status {
	ready := c.Ready()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, synced := c.o.Source.Objects()
	s := status.Status{
		Version: status.Version, Node: c.o.Config.NodeName, Ready: ready == nil,
		Dataplane: status.Dataplane{Kind: c.o.Config.Dataplane, Version: c.o.Version()},
		Policies:  c.result.Policies, Endpoints: len(c.snapshot.Endpoints), PodMTU: c.podMTU(),
		Source:    status.Source{Kind: "file", Synced: synced},
		Reconcile: c.o.Reconciler.Status(),
		Problems:  slices.Clone(c.result.Problems),
	}
	if ready != nil {
		s.Reason = ready.Error()
	}
	if c.self.Locator.IsValid() {
		s.Locator, s.EncapSource = c.self.Locator.String(), c.self.EncapSource.String()
	}
	for _, sid := range c.self.SIDs {
		s.SIDs = append(s.SIDs, status.SID{SID: sidText(sid.SID), Behaviour: string(sid.Behaviour), Table: sid.Table})
	}
	for _, p := range c.o.Source.Errors() {
		s.Source.Errors = append(s.Source.Errors, p.String())
	}
	if c.endpoints != nil {
		s.Problems = append(s.Problems, c.endpoints.Problems()...)
	}
	return s
}

func sidText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Resync compares the dataplane with what is wanted now, and answers when that
// is done.
func (c *Controller) Resync(ctx context.Context) error {
	c.mu.Lock()
	generation, err := c.recompute()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.o.Reconciler.Trigger()
	return c.o.Reconciler.Await(ctx, generation, nil)
}

// facts are what this node tells its peers, and the state in which they are true.
type facts struct {
	node       cluster.SRv6Node
	generation uint64
}

// offer replaces what waits to be published.
func (c *Controller) offer(f facts) {
	select {
	case <-c.facts:
	default:
	}
	select {
	case c.facts <- f:
	default:
	}
}

// publisher writes the newest facts once the dataplane holds the SIDs in them:
// a peer that sends before that would lose its packets.
func (c *Controller) publisher(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-c.facts:
			if err := c.publish(ctx, f); err != nil && ctx.Err() == nil {
				c.o.Log.WithError(err).Warn("this node's facts could not be published; trying again")
				select {
				case <-ctx.Done():
				case newer := <-c.facts:
					c.offer(newer)
				case <-time.After(time.Second):
					c.offer(f)
				}
			}
		}
	}
}

func (c *Controller) publish(ctx context.Context, f facts) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var keys []dataplane.Key
	for _, s := range f.node.SIDs {
		keys = append(keys, dataplane.LocalSIDKey{SID: s.SID})
	}
	if err := c.o.Reconciler.Await(wait, f.generation, keys); err != nil {
		return fmt.Errorf("the node's SIDs are not in the dataplane: %w", err)
	}
	return c.o.Source.PublishNode(ctx, f.node, v1alpha1.SRv6NodeStatus{Dataplane: c.o.Config.Dataplane, DataplaneVersion: c.o.Version()})
}

// release gives back what nodes that are gone held, after the grace period.
func (c *Controller) release(ctx context.Context) {
	objs, synced := c.o.Source.Objects()
	if !synced || len(c.o.Source.Errors()) > 0 {
		return // an unreadable Node object is not a removed one
	}
	stale := publish.StaleClaims(objs.Nodes, objs.Locators)
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for claim := range c.stale {
		if !slices.Contains(stale, claim) {
			delete(c.stale, claim)
		}
	}
	for _, claim := range stale {
		if claim.Node == c.o.Config.NodeName {
			continue // this node is evidently here
		}
		first, seen := c.stale[claim]
		if !seen {
			c.stale[claim] = now
			continue
		}
		if now.Sub(first) < c.o.Config.ReleaseGrace {
			continue
		}
		log := c.o.Log.WithFields(logrus.Fields{"locator": claim.Locator, "node": claim.Node})
		if err := publish.ReleaseStale(ctx, c.o.Source, claim); err != nil {
			log.WithError(err).Warn("the locator of a removed node could not be released")
			continue
		}
		delete(c.stale, claim)
		log.Info("released the locator of a removed node")
	}
}
