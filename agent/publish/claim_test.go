package publish

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

var block = netip.MustParsePrefix("fcbb:bb00::/32")

func locator(id uint16) netip.Prefix { return v1alpha1.Locator(block, id) }

// memory is a store in memory. rivals are claims that appear between Inventory
// and CreateClaim, as those of agents that start at the same time do.
type memory struct {
	claims    map[netip.Prefix]string
	published []Claim
	rivals    []Claim
	log       []string
	err       error
	// incomplete is passed on.
	incomplete error
}

func (m *memory) Inventory(context.Context) (Inventory, error) {
	inv := Inventory{Published: m.published, Incomplete: m.incomplete}
	for l, n := range m.claims {
		inv.Claims = append(inv.Claims, Claim{l, n})
	}
	for _, r := range m.rivals {
		m.claims[r.Locator] = r.Node
	}
	return inv, m.err
}

func (m *memory) CreateClaim(_ context.Context, c Claim) error {
	if holder, ok := m.claims[c.Locator]; ok {
		return fmt.Errorf("held by %s: %w", holder, ErrTaken)
	}
	m.claims[c.Locator] = c.Node
	return nil
}

func (m *memory) ReleaseClaim(_ context.Context, c Claim) error {
	m.log = append(m.log, "release "+c.Locator.String())
	if holder, ok := m.claims[c.Locator]; ok && holder != c.Node {
		return ErrNotHeld
	}
	delete(m.claims, c.Locator)
	return nil
}

func (m *memory) PublishNode(context.Context, cluster.SRv6Node, v1alpha1.SRv6NodeStatus) error {
	return nil
}

func (m *memory) UnpublishNode(_ context.Context, node string) error {
	m.log = append(m.log, "unpublish "+node)
	return nil
}

func TestClaimLocator(t *testing.T) {
	for name, c := range map[string]struct {
		store memory
		want  uint16
	}{
		"empty: the lowest":         {memory{claims: map[netip.Prefix]string{}}, 1},
		"the lowest that is free":   {memory{claims: map[netip.Prefix]string{locator(1): "a", locator(3): "b"}}, 2},
		"own claim is found":        {memory{claims: map[netip.Prefix]string{locator(1): "a", locator(9): "me"}}, 9},
		"two own: the lowest stays": {memory{claims: map[netip.Prefix]string{locator(5): "me", locator(9): "me"}}, 5},
		"a race is lost":            {memory{claims: map[netip.Prefix]string{}, rivals: []Claim{{locator(1), "a"}, {locator(2), "b"}}}, 3},
		"published by another":      {memory{claims: map[netip.Prefix]string{}, published: []Claim{{locator(1), "a"}}}, 2},
		"claim lost, still published": {
			memory{claims: map[netip.Prefix]string{}, published: []Claim{{locator(7), "me"}}}, 7},
		"published, but claimed by another": {
			memory{claims: map[netip.Prefix]string{locator(7): "a"}, published: []Claim{{locator(7), "me"}}}, 1},
		"own claim in another block": {
			memory{claims: map[netip.Prefix]string{netip.MustParsePrefix("fcbb:bb01:4::/48"): "me"}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ClaimLocator(t.Context(), &c.store, block, "me")
			require.NoError(t, err)
			assert.Equal(t, locator(c.want), got)
			assert.Equal(t, "me", c.store.claims[got])
			again, err := ClaimLocator(t.Context(), &c.store, block, "me")
			require.NoError(t, err)
			assert.Equal(t, got, again)
		})
	}
}

func TestClaimLocatorReleasesTheOthers(t *testing.T) {
	m := memory{claims: map[netip.Prefix]string{locator(5): "me", locator(9): "me", locator(6): "a"}}
	_, err := ClaimLocator(t.Context(), &m, block, "me")
	require.NoError(t, err)
	assert.Equal(t, map[netip.Prefix]string{locator(5): "me", locator(6): "a"}, m.claims)
}

func TestClaimLocatorExhausted(t *testing.T) {
	m := memory{claims: map[netip.Prefix]string{}}
	for id := int(v1alpha1.MinNodeID); id <= int(v1alpha1.MaxNodeID); id++ {
		m.claims[locator(uint16(id))] = "a"
	}
	_, err := ClaimLocator(t.Context(), &m, block, "me")
	require.ErrorIs(t, err, ErrExhausted)
	assert.EqualError(t, err, "claiming a locator for node me: all 57343 node IDs of block fcbb:bb00::/32 are held; release the claims of nodes that are gone: no locator is free")
	delete(m.claims, locator(v1alpha1.MaxNodeID))
	got, err := ClaimLocator(t.Context(), &m, block, "me")
	require.NoError(t, err)
	assert.Equal(t, "fcbb:bb00:dfff::/48", got.String())
}

func TestClaimLocatorErrors(t *testing.T) {
	unreadable, partial := errors.New("unreadable"), errors.New("partial")
	m := memory{claims: map[netip.Prefix]string{}, err: unreadable}
	_, err := ClaimLocator(t.Context(), &m, block, "me")
	require.ErrorIs(t, err, unreadable)
	assert.Empty(t, m.claims, "nothing is claimed while a claim of this node may be hidden")

	m.err, m.incomplete = nil, partial
	_, err = ClaimLocator(t.Context(), &m, block, "me")
	require.ErrorIs(t, err, partial)
	assert.Empty(t, m.claims)
	m.claims = map[netip.Prefix]string{locator(4): "me", locator(6): "me"}
	got, err := ClaimLocator(t.Context(), &m, block, "me")
	require.NoError(t, err, "a claim that can be read is good")
	assert.Equal(t, locator(4), got)
	assert.Len(t, m.claims, 2, "nothing is released before all is known")
	m.claims, m.incomplete = map[netip.Prefix]string{}, nil

	_, err = ClaimLocator(t.Context(), &m, netip.MustParsePrefix("fd00::/48"), "me")
	assert.ErrorContains(t, err, "is not an IPv6 /32")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = ClaimLocator(ctx, &m, block, "me")
	assert.ErrorIs(t, err, context.Canceled)
}

func TestStaleClaims(t *testing.T) {
	locators := map[netip.Prefix]string{locator(3): "gone", locator(1): "n1", locator(2): "away"}
	nodes := map[string]cluster.Node{"n1": {Name: "n1"}}
	assert.Equal(t, []Claim{{locator(2), "away"}, {locator(3), "gone"}}, StaleClaims(nodes, locators))
	assert.Empty(t, StaleClaims(nil, locators), "without Node objects nobody is known to be gone")
}

func TestReleaseStale(t *testing.T) {
	m := memory{claims: map[netip.Prefix]string{locator(3): "gone"}}
	require.NoError(t, ReleaseStale(t.Context(), &m, Claim{locator(3), "gone"}))
	require.NoError(t, ReleaseStale(t.Context(), &m, Claim{locator(3), "gone"}))
	assert.Empty(t, m.claims)
	assert.Equal(t, []string{"unpublish gone", "release fcbb:bb00:3::/48"}, m.log[:2], "facts first: nobody may send to a locator that is free")

	m = memory{claims: map[netip.Prefix]string{locator(3): "new"}}
	assert.ErrorIs(t, ReleaseStale(t.Context(), &m, Claim{locator(3), "gone"}), ErrNotHeld)
}

func TestSIDs(t *testing.T) {
	assert.Equal(t, []cluster.SID{
		{SID: netip.MustParsePrefix("fcbb:bb00:a::/48"), Behaviour: dataplane.BehaviourUN},
		{SID: netip.MustParsePrefix("fcbb:bb00:a:e004::/128"), Behaviour: dataplane.BehaviourDT4},
		{SID: netip.MustParsePrefix("fcbb:bb00:a:e006::/128"), Behaviour: dataplane.BehaviourDT6},
	}, SIDs(locator(10)))
}

func TestNodeObjectAndBack(t *testing.T) {
	n := cluster.SRv6Node{
		Name:        "n1",
		EncapSource: netip.MustParseAddr("fd00:1::1"),
		Locator:     locator(1),
		SIDs:        SIDs(locator(1)),
		Prefixes:    []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:10:1::/64")},
	}
	o := NodeObject(n, v1alpha1.SRv6NodeStatus{Dataplane: "vpp"})
	assert.Equal(t, "fcbb:bb00:1:e004::", o.Spec.SIDs[1].SID)
	back, errs := NodeFacts(o)
	require.Empty(t, errs)
	assert.Equal(t, n, back)
	_, errs = NodeFacts(NodeObject(cluster.SRv6Node{Name: "n1"}, v1alpha1.SRv6NodeStatus{}))
	assert.NotEmpty(t, errs, "facts without an address or a locator")
}

func TestSIDText(t *testing.T) {
	assert.Equal(t, "fcbb:bb00:a::/48", SIDText(locator(10)))
	assert.Equal(t, "fcbb:bb00:a:e004::", SIDText(functionSID(locator(10), FunctionDT4)))
}
