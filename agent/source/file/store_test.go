package file

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

func locator(id uint16) netip.Prefix { return v1alpha1.Locator(block, id) }

func facts(name string, id uint16, prefixes ...string) cluster.SRv6Node {
	n := cluster.SRv6Node{
		Name: name, EncapSource: netip.MustParseAddr(fmt.Sprintf("fd00::%x", id)),
		Locator: locator(id), SIDs: publish.SIDs(locator(id)),
	}
	for _, p := range prefixes {
		n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(p))
	}
	return n
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestManyClaimersAtOnce(t *testing.T) {
	const claimers, restarts = 200, 50
	dir := t.TempDir()
	round := func(n int) map[string]netip.Prefix {
		var (
			wg    sync.WaitGroup
			mu    sync.Mutex
			got   = map[string]netip.Prefix{}
			start = make(chan struct{})
		)
		for i := range n {
			wg.Go(func() {
				name := fmt.Sprintf("n%d", i)
				s := newSource(dir, name) // each is an agent of its own
				<-start
				l, err := publish.ClaimLocator(context.Background(), s, block, name)
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				got[name] = l
				mu.Unlock()
			})
		}
		close(start)
		wg.Wait()
		return got
	}
	first := round(claimers)
	require.Len(t, first, claimers)
	holders := map[netip.Prefix]string{}
	for name, l := range first {
		assert.Empty(t, holders[l], "%s is held by %s too", l, name)
		holders[l] = name
		assert.LessOrEqual(t, v1alpha1.NodeID(l), uint16(claimers), "the lowest IDs are taken")
	}
	again := round(restarts)
	require.Len(t, again, restarts)
	for name, l := range again {
		assert.Equal(t, first[name], l, "a restart finds the same locator")
	}
	assert.Len(t, names(t, dir), claimers, "no temporary files are left")
	s := newSource(dir, "n0")
	s.refresh()
	objs, isSynced := s.Objects()
	require.True(t, isSynced, "%v", texts(s.Errors()))
	assert.Equal(t, holders, objs.Locators)
}

func TestClaimFile(t *testing.T) {
	dir := t.TempDir()
	s := newSource(dir, "n1")
	require.NoError(t, s.CreateClaim(t.Context(), publish.Claim{Locator: locator(1), Node: "n1"}))
	text, err := os.ReadFile(filepath.Join(dir, "srv6locator-fcbb-bb00-0001.yaml"))
	require.NoError(t, err)
	assert.Equal(t, `apiVersion: sidewinder.io/v1alpha1
kind: SRv6Locator
metadata:
  name: fcbb-bb00-0001
spec:
  locator: fcbb:bb00:1::/48
  nodeName: n1
`, string(text))
	assert.ErrorIs(t, s.CreateClaim(t.Context(), publish.Claim{Locator: locator(1), Node: "n2"}), publish.ErrTaken)
	assert.ErrorContains(t, s.CreateClaim(t.Context(), publish.Claim{Locator: locator(2), Node: "../n2"}), `spec.nodeName: "../n2" is not a name`)
	assert.ErrorContains(t, s.CreateClaim(t.Context(), publish.Claim{Locator: block, Node: "n2"}), "is not an IPv6 /48")
	assert.Len(t, names(t, dir), 1)
}

func TestClaimWrittenByHandCounts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "plan.yaml", "apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Locator\nmetadata: {name: fcbb-bb00-0001}\nspec: {locator: \"fcbb:bb00:1::/48\", nodeName: n9}\n")
	l, err := publish.ClaimLocator(t.Context(), newSource(dir, "n1"), block, "n1")
	require.NoError(t, err)
	assert.Equal(t, locator(2), l)
	l, err = publish.ClaimLocator(t.Context(), newSource(dir, "n9"), block, "n9")
	require.NoError(t, err)
	assert.Equal(t, locator(1), l)

	err = newSource(dir, "n1").ReleaseClaim(t.Context(), publish.Claim{Locator: locator(1), Node: "n9"})
	require.ErrorIs(t, err, publish.ErrNotHeld)
	assert.ErrorContains(t, err, "the claim is at plan.yaml:3, not in a file of its own; remove it by hand")
}

func TestNoClaimWhileAFileIsUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "plan.yaml", "apiVersion: [")
	_, err := publish.ClaimLocator(t.Context(), newSource(dir, "n1"), block, "n1")
	require.ErrorIs(t, err, ErrUnreadable)
	assert.EqualError(t, err, "claiming a locator for node n1: a file of objects cannot be used, and it may hold a claim: plan.yaml:2: not YAML: did not find expected node content")
	assert.Equal(t, []string{"plan.yaml"}, names(t, dir))

	// A node that can see its claim goes on.
	require.NoError(t, newSource(dir, "n2").CreateClaim(t.Context(), publish.Claim{Locator: locator(2), Node: "n2"}))
	l, err := publish.ClaimLocator(t.Context(), newSource(dir, "n2"), block, "n2")
	require.NoError(t, err)
	assert.Equal(t, locator(2), l)

	_, err = publish.ClaimLocator(t.Context(), newSource(filepath.Join(dir, "none"), "n1"), block, "n1")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestReleaseClaim(t *testing.T) {
	dir := t.TempDir()
	s := newSource(dir, "n1")
	claim := publish.Claim{Locator: locator(1), Node: "gone"}
	require.NoError(t, s.CreateClaim(t.Context(), claim))
	require.ErrorIs(t, s.ReleaseClaim(t.Context(), publish.Claim{Locator: locator(1), Node: "n2"}), publish.ErrNotHeld)
	assert.Len(t, names(t, dir), 1)
	require.NoError(t, s.ReleaseClaim(t.Context(), claim))
	assert.Empty(t, names(t, dir))
	require.NoError(t, s.ReleaseClaim(t.Context(), claim), "releasing what is gone succeeds")

	// A file that holds more than the claim is somebody's work.
	write(t, dir, "srv6locator-fcbb-bb00-0001.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	require.ErrorIs(t, s.ReleaseClaim(t.Context(), claim), publish.ErrNotHeld)
	assert.Len(t, names(t, dir), 1)
}

// Many agents see the same stale claim while its locator is claimed anew: the new
// holder's claim must survive.
func TestReleaseAgainstClaim(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		old := publish.Claim{Locator: locator(1), Node: "gone"}
		require.NoError(t, newSource(dir, "x").CreateClaim(t.Context(), old))
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				err := newSource(dir, fmt.Sprintf("r%d", i)).ReleaseClaim(context.Background(), old)
				if err != nil {
					assert.ErrorIs(t, err, publish.ErrNotHeld)
				}
			})
		}
		var got netip.Prefix
		wg.Go(func() {
			var err error
			got, err = publish.ClaimLocator(context.Background(), newSource(dir, "new"), block, "new")
			assert.NoError(t, err)
		})
		wg.Wait()
		inv, err := newSource(dir, "x").Inventory(t.Context())
		require.NoError(t, err)
		require.Equal(t, []publish.Claim{{Locator: got, Node: "new"}}, inv.Claims)
		require.Len(t, names(t, dir), 1)
	}
}

func TestPublishNode(t *testing.T) {
	dir := t.TempDir()
	s := newSource(dir, "n1")
	st := v1alpha1.SRv6NodeStatus{Dataplane: "linux", DataplaneVersion: "6.18.0"}
	require.NoError(t, s.PublishNode(t.Context(), facts("n1", 1, "10.1.0.0/24", "fd00:10:1::/64"), st))
	path := filepath.Join(dir, "srv6node-n1.yaml")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, `apiVersion: sidewinder.io/v1alpha1
kind: SRv6Node
metadata:
  name: n1
spec:
  encapSource: fd00::1
  locator: fcbb:bb00:1::/48
  prefixes:
  - 10.1.0.0/24
  - fd00:10:1::/64
  sids:
  - behaviour: uN
    sid: fcbb:bb00:1::/48
  - behaviour: End.DT4
    sid: 'fcbb:bb00:1:e004::'
  - behaviour: End.DT6
    sid: 'fcbb:bb00:1:e006::'
status:
  dataplane: linux
  dataplaneVersion: 6.18.0
`, string(text))

	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, s.PublishNode(t.Context(), facts("n1", 1, "10.1.0.0/24", "fd00:10:1::/64"), st))
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "what has not changed is not written")

	// A crash may have left temporary files: the next writing removes this
	// node's own, not those of a node with a longer name.
	write(t, dir, ".srv6node-n1.77.tmp", "half")
	write(t, dir, ".srv6node-n1.example.77.tmp", "half")
	require.NoError(t, s.PublishNode(t.Context(), facts("n1", 1, "10.2.0.0/24"), st))
	assert.Equal(t, []string{".srv6node-n1.example.77.tmp", "srv6node-n1.yaml"}, names(t, dir))

	s.refresh()
	objs, isSynced := s.Objects()
	require.True(t, isSynced, "%v", texts(s.Errors()))
	assert.Equal(t, map[string]cluster.SRv6Node{"n1": facts("n1", 1, "10.2.0.0/24")}, objs.SRv6Nodes)

	require.NoError(t, s.UnpublishNode(t.Context(), "n1"))
	require.NoError(t, s.UnpublishNode(t.Context(), "n1"))
	assert.Error(t, s.UnpublishNode(t.Context(), "../n1"))
	assert.ErrorContains(t, s.PublishNode(t.Context(), cluster.SRv6Node{Name: "n1"}, st), "publishing node n1: spec.encapSource: ")
}

// Two nodes that swap their prefixes in one edit must both get to publish.
func TestPrefixSwapIsNotADeadlock(t *testing.T) {
	dir := t.TempDir()
	nodesFile := func(cidr1, cidr2 string) {
		write(t, dir, "nodes.yaml", nodeYAML("n1", cidr1, "192.0.2.1")+"---\n"+nodeYAML("n2", cidr2, "192.0.2.2"))
	}
	nodesFile("10.1.0.0/24", "10.2.0.0/24")
	n1, n2, n3 := newSource(dir, "n1"), newSource(dir, "n2"), newSource(dir, "n3")
	publishOwn := func(s *Source, name string, id uint16) {
		s.refresh()
		objs, isSynced := s.Objects()
		require.True(t, isSynced, "%s: %v", name, texts(s.Errors()))
		require.NoError(t, s.PublishNode(t.Context(), facts(name, id, objs.Nodes[name].PodCIDRs[0].String()), v1alpha1.SRv6NodeStatus{}))
	}
	publishOwn(n1, "n1", 1)
	publishOwn(n2, "n2", 2)
	n3.refresh()
	require.Empty(t, n3.Errors())

	nodesFile("10.2.0.0/24", "10.1.0.0/24")
	publishOwn(n1, "n1", 1)
	n3.refresh()
	assert.Empty(t, n3.Errors(), "a third node does not wait for n2: its agent may be down")
	objs, _ := n3.Objects()
	assert.Equal(t, "[10.2.0.0/24]", asText(objs.Nodes["n1"].PodCIDRs))
	assert.Equal(t, "[10.2.0.0/24]", asText(objs.SRv6Nodes["n1"].Prefixes))
	publishOwn(n2, "n2", 2)
	for name, s := range map[string]*Source{"n1": n1, "n2": n2, "n3": n3} {
		s.refresh()
		require.Empty(t, s.Errors(), name)
		objs, _ := s.Objects()
		assert.Equal(t, "[10.2.0.0/24]", asText(objs.SRv6Nodes["n1"].Prefixes))
		assert.Equal(t, "[10.1.0.0/24]", asText(objs.SRv6Nodes["n2"].Prefixes))
	}
}

func TestReleaseStaleEndToEnd(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "nodes.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s := newSource(dir, "n1")
	for i, name := range []string{"n1", "gone"} {
		l, err := publish.ClaimLocator(t.Context(), newSource(dir, name), block, name)
		require.NoError(t, err)
		require.Equal(t, locator(uint16(i+1)), l)
		require.NoError(t, newSource(dir, name).PublishNode(t.Context(), facts(name, uint16(i+1), fmt.Sprintf("10.%d.0.0/24", i+1)), v1alpha1.SRv6NodeStatus{}))
	}
	s.refresh()
	var objs source.Objects
	objs, _ = s.Objects()
	stale := publish.StaleClaims(objs.Nodes, objs.Locators)
	require.Equal(t, []publish.Claim{{Locator: locator(2), Node: "gone"}}, stale)
	require.NoError(t, publish.ReleaseStale(t.Context(), s, stale[0]))
	assert.Equal(t, []string{"nodes.yaml", "srv6locator-fcbb-bb00-0001.yaml", "srv6node-n1.yaml"}, names(t, dir))
}
