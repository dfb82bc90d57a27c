package file

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// A folder of 5,000 nodes with a claim and published facts each: the first
// reading, and one after a single file has changed.
func BenchmarkFolder(b *testing.B) {
	dir := b.TempDir()
	put := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for i := 1; i <= 5000; i++ {
		name := fmt.Sprintf("n%d", i)
		l := v1alpha1.Locator(block, uint16(i))
		put(name+".yaml", nodeYAML(name, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("172.16.%d.%d", i>>8, i&255)))
		put(locatorFile(publish.Claim{Locator: l}), fmt.Sprintf("apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Locator\nmetadata: {name: %s}\nspec: {locator: %q, nodeName: %s}\n", v1alpha1.LocatorName(l), l.String(), name))
		put(nodeFile(name), fmt.Sprintf("apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Node\nmetadata: {name: %s}\nspec: {locator: %q, encapSource: \"fd00::%x\", sids: [], prefixes: [10.%d.%d.0/24]}\n", name, l.String(), i, i>>8, i&255))
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s := newSource(dir, "n1")
			s.refresh()
			if _, synced := s.Objects(); !synced {
				b.Fatal(texts(s.Errors()))
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		// Young files are read again until their change time tells writes
		// apart; a folder at rest is what is measured here.
		time.Sleep(racyAge + 100*time.Millisecond)
		s := newSource(dir, "n1")
		s.refresh()
		for i := 0; b.Loop(); i++ {
			put("n1.yaml", nodeYAML("n1", "10.0.1.0/24", fmt.Sprintf("172.30.%d.%d", i>>8&255, i&255)))
			s.refresh()
		}
	})
}
