package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/preflight"
)

// preflightOf runs the command.
func preflightOf(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := preflightCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPreflightWithoutVPP(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(find.Env, "")
	out, err := preflightOf(t, "--output", "json", "--run-dir", t.TempDir(), "--max-pods", "7", "--uplink", "lo-not")
	require.ErrorIs(t, err, preflight.ErrNotReady, "the exit status is 1")
	var r preflight.Report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, preflight.Version, r.Version)
	require.Equal(t, preflight.Failure, r.Verdict)
	require.Equal(t, 7, r.Options.MaxPods)
	require.Equal(t, "vpp-binary", r.Results[0].Check)
	require.Equal(t, preflight.Failure, r.Results[0].Verdict)
	require.NotEmpty(t, r.Results[0].Fix)

	out, err = preflightOf(t, "--run-dir", t.TempDir())
	require.ErrorIs(t, err, preflight.ErrNotReady)
	require.Contains(t, out, "vpp-binary")
	require.Regexp(t, `(?m)^failure: \d+ ok, `, out)
}

func TestPreflightRefusesFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--output", "yaml"}, {"--driver", "tap"}, {"--uplink", "eth0=af_xdp"}, {"--max-pods", "-1"}, {"--worker-cores", "a"}, {"stray"},
	} {
		out, err := preflightOf(t, args...)
		require.Error(t, err, args)
		require.NotErrorIs(t, err, preflight.ErrNotReady, args)
		require.Empty(t, out, args)
	}
}

func TestRunTellsWhatWouldFail(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(find.Env, "")
	o := runOptions{runDir: t.TempDir(), heap: "256M", mainCore: -1, maxPods: 110}
	err := o.preflight(t.Context())
	require.ErrorIs(t, err, preflight.ErrNotReady)
	require.ErrorContains(t, err, "vpp-binary: VPP not found")
	require.ErrorContains(t, err, "install VPP")
}
