// Package rules checks by machine which package may import which: the table in
// docs/architecture.md.
package rules

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/sidewinder-net/sidewinder"

// rule says what the packages below From may import of the project, beside
// themselves, and which foreign modules they alone may import.
type rule struct {
	from string
	may  []string
}

// The first rule whose from matches a package holds.
var rules = []rule{
	{"agent/dataplane", nil},
	{"agent/status", nil},
	{"agent/cluster", []string{"agent/dataplane"}},
	{"agent/config", []string{"cni/api"}},
	{"agent/compile", []string{"agent/cluster", "agent/dataplane", "agent/status", "cni/api"}},
	{"agent/reconcile", []string{"agent/dataplane", "agent/status"}},
	{"agent/backend/vpp", []string{"agent/dataplane", "binapi"}},
	{"agent/backend", []string{"agent/dataplane"}},
	{"agent/underlay", []string{"agent/cluster", "agent/dataplane"}},
	{"agent/publish", []string{"agent/cluster", "agent/dataplane", "api"}},
	{"agent/source", []string{"agent/cluster", "agent/dataplane", "agent/publish", "agent/source", "agent/status", "api"}},
	{"agent/cniserver", []string{"agent/cluster", "agent/config", "agent/dataplane", "agent/status", "cni/api"}},
	{"agent", []string{"agent", "api", "cni/api"}},
	{"api", nil},
	{"binapi", nil},
	{"cni/api", nil},
	{"cni", []string{"cni"}},
	{"ctl", []string{"agent/status", "api", "binapi", "cni/api", "cni/client"}},
	{"vpp-manager", []string{"vpp-manager", "api", "binapi", "xdp"}},
	{"xdp", nil},
	{"test", []string{""}},
}

// onlyIn names the one folder that may import a foreign module.
var onlyIn = map[string]string{
	"go.fd.io/govpp":         "binapi",
	"github.com/cilium/ebpf": "xdp",
}

// notIn names what a folder must not import at all: compile and the leaves know
// neither clock nor log nor I/O.
var notIn = map[string][]string{
	"agent/compile":   {"time", "os", "net", "net/http", "github.com/sirupsen/logrus", "math/rand", "math/rand/v2"},
	"agent/cluster":   {"time", "os", "github.com/sirupsen/logrus"},
	"agent/dataplane": {"time", "os", "github.com/sirupsen/logrus"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	TestImports,
	XTestImports []string
}

func below(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

func check(p pkg) (broken []string) {
	path := strings.TrimPrefix(p.ImportPath, module+"/")
	for foreign, home := range onlyIn {
		for _, imp := range p.Imports {
			if below(imp, foreign) && !below(path, home) {
				broken = append(broken, path+" imports "+imp+", which only "+home+" may")
			}
		}
	}
	for _, imp := range p.Imports {
		for _, no := range notIn[path] {
			if imp == no {
				broken = append(broken, path+" must not import "+imp)
			}
		}
	}
	for _, r := range rules {
		if !below(path, r.from) {
			continue
		}
	imports:
		for _, imp := range p.Imports {
			own, ok := strings.CutPrefix(imp, module+"/")
			if !ok || below(own, r.from) {
				continue
			}
			for _, m := range r.may {
				if below(own, m) {
					continue imports
				}
			}
			broken = append(broken, path+" must not import "+own)
		}
		return broken
	}
	return append(broken, path+" has no import rule")
}

func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	dec := json.NewDecoder(out)
	n := 0
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		n++
		for _, b := range check(p) {
			t.Error(b)
		}
	}
	require.NoError(t, cmd.Wait())
	require.Greater(t, n, 10, "go list found too few packages")
}

// TestTheCheckItself: the rules catch what they are for.
func TestTheCheckItself(t *testing.T) {
	for _, c := range []struct{ from, imp string }{
		{"vpp-manager", module + "/agent/config"},
		{"agent/compile", "time"},
		{"agent/compile", module + "/agent/source"},
		{"agent/backend/linux", "go.fd.io/govpp"},
		{"agent/dataplane", module + "/agent/cluster"},
		{"cni/plugin", module + "/agent/status"},
		{"agent/reconcile", module + "/test/lab"},
		{"binapi", module + "/agent/dataplane"},
		{"newfolder", "fmt"},
	} {
		require.NotEmpty(t, check(pkg{ImportPath: module + "/" + c.from, Imports: []string{c.imp}}), "%s importing %s", c.from, c.imp)
	}
	require.Empty(t, check(pkg{ImportPath: module + "/agent/reconcile", Imports: []string{"time", module + "/agent/dataplane"}}))
}
