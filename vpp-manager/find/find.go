// Package find says which VPP would be used, and whether it is usable here.
package find

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
)

// Env is the environment variable that names VPP's executable.
const Env = "SIDEWINDER_VPP"

// ErrNotFound: there is no VPP where it was looked for.
var ErrNotFound = errors.New("VPP not found")

// VPP is an installed VPP.
type VPP struct {
	// Path of the executable.
	Path string
	// From says where the path comes from: "--vpp", Env or "PATH".
	From string
	// Version is VPP's own text; empty until it was probed.
	Version string
}

// Locate finds the executable: the explicit path if given, else the one in
// Env, else vpp on PATH. A path that was named and is not there is an error
// (ErrNotFound); the others are then not tried.
func Locate(explicit string) (VPP, error) {
	for _, c := range []struct{ path, from string }{{explicit, "--vpp"}, {os.Getenv(Env), Env}} {
		if c.path == "" {
			continue
		}
		path, err := filepath.Abs(c.path)
		if err != nil {
			return VPP{}, fmt.Errorf("%w: %s=%s: %w", ErrNotFound, c.from, c.path, err)
		}
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			path = filepath.Join(path, "bin", "vpp")
		}
		if _, err := exec.LookPath(path); err != nil {
			return VPP{}, fmt.Errorf("%w: %s=%s: %w", ErrNotFound, c.from, c.path, errors.Unwrap(err))
		}
		return VPP{Path: path, From: c.from}, nil
	}
	path, err := exec.LookPath("vpp")
	if err != nil {
		return VPP{}, fmt.Errorf("%w: there is no vpp on PATH, and %s is not set", ErrNotFound, Env)
	}
	if path, err = filepath.Abs(path); err != nil {
		return VPP{}, err
	}
	return VPP{Path: path, From: "PATH"}, nil
}

// Find locates VPP and tries it: it is started with nothing to do, asked for
// its version, checked for the messages that this program needs with the
// plugins of these groups, and stopped. That takes about a second.
func Find(ctx context.Context, explicit string, require ...binapi.Group) (VPP, error) {
	v, err := Locate(explicit)
	if err != nil {
		return VPP{}, err
	}
	dir, err := probeDir(os.TempDir(), "/tmp", "/run")
	if err != nil {
		return VPP{}, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conf := startup.Config{
		RunDir: dir, MainHeap: "128M", Buffers: 2048,
		Plugins: startup.InstalledPlugins(v.Path, startup.DefaultPlugins()),
	}
	p, err := supervise.Start(v.Path, conf)
	if err != nil {
		return VPP{}, fmt.Errorf("%s: %w", v.Path, err)
	}
	defer p.Stop(2 * time.Second)
	if v.Version, err = p.WaitReady(ctx, require...); err != nil {
		return VPP{}, fmt.Errorf("%s does not work here: %w", v.Path, err)
	}
	return v, nil
}

// probeDir makes a folder in the first of these parents in which VPP can work:
// that of TMPDIR may be too long for a Unix socket, or have characters that
// VPP's configuration cannot take.
func probeDir(parents ...string) (string, error) {
	var errs []error
	for _, parent := range parents {
		dir, err := makeDir(parent)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no folder to try VPP in; set TMPDIR: %w", errors.Join(errs...))
}

func makeDir(parent string) (string, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "vpp-probe-")
	if err != nil {
		return "", err
	}
	if err := startup.CheckRunDir(dir); err != nil {
		_ = os.Remove(dir)
		return "", err
	}
	return dir, nil
}
