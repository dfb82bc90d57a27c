// Package rules checks by machine which package may import which: the table in
// docs/architecture.md.
package rules

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/sidewinder-net/sidewinder"

// rule says what the packages below from may import of the project, beside
// themselves.
type rule struct {
	from string
	may  []string
}

// readRules reads the table of docs/architecture.md, longest folder first: the
// first that matches a package holds.
func readRules(t *testing.T) []rule {
	t.Helper()
	raw, err := os.ReadFile("../../docs/architecture.md")
	require.NoError(t, err)
	var rules []rule
	code := regexp.MustCompile("`([a-z0-9/-]+)`")
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		from := code.FindStringSubmatch(cells[1])
		require.NotNil(t, from, line)
		r := rule{from: from[1]}
		for _, m := range code.FindAllStringSubmatch(cells[3], -1) {
			r.may = append(r.may, m[1])
		}
		if _, err := os.Stat("../../" + r.from); err != nil {
			continue // another table of the page
		}
		rules = append(rules, r)
	}
	slices.SortFunc(rules, func(a, b rule) int { return len(b.from) - len(a.from) })
	require.Greater(t, len(rules), 15, "the table was not found")
	return rules
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
}

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func check(rules []rule, p pkg) (broken []string) {
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
	rules := readRules(t)
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
		for _, b := range check(rules, p) {
			t.Error(b)
		}
	}
	require.NoError(t, cmd.Wait())
	require.Greater(t, n, 10, "go list found too few packages")
}

// TestTheCheckItself: the rules catch what they are for.
func TestTheCheckItself(t *testing.T) {
	rules := readRules(t)
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
		require.NotEmpty(t, check(rules, pkg{ImportPath: module + "/" + c.from, Imports: []string{c.imp}}), "%s importing %s", c.from, c.imp)
	}
	require.Empty(t, check(rules, pkg{ImportPath: module + "/agent/reconcile", Imports: []string{"time", module + "/agent/dataplane"}}))
}
