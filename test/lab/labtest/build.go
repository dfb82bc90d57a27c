// Package labtest is what tests of and with the lab share.
package labtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// programs are what a lab needs, as `make build` makes them.
var programs = map[string]string{
	"sidewinder-agent": "github.com/sidewinder-net/sidewinder/agent",
	"sidewinder-cni":   "github.com/sidewinder-net/sidewinder/cni",
	"vpp-manager":      "github.com/sidewinder-net/sidewinder/vpp-manager",
	"sidewinder-lab":   "github.com/sidewinder-net/sidewinder/test/lab/cmd/sidewinder-lab",
	"host-local":       "github.com/containernetworking/plugins/plugins/ipam/host-local",
}

// Builder builds the programs once for all tests of a package.
type Builder struct {
	once sync.Once
	dir  string
	err  error
	out  []byte
}

// Dir gives the directory of the programs; every user may read it.
func (b *Builder) Dir(tb testing.TB) string {
	tb.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		tb.Skip("needs the go tool on PATH to build the programs")
	}
	b.once.Do(func() {
		// Inside of a process tree the programs go with it, whatever happens.
		in, _ := tree.Current()
		if b.dir, b.err = os.MkdirTemp(in.Dir, "sidewinder-labtest-"); b.err != nil {
			return
		}
		if b.err = os.Chmod(b.dir, 0o755); b.err != nil {
			return
		}
		for name, pkg := range programs {
			if b.out, b.err = exec.Command(goTool, "build", "-o", filepath.Join(b.dir, name), pkg).CombinedOutput(); b.err != nil {
				return
			}
		}
	})
	if b.err != nil {
		tb.Fatalf("build: %v\n%s", b.err, b.out)
	}
	return b.dir
}

// Clean removes the programs: at the end of TestMain.
func (b *Builder) Clean() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
