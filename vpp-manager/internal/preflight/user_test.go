package preflight

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asUser makes this test binary act as an ordinary user who checks the machine.
const asUser = "PREFLIGHT_TEST_AS_USER"

// runOptions are those that vpp-manager run asks with.
func runOptions(dir string) Options {
	o := DefaultOptions()
	o.Driver, o.PodDriver, o.RunDir = "", "", dir
	return o
}

// TestAsOrdinaryUser: without root and without capabilities all checks come to an
// end; what cannot be tried is skipped and says why; nothing is made up. And run
// is not held back: VPP starts for such a user.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getenv(asUser) != "" {
		dir, err := os.MkdirTemp("/tmp", "preflight-user-")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		for _, res := range QuickReport(t.Context(), ThisMachine(), runOptions(dir)).Results {
			// The machine may have no VPP, which is nobody's privilege.
			if res.Check != "vpp-binary" {
				require.NotEqual(t, Failure, res.Verdict, "%+v", res)
			}
		}
		o := DefaultOptions()
		o.RunDir = dir
		require.NoError(t, Run(t.Context(), ThisMachine(), o).WriteJSON(os.Stdout))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become an ordinary user")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAsOrdinaryUser$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: unix.SIGKILL}
	cmd.Env = append(os.Environ(), asUser+"=1", "TMPDIR=/tmp", "HOME=/")
	cmd.Dir = "/"
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	var r Report
	require.NoError(t, json.NewDecoder(bytes.NewReader(out)).Decode(&r), "%s", out)
	verdicts := map[string]Result{}
	for _, res := range r.Results {
		verdicts[res.Check] = res
	}
	require.Equal(t, Failure, verdicts["privileges"].Verdict)
	require.Contains(t, verdicts["privileges"].Found, "CAP_NET_ADMIN")
	for _, name := range []string{"veth", "xdp-shim", "xdp-veth", "af-xdp", "seg6-encap", "seg6-nexthop", "seg6-end-dx6", "seg6-end-dx4", "seg6-un", "vrf"} {
		require.Equal(t, Skipped, verdicts[name].Verdict, "%s", verdicts[name])
		require.Contains(t, verdicts[name].Found, "operation not permitted")
	}
	require.Equal(t, OK, verdicts["run-dir"].Verdict)
	require.Equal(t, Warning, verdicts["guard"].Verdict, "it is tried, and refused: %s", verdicts["guard"])
	require.Contains(t, verdicts["guard"].Fix, "CAP_PERFMON")
}

// TestRunIsNotHeldBack: in a network namespace without routes, as the lab's
// nodes are when VPP is started, there is nothing to refuse.
func TestRunIsNotHeldBack(t *testing.T) {
	inNamespace(t)
	m := ThisMachine()
	if _, err := m.Locate(""); err != nil {
		t.Skip(err)
	}
	r := QuickReport(t.Context(), m, runOptions(t.TempDir()))
	require.NoError(t, r.Err(false))
}
