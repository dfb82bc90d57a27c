package supervise

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pidIn waits for a script to write a PID into a file.
func pidIn(t *testing.T, path string) int {
	t.Helper()
	var pid int
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	}, 5*time.Second, 10*time.Millisecond)
	return pid
}

// gone: the process has ended; it may be a zombie until somebody reaps it.
func gone(pid int) bool {
	_, alive := processGroup(pid)
	return !alive
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return gone(pid) }, 5*time.Second, 10*time.Millisecond, "process %d lives on", pid)
}

func requireDone(t *testing.T, p *Process, within time.Duration) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(within):
		t.Fatalf("not ended after %s", within)
	}
}

const stubborn = `sh -c 'trap "" TERM; echo $$ >child; while :; do sleep 0.05; done'`

func TestStopReachesWhatAWrapperRuns(t *testing.T) {
	c := config(t)
	p, err := Start(script(t, stubborn+"\necho after"), c)
	require.NoError(t, err)
	child := pidIn(t, filepath.Join(c.RunDir, "child"))
	require.NotEqual(t, p.PID(), child)
	begin := time.Now()
	p.Stop(300 * time.Millisecond)
	require.GreaterOrEqual(t, time.Since(begin), 300*time.Millisecond, "the grace is for the wrapped one as well")
	require.Less(t, time.Since(begin), 3*time.Second)
	require.True(t, gone(child))
}

func TestWrappedOneEndsInOrder(t *testing.T) {
	c := config(t)
	// The shell dies of SIGTERM at once; what it runs needs a moment.
	p, err := Start(script(t, `sh -c 'trap "sleep 0.3; echo done >ended; exit" TERM; echo $$ >child; while :; do sleep 0.05; done'
echo after`), c)
	require.NoError(t, err)
	pidIn(t, filepath.Join(c.RunDir, "child"))
	p.Stop(5 * time.Second)
	require.FileExists(t, filepath.Join(c.RunDir, "ended"))
}

func TestEndOfTheWrapperEndsTheRest(t *testing.T) {
	c := config(t)
	p, err := Start(script(t, stubborn+"\necho after"), c)
	require.NoError(t, err)
	child := pidIn(t, filepath.Join(c.RunDir, "child"))
	require.NoError(t, syscall.Kill(p.PID(), syscall.SIGKILL))
	requireDone(t, p, orphanGrace+killWait+pipeWait+time.Second)
	requireGone(t, child)
	require.Contains(t, p.Death().Status, "signal 9")
}

func TestOutputHeldByOneThatLeftTheGroup(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("setsid(1) not found")
	}
	c := config(t)
	p, err := Start(script(t, "setsid sh -c 'echo $$ >child; exec sleep 30' &\nwhile [ ! -s child ]; do sleep 0.01; done; exit 5"), c)
	require.NoError(t, err)
	child := pidIn(t, filepath.Join(c.RunDir, "child"))
	defer syscall.Kill(child, syscall.SIGKILL)
	requireDone(t, p, pipeWait+5*time.Second)
	require.Equal(t, "exit status 5", p.Death().Status)
	require.False(t, gone(child), "it is not of the group")
}

func TestNothingIsDoneToAReapedProcess(t *testing.T) {
	p, err := Start(script(t, "exit 0"), config(t))
	require.NoError(t, err)
	requireDone(t, p, 5*time.Second)
	require.ErrorIs(t, p.Unpin(), os.ErrProcessDone)
	// Its number may be another's by now: this process's, for the test.
	p.pid.Store(int64(os.Getpid()))
	require.ErrorIs(t, p.Unpin(), os.ErrProcessDone)
	require.False(t, p.group.has(os.Getpid()))
	p.group.leader = syscall.Getpgrp()
	p.group.signal(syscall.SIGKILL) // would end the test
	require.ErrorIs(t, p.Unpin(), os.ErrProcessDone)
}

func TestUnpinIsForMembersOfTheGroup(t *testing.T) {
	p, err := Start(script(t, "exec sleep 60"), config(t))
	require.NoError(t, err)
	defer p.Stop(time.Second)
	require.NoError(t, p.Unpin())
	p.pid.Store(int64(os.Getpid()))
	require.ErrorIs(t, p.Unpin(), os.ErrProcessDone)
}

func TestWrapperOfVPP(t *testing.T) {
	s := &Supervisor{Path: script(t, realVPP(t)+` "$@"
echo after`), Conf: config(t)}
	ready, stop, _ := run(t, s)
	first := waitReady(t, ready)
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(first) + "/comm")
	require.NoError(t, err)
	require.Contains(t, string(comm), "vpp", "the PID is VPP's, not the wrapper's")
	require.Equal(t, first, pidIn(t, s.Conf.PIDFile()))

	// The wrapper dies: its VPP must not live on beside the next one.
	wrapper, err := syscall.Getpgid(first)
	require.NoError(t, err)
	require.NotEqual(t, first, wrapper)
	require.NoError(t, syscall.Kill(wrapper, syscall.SIGKILL))
	second := waitReady(t, ready)
	require.True(t, gone(first))
	require.NotEqual(t, first, second)

	begin := time.Now()
	require.NoError(t, stop())
	require.Less(t, time.Since(begin), 5*time.Second, "VPP ends on SIGTERM")
	require.True(t, gone(second))
	require.NoFileExists(t, s.Conf.PIDFile())
}

func TestVPPThatLeavesTheGroupIsToldOf(t *testing.T) {
	vpp := realVPP(t)
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("setsid(1) not found")
	}
	c := config(t)
	p, err := Start(script(t, `setsid sh -c 'echo $$ >child; exec `+vpp+` "$@"' sh "$@" &
wait`), c)
	require.NoError(t, err)
	defer p.Stop(time.Second)
	child := pidIn(t, filepath.Join(c.RunDir, "child"))
	defer func() {
		require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
		requireGone(t, child)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = p.WaitReady(ctx)
	require.ErrorIs(t, err, ErrForeignVPP)
	require.ErrorContains(t, err, "process "+strconv.Itoa(child)+" answers")
	require.ErrorContains(t, err, "--vpp")
}
