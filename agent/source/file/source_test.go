package file

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/source"
)

var block = netip.MustParsePrefix("fcbb:bb00::/32")

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

func newSource(dir, node string) *Source {
	return New(Config{Dir: dir, NodeName: node, Block: block, Relist: time.Minute}, quiet())
}

// running is a source that watches, until the test ends.
func running(t *testing.T, dir string, relist time.Duration) *Source {
	t.Helper()
	return start(t, New(Config{Dir: dir, NodeName: "self", Block: block, Relist: relist}, quiet()))
}

// patient is a running source that waits long before it gives up a file, so that
// a slow machine does not change what a test shows.
func patient(t *testing.T, dir string) *Source {
	t.Helper()
	s := New(Config{Dir: dir, NodeName: "self", Block: block, Relist: 50 * time.Millisecond}, quiet())
	s.folder.grace = time.Minute
	return start(t, s)
}

func start(t *testing.T, s *Source) *Source {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			assert.NoError(t, err)
		case <-time.After(5 * time.Second):
			t.Error("Run does not end")
		}
	})
	return s
}

// until waits for changes until the condition holds.
func until(t *testing.T, s *Source, what string, ok func(source.Objects, bool) bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !ok(s.Objects()) {
		select {
		case <-s.Changed():
		case <-deadline:
			objs, synced := s.Objects()
			t.Fatalf("%s: not reached; synced %v, objects %+v, errors %v", what, synced, objs, texts(s.Errors()))
		}
	}
}

func asText(v any) string { return fmt.Sprint(v) }

func synced(_ source.Objects, synced bool) bool { return synced }

func nodes(want ...string) func(source.Objects, bool) bool {
	return func(o source.Objects, synced bool) bool {
		if !synced || len(o.Nodes) != len(want) {
			return false
		}
		for _, n := range want {
			if _, ok := o.Nodes[n]; !ok {
				return false
			}
		}
		return true
	}
}

func untilErrors(t *testing.T, s *Source, want ...string) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !slices.Equal(texts(s.Errors()), want) {
		select {
		case <-s.Changed():
		case <-deadline:
			require.Equal(t, want, texts(s.Errors()))
		}
	}
}

func nodeYAML(name, cidr, address string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata:\n  name: %s\nspec:\n  podCIDRs: [%q]\nstatus:\n  addresses:\n  - {type: InternalIP, address: %q}\n", name, cidr, address)
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	s := running(t, dir, time.Minute)
	until(t, s, "an empty folder is a good state", synced)

	write(t, dir, "n1.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	until(t, s, "a new file", nodes("n1"))

	write(t, dir, "n1.yaml", nodeYAML("n1", "10.9.0.0/24", "192.0.2.1"))
	until(t, s, "a changed file", func(o source.Objects, _ bool) bool {
		return asText(o.Nodes["n1"].PodCIDRs) == "[10.9.0.0/24]"
	})

	write(t, dir, ".n2.yaml.tmp", nodeYAML("n2", "10.2.0.0/24", "192.0.2.2"))
	require.NoError(t, os.Rename(filepath.Join(dir, ".n2.yaml.tmp"), filepath.Join(dir, "n2.json")))
	until(t, s, "a file moved in", nodes("n1", "n2"))

	require.NoError(t, os.Rename(filepath.Join(dir, "n2.json"), filepath.Join(dir, "other.yml")))
	write(t, dir, ".hidden.yaml", nodeYAML("n3", "10.3.0.0/24", "192.0.2.3"))
	write(t, dir, "notes.txt", "no YAML: at: all")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o755))
	require.NoError(t, os.Remove(filepath.Join(dir, "n1.yaml")))
	until(t, s, "a file removed, another renamed, others to be ignored", nodes("n2"))
	untilErrors(t, s)
}

func TestLastGoodFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "n1.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s := running(t, dir, time.Minute)
	until(t, s, "start", nodes("n1"))

	write(t, dir, "n1.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1, nam\n")
	untilErrors(t, s, "n1.yaml:3: not YAML: did not find expected ',' or '}'")
	// Other files go on, and this one's last good objects stay.
	write(t, dir, "n2.yaml", nodeYAML("n2", "10.2.0.0/24", "192.0.2.2"))
	until(t, s, "the other file", nodes("n1", "n2"))

	write(t, dir, "n1.yaml", "")
	untilErrors(t, s, "n1.yaml:1: holds no object (remove the file to remove what it held before)")
	assert.True(t, nodes("n1", "n2")(s.Objects()))

	write(t, dir, "n1.yaml", nodeYAML("n3", "10.3.0.0/24", "192.0.2.3"))
	until(t, s, "good again", nodes("n2", "n3"))
	untilErrors(t, s)

	// A file that goes bad and away takes its objects along.
	write(t, dir, "n1.yaml", "x")
	untilErrors(t, s, "n1.yaml:1: is not an object with apiVersion and kind")
	require.NoError(t, os.Remove(filepath.Join(dir, "n1.yaml")))
	until(t, s, "removed", nodes("n2"))
	untilErrors(t, s)
}

// A file that is gone may have been moved into one that cannot be used yet,
// whether that is new or was there before.
func TestMovedIntoAFileThatIsHalfWritten(t *testing.T) {
	const half = "\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n2}\nspec: {podCIDRs: ["
	for name, c := range map[string]struct{ file, before string }{
		"new":   {"nodes.yaml", ""},
		"known": {"a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			now := time.Unix(1_700_000_000, 0)
			write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
			write(t, dir, "b.yaml", nodeYAML("n2", "10.2.0.0/24", "192.0.2.2"))
			s := newSource(dir, "self")
			s.folder.now = func() time.Time { return now }
			s.refresh()
			require.True(t, nodes("n1", "n2")(s.Objects()))

			// Already going when the other file turns bad.
			require.NoError(t, os.Remove(filepath.Join(dir, "b.yaml")))
			require.Equal(t, now.Add(removalGrace), s.refresh())
			write(t, dir, c.file, c.before+half)
			for range 3 {
				now = now.Add(time.Hour)
				require.Zero(t, s.refresh(), "nothing is about to happen")
				require.True(t, nodes("n1", "n2")(s.Objects()), "n2 may be in the file that cannot be used")
			}
			require.Len(t, s.Errors(), 2)
			require.Contains(t, texts(s.Errors()), "b.yaml: is gone; 1 of its objects stay in force, because a file that cannot be used may hold them now (correct or remove the files that cannot be used)")

			// It did not hold them: now the grace begins.
			write(t, dir, c.file, c.before+"\n---\n"+nodeYAML("n3", "10.3.0.0/24", "192.0.2.3"))
			again := s.refresh()
			require.Equal(t, now.Add(removalGrace), again)
			require.True(t, nodes("n1", "n2", "n3")(s.Objects()))
			now = again
			s.refresh()
			require.True(t, nodes("n1", "n3")(s.Objects()))
			require.Empty(t, s.Errors())
		})
	}
}

func TestMovedIntoAFileThatGetsGood(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s := running(t, dir, 20*time.Millisecond)
	until(t, s, "start", nodes("n1"))
	whole := nodeYAML("n1", "10.1.0.0/24", "192.0.2.1")
	write(t, dir, "b.yaml", whole[:len(whole)/2]+"[")
	require.NoError(t, os.Remove(filepath.Join(dir, "a.yaml")))
	time.Sleep(3 * removalGrace)
	require.True(t, nodes("n1")(s.Objects()))
	write(t, dir, "b.yaml", whole)
	untilErrors(t, s)
	require.True(t, nodes("n1")(s.Objects()))
}

func TestContradictionKeepsTheWholeState(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s := running(t, dir, time.Minute)
	until(t, s, "start", nodes("n1"))

	write(t, dir, "b.yaml", nodeYAML("n2", "10.1.0.128/25", "192.0.2.2"))
	const want = "b.yaml:6: Node/n2: spec.podCIDRs[0]: 10.1.0.128/25 overlaps 10.1.0.0/24 of Node/n1, spec.podCIDRs[0] at a.yaml:6 (give each address to one of the two)"
	untilErrors(t, s, want)
	write(t, dir, "c.yaml", nodeYAML("n3", "10.3.0.0/24", "192.0.2.3"))
	time.Sleep(3 * debounce)
	assert.True(t, nodes("n1")(s.Objects()), "nothing moves before it is resolved")

	write(t, dir, "b.yaml", nodeYAML("n2", "10.2.0.0/24", "192.0.2.2"))
	until(t, s, "resolved", nodes("n1", "n2", "n3"))
	untilErrors(t, s)
}

func TestNotSyncedBeforeAllWasGood(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	write(t, dir, "b.yaml", "kind: [")
	s := running(t, dir, time.Minute)
	untilErrors(t, s, "b.yaml:2: not YAML: did not find expected node content")
	objs, isSynced := s.Objects()
	assert.False(t, isSynced, "the objects of b.yaml are unknown")
	assert.Contains(t, objs.Nodes, "n1", "what is known can be used, but nothing removed by it")

	write(t, dir, "b.yaml", nodeYAML("n1", "10.2.0.0/24", "192.0.2.2"))
	untilErrors(t, s, "b.yaml:4: Node/n1: metadata.name: is defined a second time; the first is at a.yaml:4 (keep one of the two)")
	_, isSynced = s.Objects()
	assert.False(t, isSynced)

	write(t, dir, "b.yaml", nodeYAML("n2", "10.2.0.0/24", "192.0.2.2"))
	until(t, s, "all good", nodes("n1", "n2"))
}

func TestFolderGoesAndComes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	s := running(t, dir, 50*time.Millisecond)
	untilErrors(t, s, dir+": no such file or directory (make the folder readable; until then the last good objects stay in force)")
	_, isSynced := s.Objects()
	assert.False(t, isSynced)

	require.NoError(t, os.Mkdir(dir, 0o755))
	write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	until(t, s, "the folder is made", nodes("n1"))

	// Gone as a whole: an accident, not a cluster without nodes.
	require.NoError(t, os.Rename(dir, dir+".old"))
	untilErrors(t, s, dir+": no such file or directory (make the folder readable; until then the last good objects stay in force)")
	assert.True(t, nodes("n1")(s.Objects()))

	require.NoError(t, os.Mkdir(dir, 0o755))
	write(t, dir, "a.yaml", nodeYAML("n2", "10.1.0.0/24", "192.0.2.1"))
	until(t, s, "another folder", nodes("n2"))
	write(t, dir, "b.yaml", nodeYAML("n3", "10.3.0.0/24", "192.0.2.3"))
	until(t, s, "the new folder is followed", nodes("n2", "n3"))
}

// A folder that loses its files one by one while it is removed must not be taken
// for a cluster without nodes.
func TestFolderRemovedWithItsFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	require.NoError(t, os.Mkdir(dir, 0o755))
	for i := range 20 {
		write(t, dir, fmt.Sprintf("n%d.yaml", i), nodeYAML(fmt.Sprintf("n%d", i), fmt.Sprintf("10.1.%d.0/24", i), fmt.Sprintf("192.0.2.%d", i)))
	}
	s := patient(t, dir)
	until(t, s, "start", func(o source.Objects, ok bool) bool { return ok && len(o.Nodes) == 20 })
	require.NoError(t, os.RemoveAll(dir))
	untilErrors(t, s, dir+": no such file or directory (make the folder readable; until then the last good objects stay in force)")
	objs, _ := s.Objects()
	assert.Len(t, objs.Nodes, 20)
}

// Kubernetes mounts a ConfigMap as links through a ..data link that is swapped.
func TestConfigMapSwap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, node string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		write(t, filepath.Join(dir, name), "nodes.yaml", nodeYAML(node, "10.1.0.0/24", "192.0.2.1"))
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("..2025_01", "n1")
	require.NoError(t, os.Symlink("..data/nodes.yaml", filepath.Join(dir, "nodes.yaml")))
	s := running(t, dir, time.Minute)
	until(t, s, "first version", nodes("n1"))
	version("..2025_02", "n2")
	until(t, s, "second version", nodes("n2"))
}

// Editors move the old file to a backup, write a new one, then remove the backup.
func TestEditorsDoNotRemove(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s := patient(t, dir)
	until(t, s, "start", nodes("n1"))
	require.NoError(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "a.yaml~")))
	time.Sleep(2 * debounce)
	assert.True(t, nodes("n1")(s.Objects()), "gone for a moment only")
	write(t, dir, "a.yaml", nodeYAML("n1", "10.9.0.0/24", "192.0.2.1"))
	until(t, s, "written anew", func(o source.Objects, _ bool) bool {
		return asText(o.Nodes["n1"].PodCIDRs) == "[10.9.0.0/24]"
	})
	untilErrors(t, s)
}

func TestRelistFindsWhatWasNotSignalled(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere, "a", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "a"), filepath.Join(dir, "a.yaml")))
	s := running(t, dir, 50*time.Millisecond)
	until(t, s, "start", nodes("n1"))
	write(t, elsewhere, "a", nodeYAML("n2", "10.1.0.0/24", "192.0.2.1"))
	until(t, s, "the file behind the link", nodes("n2"))
}

func TestUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "a.yaml")))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "b.yaml")))
	s := newSource(dir, "self")
	s.refresh()
	assert.Equal(t, []string{
		"a.yaml: cannot be read: no such file or directory",
		"b.yaml: cannot be read: is not a regular file",
	}, texts(s.Errors()))
	_, isSynced := s.Objects()
	assert.False(t, isSynced)
}

func TestUnchangedFilesGiveNoSignal(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s := newSource(dir, "self")
	s.refresh()
	<-s.Changed()
	write(t, dir, "a.yaml", "# a comment\n"+nodeYAML("n1", "10.1.0.0/24", "192.0.2.1"))
	s.refresh()
	select {
	case <-s.Changed():
		t.Fatal("the same objects were signalled as a change")
	default:
	}
}

// A write within one tick of the kernel's clock and of the same length leaves the
// file's stamp as it was.
func TestQuickRewriteIsSeen(t *testing.T) {
	dir := t.TempDir()
	s := newSource(dir, "self")
	for i := range 50 {
		name := fmt.Sprintf("n%02d", i)
		write(t, dir, "a.yaml", nodeYAML(name, "10.1.0.0/24", "192.0.2.1"))
		s.refresh()
		objs, _ := s.Objects()
		require.Contains(t, objs.Nodes, name)
	}
}

// Whatever the order in which files are written, and whatever they are called,
// equal files give equal Objects.
func TestOrderMakesNoDifference(t *testing.T) {
	var files []string
	for i := 1; i <= 6; i++ {
		files = append(files,
			nodeYAML(fmt.Sprintf("n%d", i), fmt.Sprintf("10.1.%d.0/24", i), fmt.Sprintf("192.0.2.%d", i)),
			fmt.Sprintf("apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Locator\nmetadata: {name: fcbb-bb00-000%d}\nspec: {locator: \"fcbb:bb00:%d::/48\", nodeName: n%d}\n", i, i, i),
			fmt.Sprintf("apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Node\nmetadata: {name: n%d}\nspec: {locator: \"fcbb:bb00:%d::/48\", encapSource: \"fd00::%d\", sids: [], prefixes: [10.1.%d.0/24]}\n", i, i, i, i))
	}
	var first source.Objects
	for round := range 10 {
		dir := t.TempDir()
		for i, f := range rand.Perm(len(files)) {
			write(t, dir, fmt.Sprintf("%02d.yaml", i), files[f])
		}
		s := newSource(dir, "n1")
		s.refresh()
		objs, isSynced := s.Objects()
		require.True(t, isSynced, "%v", texts(s.Errors()))
		if round == 0 {
			first = objs
			require.Len(t, first.SRv6Nodes, 6)
			continue
		}
		require.Equal(t, first, objs)
	}
}
