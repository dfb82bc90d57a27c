package publish

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sort"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// ClaimLocator finds the node's locator in the block, or claims one: an existing
// claim first (the lowest, and the others are released), then the locator that
// the node published if nobody else claimed it, then the lowest free node ID. A
// race that is lost goes on to the next one. Calling it again gives the same
// locator. While the inventory is incomplete an existing claim is found, but
// nothing is claimed or released: this node's claim may be in what cannot be
// read. Errors match ErrExhausted when the block is full, or are the store's
// own and worth a retry.
func ClaimLocator(ctx context.Context, s Store, block netip.Prefix, node string) (netip.Prefix, error) {
	inv, err := s.Inventory(ctx)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("claiming a locator for node %s: %w", node, err)
	}
	own := inv.heldBy(node, block)
	if len(own) > 0 {
		if inv.Incomplete != nil {
			return own[0].Locator, nil
		}
		for _, extra := range own[1:] {
			if err := s.ReleaseClaim(ctx, extra); err != nil {
				return netip.Prefix{}, fmt.Errorf("node %s keeps locator %s and could not release its second one, %s: %w", node, own[0].Locator, extra.Locator, err)
			}
		}
		return own[0].Locator, nil
	}
	if inv.Incomplete != nil {
		return netip.Prefix{}, fmt.Errorf("claiming a locator for node %s: %w", node, inv.Incomplete)
	}

	taken := make(map[netip.Prefix]bool, len(inv.Claims)+len(inv.Published))
	for _, c := range inv.Claims {
		taken[c.Locator] = true
	}
	var candidates []netip.Prefix
	for _, p := range inv.Published {
		if p.Node != node {
			taken[p.Locator] = true
		} else if block.Contains(p.Locator.Addr()) {
			candidates = append(candidates, p.Locator)
		}
	}
	for _, locator := range candidates {
		if taken[locator] {
			continue
		}
		ok, err := create(ctx, s, Claim{locator, node})
		if err != nil {
			return netip.Prefix{}, err
		}
		if ok {
			return locator, nil
		}
	}
	for id := int(v1alpha1.MinNodeID); id <= int(v1alpha1.MaxNodeID); id++ {
		locator := v1alpha1.Locator(block, uint16(id))
		if !locator.IsValid() {
			return netip.Prefix{}, fmt.Errorf("claiming a locator for node %s: block %s is not an IPv6 /%d", node, block, v1alpha1.BlockBits)
		}
		if taken[locator] {
			continue
		}
		ok, err := create(ctx, s, Claim{locator, node})
		if err != nil {
			return netip.Prefix{}, err
		}
		if ok {
			return locator, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("claiming a locator for node %s: all %d node IDs of block %s are held; release the claims of nodes that are gone: %w",
		node, int(v1alpha1.MaxNodeID-v1alpha1.MinNodeID)+1, block, ErrExhausted)
}

// create says whether the claim is ours now.
func create(ctx context.Context, s Store, c Claim) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("claiming locator %s for node %s: %w", c.Locator, c.Node, err)
	}
	err := s.CreateClaim(ctx, c)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrTaken):
		return false, nil
	}
	return false, fmt.Errorf("claiming locator %s for node %s: %w", c.Locator, c.Node, err)
}

// heldBy are the node's claims in the block, lowest first.
func (inv Inventory) heldBy(node string, block netip.Prefix) []Claim {
	var own []Claim
	for _, c := range inv.Claims {
		if c.Node == node && block.Contains(c.Locator.Addr()) {
			own = append(own, c)
		}
	}
	sortClaims(own)
	return own
}

// StaleClaims are the claims of nodes that have no Node object, lowest locator
// first. Without any Node object nothing is stale: such a cluster does not say
// who belongs to it. A claim should be seen as stale for a grace period before
// it is released, so that a Node object may be written anew.
func StaleClaims(nodes map[string]cluster.Node, locators map[netip.Prefix]string) []Claim {
	if len(nodes) == 0 {
		return nil
	}
	var stale []Claim
	for locator, holder := range locators {
		if _, ok := nodes[holder]; !ok {
			stale = append(stale, Claim{locator, holder})
		}
	}
	sortClaims(stale)
	return stale
}

// ReleaseStale removes what a node that is gone left behind: first its facts, so
// that no peer sends to the locator any more, then the claim, so that another
// node may have it. Doing it again, or from several agents, is harmless.
func ReleaseStale(ctx context.Context, s Store, c Claim) error {
	if err := s.UnpublishNode(ctx, c.Node); err != nil {
		return fmt.Errorf("releasing locator %s of node %s: %w", c.Locator, c.Node, err)
	}
	if err := s.ReleaseClaim(ctx, c); err != nil {
		return fmt.Errorf("releasing locator %s of node %s: %w", c.Locator, c.Node, err)
	}
	return nil
}

func sortClaims(claims []Claim) {
	sort.Slice(claims, func(i, j int) bool { return claims[i].Locator.Addr().Less(claims[j].Locator.Addr()) })
}
