package preflight

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

func TestVPP(t *testing.T) {
	m := goodMachine(t, nil)
	o := goodOptions()
	expect(t, "vpp-binary", m, o, OK, "/usr/bin/vpp (from PATH)")
	expect(t, "vpp-plugins", m, o, OK, "af_xdp_plugin.so")

	m.Installed = func(string, []string) []string { return []string{"af_xdp_plugin.so"} }
	o.Driver, o.PodDriver = DPDK, AFPacket
	expect(t, "vpp-plugins", m, o, Failure, "af_packet_plugin.so, dpdk_plugin.so not in")
	o.Driver, o.PodDriver = "", ""
	expect(t, "vpp-plugins", m, o, Skipped, "no driver chosen")

	m.Locate = func(string) (find.VPP, error) { return find.VPP{}, find.ErrNotFound }
	m.Find = func(context.Context, string, ...binapi.Group) (find.VPP, error) {
		t.Error("what is not there was started")
		return find.VPP{}, errTest
	}
	expect(t, "vpp-binary", m, o, Failure, "VPP not found")
	for _, name := range []string{"vpp-api", "vpp-version", "vpp-plugins", "memif"} {
		expect(t, name, m, goodOptions(), Skipped, "VPP was not found")
	}
}

func TestMemif(t *testing.T) {
	m := goodMachine(t, nil)
	o := goodOptions()
	expect(t, "memif", m, o, OK, "memif_plugin.so, acl_plugin.so, abf_plugin.so: pods' memif annotations are possible")
	m.Installed = func(string, []string) []string { return []string{"memif_plugin.so", "acl_plugin.so"} }
	expect(t, "memif", m, o, Warning, "abf_plugin.so not in the vpp_plugins folder beside /usr/bin/vpp: pods' memif annotations are not possible")
}

func TestVPPAPI(t *testing.T) {
	m := goodMachine(t, nil)
	started := 0
	answer := func(v string, err error, want ...binapi.Group) {
		m.Find = func(_ context.Context, _ string, got ...binapi.Group) (find.VPP, error) {
			started++
			require.Equal(t, want, got)
			return find.VPP{Path: "/usr/bin/vpp", Version: v}, err
		}
	}
	o := goodOptions()
	answer("26.06-release", nil, binapi.GroupAFXDP)
	expect(t, "vpp-api", m, o, OK, "has all messages")
	expect(t, "vpp-version", m, o, Warning, "26.06-release is newer than 25.10")

	lacks := &binapi.IncompatibleError{Version: "23.02", Missing: []binapi.MissingMessage{{Name: "af_xdp_create_v3", CRC: "1234", Versions: "23.10 and later"}}}
	o.PodDriver = AFPacket
	answer("", lacks, binapi.GroupAFXDP, binapi.GroupAFPacket)
	expect(t, "vpp-api", m, o, Failure, "af_xdp_create_v3_1234 (in VPP 23.10 and later)")
	expect(t, "vpp-version", m, o, Warning, "23.02 is older than 25.10")

	answer("", errTest, binapi.GroupAFXDP, binapi.GroupAFPacket)
	expect(t, "vpp-api", m, o, Failure, errTest.Error())
	expect(t, "vpp-version", m, o, Skipped, "did not start")

	// One start serves both.
	started = 0
	Run(context.Background(), m, o)
	require.Equal(t, 1, started)
}

func TestJudgeVersion(t *testing.T) {
	for text, want := range map[string]Verdict{
		"25.10-release":         OK,
		"25.10.1-release":       OK,
		"25.10-rc2~3-gabcdef":   OK,
		"25.06-release":         Warning,
		"26.02-rc0~12-g1234567": Warning,
		"9.10":                  Warning, // older, as numbers
		"25.1":                  Warning,
		"":                      Warning,
		"unknown":               Warning,
	} {
		require.Equal(t, want, judgeVersion(text).Verdict, text)
	}
	require.Contains(t, judgeVersion("9.10").Found, "older")
	require.Contains(t, judgeVersion("100.02").Found, "newer")
}

func TestVPPRunning(t *testing.T) {
	process := func(pid, ns, conf string) map[string]string {
		return map[string]string{
			"proc/" + pid + "/comm":    "vpp_main\n",
			"proc/" + pid + "/cmdline": "/usr/bin/vpp\x00-c\x00" + conf + "\x00",
			"proc/" + pid + "/ns/net":  "-> net:[" + ns + "]",
		}
	}
	o := goodOptions()
	expect(t, "vpp-running", goodMachine(t, map[string]string{"proc/5/comm": "bash\n"}), o, OK, "none")
	expect(t, "vpp-running", goodMachine(t, process("77", "2", "/run/other/startup.conf")), o, OK, "1 in others")
	expect(t, "vpp-running", goodMachine(t, process("77", "1", "/etc/vpp/startup.conf")), o, Warning, "process 77: another VPP runs in this network namespace, with /etc/vpp/startup.conf")
	expect(t, "vpp-running", goodMachine(t, process("77", "1", "/run/vpp/startup.conf")), o, Warning, "with this run directory, /run/vpp")
}

func TestRunDir(t *testing.T) {
	m := goodMachine(t, map[string]string{"run/file": ""})
	for dir, want := range map[string]Verdict{
		"/run/vpp":      OK,
		"/run":          OK,
		"/run/a/b/c":    OK,
		"/run/file/vpp": Failure,
		"/run/with sp":  Failure,
	} {
		o := goodOptions()
		o.RunDir = dir
		expect(t, "run-dir", m, o, want, dir)
	}
}
