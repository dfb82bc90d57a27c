package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

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
	var pending *facts
	for {
		var again <-chan time.Time
		if pending != nil {
			again = time.After(retryInterval)
		}
		select {
		case <-ctx.Done():
			return
		case f := <-c.facts:
			pending = &f
		case <-again:
		}
		if err := c.publish(ctx, *pending); err != nil {
			if ctx.Err() == nil {
				c.o.Log.WithError(err).Warn("this node's facts could not be published; trying again")
			}
			continue
		}
		pending = nil
	}
}

// publish leaves out facts of a locator that this node holds no more.
func (c *Controller) publish(ctx context.Context, f facts) error {
	d := c.connected()
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var keys []dataplane.Key
	for _, s := range f.node.SIDs {
		keys = append(keys, dataplane.LocalSIDKey{SID: s.SID})
	}
	if err := d.Kernel.Await(wait, f.generation, keys); err != nil {
		return fmt.Errorf("the node's SIDs are not in the dataplane: %w", err)
	}
	c.mu.Lock()
	held := c.self.Locator
	c.mu.Unlock()
	if f.node.Locator != held {
		return nil // newer facts are on their way
	}
	return c.o.Source.PublishNode(ctx, f.node, v1alpha1.SRv6NodeStatus{Dataplane: c.o.Config.Dataplane, DataplaneVersion: d.Version()})
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
