package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// ErrUnreadable: a file cannot be used that may hold a claim.
var ErrUnreadable = errors.New("a file of objects cannot be used")

// nodeFile is the file with a node's published facts. Validated names hold no
// slash and no leading dot.
func nodeFile(node string) string { return "srv6node-" + node + ".yaml" }

// locatorFile is the file with the claim on a locator: one name for each locator,
// so that creating the file is the lock.
func locatorFile(c publish.Claim) string {
	return "srv6locator-" + v1alpha1.LocatorName(c.Locator) + ".yaml"
}

// Inventory implements publish.Store.
func (s *Source) Inventory(ctx context.Context) (publish.Inventory, error) {
	if err := ctx.Err(); err != nil {
		return publish.Inventory{}, err
	}
	v, err := s.folder.scan()
	if err != nil {
		return publish.Inventory{}, err
	}
	var inv publish.Inventory
	if len(v.problems) > 0 {
		inv.Incomplete = fmt.Errorf("%w, and it may hold a claim: %s", ErrUnreadable, v.problems[0])
	}
	for _, e := range v.entries {
		if c, ok := e.Claim(); ok {
			inv.Claims = append(inv.Claims, c)
		}
		if c, ok := e.Published(); ok {
			inv.Published = append(inv.Published, c)
		}
	}
	return inv, nil
}

// CreateClaim implements publish.Store: the claim is written to a temporary file
// and linked to its name, which fails when the name is there.
func (s *Source) CreateClaim(ctx context.Context, c publish.Claim) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := publish.LocatorObject(c)
	if errs := o.Validate(); len(errs) > 0 {
		return fmt.Errorf("claim on %s: %w", c.Locator, errs.Err())
	}
	text, err := yaml.Marshal(o)
	if err != nil {
		return fmt.Errorf("claim on %s: %w", c.Locator, err)
	}
	s.write.Lock()
	defer s.write.Unlock()
	path := filepath.Join(s.cfg.Dir, locatorFile(c))
	// Only to save the work: the link below decides.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, publish.ErrTaken)
	}
	tmp, err := s.writeTemp("claim-"+c.Node, text)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, publish.ErrTaken)
	} else if err != nil {
		return fmt.Errorf("claim on %s: %w", c.Locator, err)
	}
	return s.syncDir()
}

// ReleaseClaim implements publish.Store. The file is moved aside before it is
// looked at a last time: what is removed is what was looked at. If another node's
// claim turns out to be in it, it is put back.
func (s *Source) ReleaseClaim(ctx context.Context, c publish.Claim) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	path := filepath.Join(s.cfg.Dir, locatorFile(c))
	if err := checkHolder(path, c); errors.Is(err, fs.ErrNotExist) {
		return s.releasedElsewhere(c)
	} else if err != nil {
		return err
	}
	aside, err := s.tempName("release-" + s.cfg.NodeName)
	if err != nil {
		return err
	}
	if err := os.Rename(path, aside); errors.Is(err, fs.ErrNotExist) {
		os.Remove(aside)
		return nil
	} else if err != nil {
		os.Remove(aside)
		return fmt.Errorf("releasing %s: %w", c.Locator, err)
	}
	if err := checkHolder(aside, c); err != nil {
		if lerr := os.Link(aside, path); lerr != nil {
			return errors.Join(err, fmt.Errorf("putting %s back from %s: %w", path, aside, lerr))
		}
		os.Remove(aside)
		return err
	}
	if err := os.Remove(aside); err != nil {
		return fmt.Errorf("releasing %s: %w", c.Locator, err)
	}
	return s.syncDir()
}

// checkHolder reads the file and compares it with the claim.
func checkHolder(path string, c publish.Claim) error {
	text, _, err := readText(path)
	if err != nil {
		return fmt.Errorf("releasing %s: %w", c.Locator, err)
	}
	entries, problems := parse(filepath.Base(path), text)
	if len(problems) > 0 {
		return fmt.Errorf("releasing %s: %w: %s", c.Locator, publish.ErrNotHeld, problems[0])
	}
	if len(entries) == 1 {
		if found, ok := entries[0].Claim(); ok {
			if found == c {
				return nil
			}
			return fmt.Errorf("releasing %s of node %s: %s says that node %s holds %s: %w", c.Locator, c.Node, path, found.Node, found.Locator, publish.ErrNotHeld)
		}
	}
	return fmt.Errorf("releasing %s: %s holds more than the claim; edit it by hand: %w", c.Locator, path, publish.ErrNotHeld)
}

// releasedElsewhere: the claim's own file is gone. A claim that somebody wrote
// into another file is not ours to remove.
func (s *Source) releasedElsewhere(c publish.Claim) error {
	v, err := s.folder.scan()
	if err != nil {
		return err
	}
	for _, e := range v.entries {
		if found, ok := e.Claim(); ok && found == c && e.File() != locatorFile(c) {
			return fmt.Errorf("releasing %s of node %s: the claim is at %s, not in a file of its own; remove it by hand: %w", c.Locator, c.Node, e.Place(), publish.ErrNotHeld)
		}
	}
	return nil
}

// PublishNode implements publish.Store.
func (s *Source) PublishNode(ctx context.Context, n cluster.SRv6Node, st v1alpha1.SRv6NodeStatus) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := publish.NodeObject(n, st)
	if errs := o.Validate(); len(errs) > 0 {
		return fmt.Errorf("publishing node %s: %w", n.Name, errs.Err())
	}
	text, err := yaml.Marshal(o)
	if err != nil {
		return fmt.Errorf("publishing node %s: %w", n.Name, err)
	}
	s.write.Lock()
	defer s.write.Unlock()
	path := filepath.Join(s.cfg.Dir, nodeFile(n.Name))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	tmp, err := s.writeTemp("srv6node-"+n.Name, text)
	if err != nil {
		return fmt.Errorf("publishing node %s: %w", n.Name, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("publishing node %s: %w", n.Name, err)
	}
	return s.syncDir()
}

// UnpublishNode implements publish.Store.
func (s *Source) UnpublishNode(ctx context.Context, node string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var errs v1alpha1.FieldErrors
	if errs.CheckName("name", node); len(errs) > 0 {
		return fmt.Errorf("removing the facts of node %q: %w", node, errs.Err())
	}
	s.write.Lock()
	defer s.write.Unlock()
	err := os.Remove(filepath.Join(s.cfg.Dir, nodeFile(node)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing the facts of node %s: %w", node, err)
	}
	return s.syncDir()
}

// writeTemp writes a temporary file in the folder, to the disk, and removes what
// a crash left of earlier ones. The writer part of the name is this agent's
// alone.
func (s *Source) writeTemp(writer string, text []byte) (string, error) {
	path, err := s.tempName(writer)
	if err != nil {
		return "", err
	}
	h, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = h.Write(text)
		err = errors.Join(err, h.Chmod(0o644), h.Sync(), h.Close())
	}
	if err != nil {
		os.Remove(path)
		return "", fmt.Errorf("writing to the folder of objects: %w", err)
	}
	return path, nil
}

// tempName makes an empty temporary file: .writer.123.tmp.
func (s *Source) tempName(writer string) (string, error) {
	old, err := filepath.Glob(filepath.Join(escapeGlob(s.cfg.Dir), "."+writer+".*.tmp"))
	if err == nil {
		for _, path := range old {
			random := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "."+writer+"."), ".tmp")
			if strings.Trim(random, "0123456789") == "" {
				os.Remove(path)
			}
		}
	}
	h, err := os.CreateTemp(s.cfg.Dir, "."+writer+".*.tmp")
	if err != nil {
		return "", fmt.Errorf("writing to the folder of objects: %w", err)
	}
	return h.Name(), h.Close()
}

// escapeGlob makes a path mean itself in a glob pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// syncDir writes the folder's names to the disk.
func (s *Source) syncDir() error {
	d, err := os.Open(s.cfg.Dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("writing the folder of objects to the disk: %w", err)
	}
	return nil
}
