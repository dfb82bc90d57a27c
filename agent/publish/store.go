package publish

import (
	"context"
	"errors"
	"net/netip"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// ErrTaken: somebody holds the locator already.
var ErrTaken = errors.New("locator is taken")

// ErrNotHeld: the claim to be released belongs to another node, or is not one
// that an agent wrote.
var ErrNotHeld = errors.New("claim is not held as stated")

// ErrExhausted: no node ID of the block is free.
var ErrExhausted = errors.New("no locator is free")

// Claim is a node's hold on a locator.
type Claim struct {
	Locator netip.Prefix
	Node    string
}

// Inventory is every locator in use at one moment.
type Inventory struct {
	// Claims are the claim objects.
	Claims []Claim
	// Published are the locators in the nodes' published facts. Traffic may
	// flow to them, so they count as taken even without a claim.
	Published []Claim
	// Incomplete says why claims may be missing above; nil: none is.
	Incomplete error
}

// Store is where claims and published facts live.
type Store interface {
	// Inventory lists the claims as they are now, not as last seen.
	Inventory(ctx context.Context) (Inventory, error)
	// CreateClaim creates a claim if there is none for the locator, else the
	// error matches ErrTaken. Of many creators exactly one succeeds.
	CreateClaim(ctx context.Context, c Claim) error
	// ReleaseClaim removes a claim if it is still held as stated. Releasing a
	// claim that is gone succeeds; one that another node holds by now gives
	// ErrNotHeld and stays.
	ReleaseClaim(ctx context.Context, c Claim) error
	// PublishNode writes a node's facts, if they differ from what is there.
	PublishNode(ctx context.Context, n cluster.SRv6Node, s v1alpha1.SRv6NodeStatus) error
	// UnpublishNode removes a node's facts. Removing what is gone succeeds.
	UnpublishNode(ctx context.Context, node string) error
}
