package uplink

import (
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

func TestParseSpec(t *testing.T) {
	for text, want := range map[string]Spec{
		"eth0=dpdk":                            {Link: "eth0"},
		"eth0=dpdk:0000:03:00.0":               {Link: "eth0", PCI: "0000:03:00.0"},
		"eth0=dpdk:03:00.1":                    {Link: "eth0", PCI: "0000:03:00.1"},
		"0000:AF:00.0=dpdk":                    {PCI: "0000:af:00.0"},
		"eth0=dpdk:net_af_packet":              {Link: "eth0", VDev: "net_af_packet"},
		"eth0=dpdk:net_af_packet,framesz=4096": {Link: "eth0", VDev: "net_af_packet,framesz=4096"},
	} {
		got, err := ParseSpec(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		again, err := ParseSpec(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for text, why := range map[string]string{
		"eth0":                            "no =",
		"eth0=af_xdp":                     "share the NIC",
		"eth0=dpdk:":                      "neither a PCI address nor",
		"eth0=dpdk:net_x { }":             "neither",
		"eth0=dpdk:net_af_packet,x=1\ny":  "neither",
		"a b=dpdk":                        "not an interface's name",
		"averyverylongname=dpdk":          "not an interface's name",
		"0000:03:00.0=dpdk:net_af_packet": "two devices",
		"0000:03:00.9=dpdk":               "not an interface's name",
	} {
		_, err := ParseSpec(text)
		require.ErrorIs(t, err, ErrSpec, text)
		require.ErrorContains(t, err, why)
	}
}

func TestNewRefuses(t *testing.T) {
	o := Options{Dir: t.TempDir(), RunDir: "/run/vpp", Log: logrus.New()}
	_, err := New(o, []Spec{{Link: "eth0"}, {Link: "eth0", PCI: "0000:03:00.0"}})
	require.ErrorContains(t, err, "named twice")
	_, err = New(o, []Spec{{Link: "eth0", VDev: "net_af_packet"}, {Link: "eth1", VDev: "net_af_packet"}})
	require.ErrorContains(t, err, "VPP can have one")
	o.RunDir = "run"
	_, err = New(o, nil)
	require.ErrorContains(t, err, "not an absolute path")
}

func TestNamesFitTheKernel(t *testing.T) {
	require.Equal(t, "swh-eth0", HostLink("eth0"))
	long := "enp134s0f1np1ab"
	require.Len(t, long, maxName)
	for _, n := range []string{HostLink(long), standIn(asidePrefix, long)} {
		require.LessOrEqual(t, len(n), maxName)
	}
	require.NotEqual(t, HostLink(long), HostLink("enp134s0f1np1ac"))
}

func TestSection(t *testing.T) {
	u := &Uplinks{held: []Description{
		{Link: "eth0", PCI: "0000:03:00.0"},
		{Link: "eth1", PCI: "0000:03:00.1"},
	}}
	require.Equal(t, `no-shconf
file-prefix me
dev 0000:03:00.0 { name dpdk-eth0 num-rx-queues 2 }
dev 0000:03:00.1 { name dpdk-eth1 num-rx-queues 2 }
`, u.Section("me", 2))
	conf, err := startup.Config{RunDir: "/run/vpp", DPDK: u.Section("me", 2)}.Text()
	require.NoError(t, err)
	require.Contains(t, conf, "dev 0000:03:00.1 { name dpdk-eth1 num-rx-queues 2 }")
	require.Contains(t, conf, "no-hugetlb")
	conf, err = startup.Config{RunDir: "/run/vpp", DPDK: u.Section("me", 2), HugePages: true}.Text()
	require.NoError(t, err)
	require.NotContains(t, conf, "no-hugetlb")
	u.held = []Description{{Link: "eth0", VDev: "net_af_packet,framesz=4096", Aside: "swn-eth0"}}
	require.Equal(t, `no-shconf
file-prefix me
vdev net_af_packet0,iface=swn-eth0,framesz=4096
dev default { name dpdk-eth0 }
no-pci
`, u.Section("me", 0))
	u.held = nil
	require.Empty(t, u.Section("me", 1))
}

func TestEachRunDirectoryHasItsDescriptions(t *testing.T) {
	seen := map[string]string{}
	for _, dir := range []string{"/run/vpp", "/run/a-b", "/run/a/b", "/run/a/-b", "/run/a-/b", `/run/a\x2db`} {
		s := newStore("/d", dir)
		require.Empty(t, seen[s.dir], "%s and %s", dir, seen[s.dir])
		seen[s.dir] = dir
	}
	require.Equal(t, "/run/vpp", seen["/d/run-vpp"])
	require.Equal(t, newStore("/d", "/run/vpp"), newStore("/d", "/run//vpp/"))
}
