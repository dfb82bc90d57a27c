package main

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/labtest"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// runDemoProgram runs a demo as a user does and gives its report.
func runDemoProgram(t *testing.T, prepare func(*exec.Cmd), args ...string) report {
	t.Helper()
	labtest.Alone(t)
	tmp, before := tempDir(t), host(t)
	path := filepath.Join(tempDir(t), "report.json")
	begin := time.Now()
	p := start(t, tmp, prepare, append([]string{"demo", "--report", path}, args...)...)
	code := p.wait(4 * time.Minute)
	t.Logf("took %s", time.Since(begin))
	require.Equal(t, before, host(t), "something of the lab shows on the host")
	r := readReport(t, path)
	require.Zero(t, code, p.out.String())
	requireEmpty(t, tmp)
	return r
}

// requireFailover checks the demo's failover step, with limits for a machine that
// is shared.
func requireFailover(t *testing.T, r report) {
	t.Helper()
	times := map[string]int{}
	for _, k := range r.Failover {
		times[k.Kind] = k.Times
		require.Zero(t, k.TCPResets, k.Kind)
		require.Zero(t, k.HostLost, k.Kind)
		require.Zero(t, k.HostTCPReset, k.Kind)
		require.Len(t, k.Events, k.Times)
		require.Positive(t, k.Sent)
		switch k.Kind {
		case "restart", "kill", "crashloop":
			require.LessOrEqual(t, k.MaxLost, lab.BoundsOf(lab.Disturbance(k.Kind)).Lost, k.Kind)
		}
	}
	delete(times, "none")
	require.Equal(t, map[string]int{"kill": 3, "stop": 2, "restart": 3, "crashloop": 1}, times)
}

func TestDemoLinux(t *testing.T) {
	needRoot(t)
	r := runDemoProgram(t, nil, "--dataplane", "linux")
	requireGood(t, r)
	require.Equal(t, "linux", r.Dataplane)
	require.Empty(t, r.VPPVersion)
	require.Less(t, r.Durations["total"], millis(time.Minute))
}

func TestDemoVPP(t *testing.T) {
	needVPP(t)
	r := runDemoProgram(t, nil, "--dataplane", "vpp")
	requireGood(t, r)
	require.Equal(t, "vpp", r.Dataplane)
	require.NotEmpty(t, r.VPPVersion)
	requireFailover(t, r)
}

func TestDemoMixed(t *testing.T) {
	needVPP(t)
	r := runDemoProgram(t, nil, "--dataplane", "mixed")
	requireGood(t, r)
	require.Equal(t, "mixed", r.Dataplane)
	require.Len(t, r.FlowRuns, 2, "one for each kind of sender")
	requireFailover(t, r)
}

// asNobody drops all privileges.
func asNobody(cmd *exec.Cmd) {
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{}}}
}

func needUserNamespaces(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^$")
	asNobody(cmd)
	cmd.SysProcAttr.Credential = nil
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	if err := cmd.Run(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
}

func TestDemoAsOrdinaryUser(t *testing.T) {
	needRoot(t)
	needUserNamespaces(t)
	r := runDemoProgram(t, asNobody, "--dataplane", "linux")
	requireGood(t, r)
}

func TestVPPAsOrdinaryUserSaysWhatItNeeds(t *testing.T) {
	needRoot(t)
	p := start(t, tempDir(t), asNobody, "demo", "--dataplane", "vpp", "--vpp", "/bin/true")
	require.Equal(t, 1, p.wait(time.Minute))
	require.Contains(t, p.out.String(), "this needs root")
	require.Contains(t, p.out.String(), "DATAPLANE=linux")
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"nodes: 1 is not between 2 and 20", []string{"--nodes", "1"}},
		{`sidewinder-lab: --nodes: "abc" is not a whole number` + "\n", []string{"--nodes", "abc"}},
		{`sidewinder-lab: --pods: "1.5" is not a whole number` + "\n", []string{"--pods=1.5"}},
		{`sidewinder-lab: --paths: "" is not a whole number` + "\n", []string{"--paths="}},
		{"--paths: 99999999999999999999 is out of range\n", []string{"--paths=99999999999999999999"}},
		{"nodes: 21 is not between 2 and 20", []string{"--nodes", "21"}},
		{"pods: 0 is not between 1 and 20", []string{"--pods", "0"}},
		{"paths: 17 is not between 1 and 16", []string{"--paths", "17"}},
		{`dataplane: "ovs" is not one of`, []string{"--dataplane", "ovs"}},
		{"report: /nonexistent is not a directory", []string{"--report", "/nonexistent/r.json"}},
		{"report: / is a directory", []string{"--report", "/"}},
		{"report: no file can be made in /proc", []string{"--report", "/proc/r.json"}},
		{"make build", []string{"--bin", "/nonexistent"}},
		{"VPP not found", []string{"--dataplane", "vpp", "--vpp", "/nonexistent/vpp"}},
	} {
		t.Run(c.want, func(t *testing.T) {
			p := start(t, tempDir(t), nil, append([]string{"demo", "--dataplane", "linux"}, c.args...)...)
			require.Equal(t, 1, p.wait(30*time.Second))
			require.Contains(t, p.out.String(), c.want)
			requireEmpty(t, p.tmp)
		})
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	needRoot(t)
	tmp, before := tempDir(t), host(t)
	args := []string{"demo", "--dataplane", "linux", "--nodes", "2", "--pods", "1"}
	a, b := start(t, tmp, nil, args...), start(t, tmp, nil, args...)
	require.Zero(t, a.wait(2*time.Minute), a.out.String())
	require.Zero(t, b.wait(2*time.Minute), b.out.String())
	require.Equal(t, before, host(t))
	requireEmpty(t, tmp)
}

func TestFailureKeepsLogsAndSaysWhere(t *testing.T) {
	needRoot(t)
	tmp := tempDir(t)
	// Programs that end at once stand in for ones that do not work.
	bin := tempDir(t)
	for _, name := range []string{"sidewinder-agent", "sidewinder-cni", "host-local"} {
		require.NoError(t, exec.Command("cp", "/bin/false", filepath.Join(bin, name)).Run())
	}
	p := start(t, tmp, nil, "demo", "--dataplane", "linux", "--bin", bin)
	require.Equal(t, 1, p.wait(time.Minute))
	out := p.out.String()
	dir := filepath.Join(tmp, "sidewinder-lab-"+p.labID())
	require.Contains(t, out, "agent of node1 has ended")
	require.Contains(t, out, dir)
	require.FileExists(t, filepath.Join(dir, "logs", "lab.log"))

	t.Setenv("TMPDIR", tmp)
	labs, err := tree.List()
	require.NoError(t, err)
	require.Len(t, labs, 1)
	require.True(t, labs[0].Kept)
	require.NoError(t, tree.Down(labs[0].ID, time.Second))
	requireEmpty(t, tmp)
}
