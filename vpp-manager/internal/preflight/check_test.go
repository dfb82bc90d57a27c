package preflight

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

var update = flag.Bool("update", false, "write the golden files")

func TestNamesAreUniqueAndPlain(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks() {
		require.Regexp(t, `^[a-z][a-z0-9-]*$`, c.name)
		require.False(t, seen[c.name], c.name)
		seen[c.name] = true
		require.NotEmpty(t, c.title, c.name)
	}
}

// TestNothingIsWrong: on a good machine every check is made for some driver, and
// none complains.
func TestNothingIsWrong(t *testing.T) {
	made := map[string]bool{}
	for _, driver := range uplinkDrivers() {
		for _, pods := range podDrivers() {
			o := goodOptions()
			o.Driver, o.PodDriver, o.Workers = driver, pods, 1
			require.NoError(t, o.Validate())
			m := goodMachine(t, nil)
			m.Links = func() ([]Link, error) {
				l := goodLink()
				l.Addresses = append(l.Addresses, addr("fd00::1"))
				return []Link{l}, nil
			}
			r := Run(context.Background(), m, o)
			require.Equal(t, OK, r.Verdict, "%s %s: %v", driver, pods, r.Err(true))
			require.NoError(t, r.Err(true))
			require.NoError(t, r.Outcome(true))
			for _, res := range r.Results {
				if res.Verdict == OK {
					made[res.Check] = true
				} else {
					require.NotEmpty(t, res.Found, "%s says why it is skipped", res.Check)
				}
			}
		}
	}
	for _, c := range checks() {
		require.True(t, made[c.name], "%s was never made", c.name)
	}
}

// TestQuick: it neither starts VPP nor takes long, and what it says is what the
// checks say.
func TestQuick(t *testing.T) {
	m := goodMachine(t, map[string]string{"proc/sys/kernel/osrelease": "4.18.0-553.el8"})
	m.Find = func(context.Context, string, ...binapi.Group) (find.VPP, error) {
		t.Error("VPP was started")
		return find.VPP{}, errTest
	}
	m.Locate = func(string) (find.VPP, error) { return find.VPP{}, find.ErrNotFound }
	r := QuickReport(context.Background(), m, goodOptions())
	require.Equal(t, Failure, r.Verdict)
	err := r.Err(false)
	require.ErrorIs(t, err, ErrNotReady)
	for _, part := range []string{"vpp-binary: VPP not found", "install VPP", "kernel-version: 4.18.0-553.el8 is older than 5.11"} {
		require.ErrorContains(t, err, part)
	}
	require.ErrorContains(t, r.Outcome(false), "2 of ")

	// Drivers that are not known ask for nothing.
	r = QuickReport(context.Background(), m, Options{RunDir: "/run/vpp", MainHeap: "256M", Buffers: 32768, BufferData: 2048})
	require.Equal(t, 1, r.Count(Failure), "%v", r.Err(false))
}

func TestQuickHere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	o := DefaultOptions()
	o.RunDir = t.TempDir()
	begin := time.Now()
	r := QuickReport(context.Background(), ThisMachine(), o)
	took := time.Since(begin)
	t.Logf("%s: %v", took, r.Err(true))
	require.Less(t, took, 3*time.Second, "aim: 300 ms on an idle machine")
	for _, res := range r.Results {
		require.NotEqual(t, "vpp-api", res.Check)
	}
}

func TestErrAndOutcome(t *testing.T) {
	r := Report{Results: []Result{
		{Check: "a", Finding: ok("fine")},
		{Check: "b", Finding: warning("do it", "slow").of("eth0")},
	}}
	require.NoError(t, r.Err(false))
	require.NoError(t, r.Outcome(false))
	require.ErrorIs(t, r.Err(true), ErrNotReady)
	require.ErrorContains(t, r.Err(true), "b eth0: slow (do it)")
	require.ErrorContains(t, r.Outcome(true), "1 of 2 checks warn")
}

func sample() Report {
	return Report{Version: Version, Verdict: Failure, Options: DefaultOptions(), Results: []Result{
		{Check: "vpp-binary", Title: "VPP is installed", Finding: ok("/usr/bin/vpp (from PATH)")},
		{Check: "uplink-mtu", Title: "the MTU fits", Finding: failure("podMTU: 1738 in the agent's configuration", "MTU 9000: %s", strings.Repeat("words ", 30)).of("eth0")},
		{Check: "vrf", Title: "VRF", Finding: warning("a kernel with <CONFIG_NET_VRF>", "operation not supported")},
		{Check: "vfio", Title: "VFIO", Finding: skipped("only for uplinks with dpdk")},
	}}
}

func TestWrite(t *testing.T) {
	r := sample()
	for name, write := range map[string]func(*bytes.Buffer) error{
		"table.txt":   func(b *bytes.Buffer) error { return r.WriteTable(b) },
		"report.json": func(b *bytes.Buffer) error { return r.WriteJSON(b) },
	} {
		var got bytes.Buffer
		require.NoError(t, write(&got))
		file := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(file, got.Bytes(), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), got.String(), name)
		for line := range strings.Lines(got.String()) {
			if name == "table.txt" {
				require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), lineWidth)
			}
		}
	}
}

func TestJSONIsReadBack(t *testing.T) {
	r := sample()
	var b bytes.Buffer
	require.NoError(t, r.WriteJSON(&b))
	require.Contains(t, b.String(), "<CONFIG_NET_VRF>")
	var back Report
	dec := json.NewDecoder(&b)
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&back))
	require.Equal(t, r, back)
}

func TestValidate(t *testing.T) {
	require.NoError(t, DefaultOptions().Validate())
	for want, change := range map[string]func(*Options){
		"--driver": func(o *Options) { o.Driver = "tap" },
		"--pod-driver: \"dpdk\" is not one of af_xdp, af_packet": func(o *Options) { o.PodDriver = DPDK },
		"--pod-driver: \"tap\"":                                  func(o *Options) { o.PodDriver = "tap" },
		"--pod-driver: \"memif\"":                                func(o *Options) { o.PodDriver = "memif" },
		"--uplink":                                               func(o *Options) { o.Uplinks = []string{"0000:00:03.0"} },
		"interface":                                              func(o *Options) { o.Uplinks = []string{"a-name-that-is-too-long"} },
		"--max-pods":                                             func(o *Options) { o.MaxPods = -1 },
		"--pod-mtu":                                              func(o *Options) { o.PodMTU = 1000 },
		"--workers":                                              func(o *Options) { o.Workers = -1 },
		"--main-heap":                                            func(o *Options) { o.MainHeap = "much" },
		"--buffers":                                              func(o *Options) { o.Buffers = 12 },
		"--buffer-data":                                          func(o *Options) { o.BufferData = 100 },
	} {
		o := DefaultOptions()
		change(&o)
		require.ErrorContains(t, o.Validate(), want)
	}
	o := DefaultOptions()
	o.Driver, o.Uplinks = DPDK, []string{"0000:00:03.0", "eth0"}
	require.NoError(t, o.Validate())
}

// doc is the page for people.
const doc = "../../../docs/preflight.md"

// TestDocumentation: the page has a section for each check, in their order, and
// none besides; and its table shows them all.
func TestDocumentation(t *testing.T) {
	raw, err := os.ReadFile(doc)
	require.NoError(t, err)
	var want, got []string
	for _, c := range checks() {
		want = append(want, c.name+": "+c.title)
	}
	for _, m := range regexp.MustCompile("(?m)^### `([^`]+)`: (.+)$").FindAllStringSubmatch(string(raw), -1) {
		got = append(got, m[1]+": "+m[2])
	}
	require.Equal(t, want, got)
	for _, c := range checks() {
		_, section, _ := strings.Cut(string(raw), "### `"+c.name+"`")
		section, _, _ = strings.Cut(section, "\n### ")
		require.Equal(t, c.start, strings.Contains(section, "*At start"), "%s: made at start", c.name)
	}

	_, table, _ := strings.Cut(string(raw), "\nCHECK ")
	_, table, _ = strings.Cut(table, "\n")
	table, summary, _ := strings.Cut(table, "\n\n")
	want, got = nil, nil
	for _, c := range checks() {
		want = append(want, c.name)
	}
	verdicts := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+).* {2}(ok|warning|failure|skipped) {2,}\S`).FindAllStringSubmatch(table, -1) {
		verdicts[m[2]]++
		if len(got) == 0 || got[len(got)-1] != m[1] {
			got = append(got, m[1])
		}
	}
	require.Equal(t, want, got, "the table")
	require.Contains(t, summary, fmt.Sprintf(": %d ok, %s, %s, %d skipped\n", verdicts["ok"],
		count(verdicts["warning"], "warning"), count(verdicts["failure"], "failure"), verdicts["skipped"]))
}

// TestOrdinaryUser: without root nothing is made up; what was not tried says so.
func TestOrdinaryUser(t *testing.T) {
	m := goodMachine(t, map[string]string{"proc/self/status": "CapEff:\t0000000000000000\nCpus_allowed_list:\t0-7\n"})
	m.Try = func(context.Context) Features { return Features{NotTried: unix.EPERM} }
	r := Run(context.Background(), m, goodOptions())
	require.Equal(t, Failure, r.Verdict)
	notTried := 0
	for _, res := range r.Results {
		switch {
		case res.Check == "privileges":
			require.Equal(t, Failure, res.Verdict)
			require.Contains(t, res.Found, "CAP_NET_ADMIN")
		case strings.HasPrefix(res.Found, "not tried: "):
			require.Equal(t, Skipped, res.Verdict)
			notTried++
		}
	}
	require.Equal(t, 10, notTried)
}
