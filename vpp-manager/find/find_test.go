package find

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

func executable(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	named := executable(t, filepath.Join(dir, "named"), "")
	env := executable(t, filepath.Join(dir, "env"), "")
	onPath := executable(t, filepath.Join(dir, "bin", "vpp"), "")
	t.Setenv("PATH", filepath.Dir(onPath))

	t.Setenv(Env, "")
	v, err := Locate("")
	require.NoError(t, err)
	require.Equal(t, VPP{Path: onPath, From: "PATH"}, v)

	t.Setenv(Env, env)
	v, err = Locate("")
	require.NoError(t, err)
	require.Equal(t, VPP{Path: env, From: Env}, v)

	v, err = Locate(named)
	require.NoError(t, err)
	require.Equal(t, VPP{Path: named, From: "--vpp"}, v)

	v, err = Locate(dir)
	require.NoError(t, err)
	require.Equal(t, onPath, v.Path, "an installation's folder")
}

func TestLocateNotFound(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(Env, "")
	_, err := Locate("")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, Env)

	// One that was named is not replaced by another.
	t.Setenv(Env, filepath.Join(t.TempDir(), "none"))
	_, err = Locate("")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "none")
}

func TestFindRefusesWhatDoesNotStart(t *testing.T) {
	path := executable(t, filepath.Join(t.TempDir(), "vpp"), "#!/bin/sh\necho broken >&2\nexit 7\n")
	_, err := Find(context.Background(), path)
	require.ErrorContains(t, err, "exit status 7")
	require.ErrorContains(t, err, "broken")
	require.NotErrorIs(t, err, ErrNotFound)
}

func TestFindTellsTheVersion(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := Locate(""); errors.Is(err, ErrNotFound) {
		t.Skip("VPP not found")
	}
	v, err := Find(context.Background(), "", binapi.GroupAFPacket)
	require.NoError(t, err)
	require.Regexp(t, `^\d\d\.\d\d`, v.Version)
}

func TestProbeDir(t *testing.T) {
	// Not t.TempDir, which may itself be too long.
	root, err := os.MkdirTemp("/tmp", "find-")
	require.NoError(t, err)
	defer os.RemoveAll(root)
	good := filepath.Join(root, "good")
	long := filepath.Join(root, strings.Repeat("x", 100))
	odd := filepath.Join(root, "with space\r")
	for _, d := range []string{good, long, odd} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	dir, err := probeDir(filepath.Join(root, "none"), long, odd, good)
	require.NoError(t, err)
	require.Equal(t, good, filepath.Dir(dir))
	for _, d := range []string{long, odd} {
		left, err := os.ReadDir(d)
		require.NoError(t, err)
		require.Empty(t, left, "what cannot be used is removed")
	}

	_, err = probeDir(filepath.Join(root, "none"), odd)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, err, startup.ErrRunDir)
	require.ErrorContains(t, err, "TMPDIR")

	t.Chdir(root)
	dir, err = probeDir("good")
	require.NoError(t, err)
	require.Equal(t, good, filepath.Dir(dir), "a relative TMPDIR")
}

func TestFindWithATMPDIRThatVPPCannotUse(t *testing.T) {
	path := executable(t, filepath.Join(t.TempDir(), "vpp"), "#!/bin/sh\nexit 7\n")
	for _, name := range []string{strings.Repeat("x", 120), "with space"} {
		tmp := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.Mkdir(tmp, 0o755))
		t.Setenv("TMPDIR", tmp)
		_, err := Find(context.Background(), path)
		require.ErrorContains(t, err, "exit status 7", "VPP was started")
	}
}
