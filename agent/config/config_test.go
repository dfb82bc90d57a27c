package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/config"
)

func load(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return config.Load(path)
}

func TestDefaultsAreValid(t *testing.T) {
	c, err := config.Load("")
	require.NoError(t, err)
	require.Equal(t, "fcbb:bb00::/32", c.BlockPrefix.String())
	c, err = load(t, "")
	require.NoError(t, err)
	require.Equal(t, config.DataplaneLinux, c.Dataplane)
}

func TestValuesAreRead(t *testing.T) {
	c, err := load(t, "nodeName: n1\ndataplane: vpp\nblock: 'fd00:1::/32'\nuplinks: [eth0, eth1]\nencapSource: 'fd53::1'\nresyncInterval: 5s\nvpp: {podDriver: af_packet}\n")
	require.NoError(t, err)
	require.Equal(t, "n1", c.NodeName)
	require.Equal(t, []string{"eth0", "eth1"}, c.Uplinks)
	require.Equal(t, "fd53::1", c.EncapSourceAddr.String())
	require.Equal(t, "af_packet", c.VPP.PodDriver)
	require.Equal(t, "af_xdp", c.VPP.UplinkDriver, "what is not named keeps its default")
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"nodename: x":               "line 1: field nodename not found",
		"nodeName: ''":              "nodeName: is empty",
		"dataplane: ebpf":           `dataplane: "ebpf" is not one of "linux", "vpp"`,
		"block: 10.0.0.0/8":         "block: 10.0.0.0/8 is not an IPv6 /32",
		"block: 'fcbb:bb00:1::/32'": "is not an IPv6 /32 with no bits set beyond it",
		"block: x":                  "block: ",
		"encapSource: 'fe80::1'":    "encapSource: fe80::1 is not a global",
		"encapSource: 10.0.0.1":     "encapSource: 10.0.0.1 is not a global",
		"podMTU: 1000":              "podMTU: 1000 is not 0 or between 1280 and 65495",
		"resyncInterval: 1ms":       "resyncInterval: 1ms is shorter than 1s",
		"releaseGrace: 0s":          "releaseGrace: 0s is shorter than 1s",
		"logLevel: loud":            "logLevel: ",
		"uplinks: [a, a]":           `uplinks[1]: "a" is empty, too long for an interface name, or repeated`,
		"socket: cni.sock":          `socket: "cni.sock" is not an absolute path`,
		"vpp: {podRxMode: fast}":    `vpp.podRxMode: "fast" is not one of ["interrupt" "adaptive" "polling"]`,
		"vpp: {kernelFlows: 3}":     "vpp.kernelFlows: 3 is not between 1024",
		"vpp: {podDriver: tap}":     `vpp.podDriver: "tap" is not one of ["af_xdp" "af_packet"]`,
		"resyncInterval: soon":      "line 1",
		"nodeName: [":               "agent.yaml",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := load(t, text)
			require.ErrorContains(t, err, want)
		})
	}
	_, err := config.Load("/nonexistent/agent.yaml")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestAllIsToldAtOnce: unknown fields, wrong types and wrong values, with lines.
func TestAllIsToldAtOnce(t *testing.T) {
	_, err := load(t, "nodeName: n1\ndataplan: vpp\ndataplane: x\nuplinks: {}\nvpp:\n  podDriver: tap\n---\nnodeName: n2\n")
	for _, want := range []string{
		"agent.yaml: line 2: field dataplan not found",
		"agent.yaml: line 4: cannot unmarshal",
		`agent.yaml:3: dataplane: "x" is not one of`,
		`agent.yaml:6: vpp.podDriver: "tap" is not one of`,
		"has more than one document",
	} {
		require.ErrorContains(t, err, want)
	}
}
