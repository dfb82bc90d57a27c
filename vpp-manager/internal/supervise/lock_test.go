package supervise

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

func TestRunDirIsTakenOnce(t *testing.T) {
	c := config(t)
	unlock, err := Lock(c)
	require.NoError(t, err)
	_, err = Lock(c)
	require.ErrorContains(t, err, "in use by another vpp-manager")
	unlock()
	unlock, err = Lock(c)
	require.NoError(t, err)
	unlock()
}

func TestLockFileIsForTheOwnerAlone(t *testing.T) {
	for name, before := range map[string]os.FileMode{"new": 0, "of an older version": 0o644} {
		c := config(t)
		if before != 0 {
			require.NoError(t, os.WriteFile(c.LockFile(), nil, before))
		}
		unlock, err := Lock(c)
		require.NoError(t, err)
		st, err := os.Stat(c.LockFile())
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), name)
		unlock()
	}
}

func TestLockIsNotASymbolicLink(t *testing.T) {
	c := config(t)
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, nil, 0o644))
	require.NoError(t, os.Symlink(victim, c.LockFile()))
	_, err := Lock(c)
	require.ErrorIs(t, err, unix.ELOOP)
}

func TestRunDirThatOthersCanChangeIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o775, 0o757, 0o777 | os.ModeSticky} {
		c := config(t)
		require.NoError(t, os.Chmod(c.RunDir, mode))
		_, err := Lock(c)
		require.ErrorIs(t, err, ErrUnsafeRunDir, "%s", mode)
		require.ErrorContains(t, err, "chmod go-w")
		require.NoFileExists(t, c.LockFile())
	}
	if os.Geteuid() != 0 {
		t.Skip("to give a directory away needs root")
	}
	c := config(t)
	require.NoError(t, os.Chown(c.RunDir, 65534, 65534))
	_, err := Lock(c)
	require.ErrorIs(t, err, ErrUnsafeRunDir)
	require.ErrorContains(t, err, "belongs to user 65534")
}

func TestLockMakesTheRunDir(t *testing.T) {
	c := startup.Config{RunDir: filepath.Join(config(t).RunDir, "a", "b")}
	unlock, err := Lock(c)
	require.NoError(t, err)
	unlock()
	_, err = Lock(startup.Config{RunDir: c.RunDir + "/with space"})
	require.ErrorIs(t, err, startup.ErrRunDir)
	require.NoDirExists(t, c.RunDir+"/with space")
}

func TestStartFollowsNoSymbolicLinks(t *testing.T) {
	c := config(t)
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o644))
	for _, f := range []string{c.ConfFile(), c.PIDFile(), c.LogFile(), filepath.Join(c.RunDir, ".vpp.pid.new")} {
		require.NoError(t, os.Symlink(victim, f))
	}
	// It writes to its log, as VPP does.
	p, err := Start(script(t, "echo hello >>vpp.log; exec sleep 60"), c)
	require.NoError(t, err)
	defer p.Stop(time.Second)
	require.Eventually(t, func() bool {
		st, err := os.Lstat(c.LogFile())
		return err == nil && st.Size() > 0
	}, 5*time.Second, 10*time.Millisecond)
	for _, f := range []string{c.ConfFile(), c.PIDFile(), c.LogFile()} {
		st, err := os.Lstat(f)
		require.NoError(t, err)
		require.True(t, st.Mode().IsRegular(), f)
	}
	raw, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "precious", string(raw))
	left, err := filepath.Glob(filepath.Join(c.RunDir, ".*.new"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// What is put back at the end must be done before another manager begins.
func TestDisownComesBeforeTheLockIsFree(t *testing.T) {
	conf := config(t)
	log, _ := test.NewNullLogger()
	var calls []string
	s := &Supervisor{
		Path: script(t, "exit 3"), Conf: conf, Log: log,
		Owner: func() error { calls = append(calls, "owner"); return nil },
		Disown: func() error {
			_, err := Lock(conf)
			require.ErrorContains(t, err, "in use by another vpp-manager")
			calls = append(calls, "disown")
			return nil
		},
	}
	require.Error(t, s.Run(t.Context()))
	require.Equal(t, []string{"owner", "disown"}, calls)

	unlock, err := Lock(conf)
	require.NoError(t, err)
	defer unlock()
	s = &Supervisor{Path: s.Path, Conf: conf, Log: log, Owner: s.Owner, Disown: s.Disown}
	require.ErrorContains(t, s.Run(t.Context()), "in use by another vpp-manager")
	require.Len(t, calls, 2, "what another manager has is not touched")
}
