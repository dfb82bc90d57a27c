package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
)

type fake struct {
	report supervise.Report
	err    error
	hangs  bool
}

func (f *fake) Restart(ctx context.Context) (supervise.Report, error) {
	if f.hangs {
		<-ctx.Done()
		return supervise.Report{}, ctx.Err()
	}
	return f.report, f.err
}

func (f *fake) Status() node.Manager { return node.Manager{Version: 1, State: node.StateReady, PID: 7} }

// serve gives a run directory with a door.
func serve(t *testing.T, f *fake) (dir string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "control-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := Listen(dir)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return dir, stop
}

func TestRestartAndStatus(t *testing.T) {
	f := &fake{report: supervise.Report{Links: 3, PID: 8, Version: "25.10"}}
	dir, stop := serve(t, f)
	r, err := Restart(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, f.report, r)
	m, err := Status(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, f.Status(), m)

	f.err = errors.New("no VPP there")
	_, err = Restart(t.Context(), dir)
	require.EqualError(t, err, "vpp-manager: no VPP there")
	f.err = supervise.ErrRestarting
	_, err = Restart(t.Context(), dir)
	require.ErrorContains(t, err, "a restart is under way")

	f.hangs = true
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = Restart(ctx, dir)
	require.ErrorContains(t, err, "did not answer in time")

	stop()
	_, err = Status(t.Context(), dir)
	require.ErrorIs(t, err, ErrNoManager)
}

func TestNoManager(t *testing.T) {
	dir := t.TempDir()
	_, err := Restart(t.Context(), dir)
	require.ErrorIs(t, err, ErrNoManager)
	require.ErrorContains(t, err, "--run-dir")
	// One that was killed leaves its socket.
	l, err := net.Listen("unix", filepath.Join(dir, node.ManagerSocket))
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, err = Status(t.Context(), dir)
	require.ErrorIs(t, err, ErrNoManager)
	l, err = Listen(dir)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestSocketIsForItsUserAlone(t *testing.T) {
	dir, _ := serve(t, &fake{})
	st, err := os.Stat(filepath.Join(dir, node.ManagerSocket))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
}
