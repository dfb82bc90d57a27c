package supervise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/traffic"
)

// links stands in for the shims.
type links struct {
	mu     sync.Mutex
	events []string
	err    error
}

func (l *links) say(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, s)
}

func (l *links) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.events, " ")
}

func (l *links) Hold() (int, int, error) { l.say("hold"); return 3, 3, l.err }

func (l *links) Drain(_ context.Context, rx traffic.Counter) (traffic.Report, error) {
	l.say("drain")
	if rx != nil {
		if _, err := rx(); err != nil {
			return traffic.Report{}, err
		}
	}
	return traffic.Report{Links: 3, Quiet: rx != nil, Took: time.Millisecond}, l.err
}

func (l *links) Guard(ctx context.Context, _ int) { <-ctx.Done() }

func stateOf(t *testing.T, c startup.Config) node.Manager {
	t.Helper()
	m, err := node.ReadManager(c.RunDir)
	require.NoError(t, err)
	return m
}

func waitState(t *testing.T, c startup.Config, want node.State) node.Manager {
	t.Helper()
	var m node.Manager
	require.Eventually(t, func() bool {
		var err error
		m, err = node.ReadManager(c.RunDir)
		return err == nil && m.State == want
	}, 15*time.Second, 5*time.Millisecond, "the state does not become %q", want)
	return m
}

func TestStatesOfALife(t *testing.T) {
	l := &links{}
	var hooks []string
	s := &Supervisor{
		Path: realVPP(t), Conf: config(t), Traffic: l,
		Before:  func() error { hooks = append(hooks, "before"); return nil },
		After:   func() { hooks = append(hooks, "after") },
		Uplinks: func() []node.DedicatedUplink { return []node.DedicatedUplink{{Link: "eth7"}} },
	}
	ready, stop, _ := run(t, s)
	pid := waitReady(t, ready)
	m := waitState(t, s.Conf, node.StateReady)
	require.Equal(t, pid, m.PID)
	require.NotEmpty(t, m.VPPVersion)
	require.Equal(t, 1, m.Starts)
	require.Equal(t, "eth7", m.Uplinks[0].Link)
	require.Equal(t, m, withoutMonotonic(s.Status()))

	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	m = waitState(t, s.Conf, node.StateWaiting)
	require.Zero(t, m.PID)
	require.Equal(t, 1, m.Deaths)
	require.Contains(t, m.LastDeath, "signal 9")
	require.WithinDuration(t, time.Now(), m.NextStart, time.Second)
	waitReady(t, ready)
	m = waitState(t, s.Conf, node.StateReady)
	require.Equal(t, 2, m.Starts)
	require.Zero(t, m.NextStart)
	require.Contains(t, m.LastDeath, "signal 9", "it is remembered")

	require.NoError(t, stop())
	m = stateOf(t, s.Conf)
	require.Equal(t, node.StateStopped, m.State)
	require.Zero(t, m.PID)
	require.Equal(t, 1, m.Deaths, "a stop in order is no death")
	require.Equal(t, "drain", l.said(), "before the stop, and not after the death")
	require.Equal(t, []string{"before", "after", "before", "after"}, hooks)
}

func withoutMonotonic(m node.Manager) node.Manager {
	m.Since, m.LastDeathAt, m.NextStart = m.Since.Round(0).UTC(), m.LastDeathAt.Round(0), m.NextStart.Round(0)
	return m
}

func TestRestartByPlan(t *testing.T) {
	l := &links{}
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l}
	ready, _, _ := run(t, s)
	first := waitReady(t, ready)

	r, err := s.Restart(t.Context())
	require.NoError(t, err)
	second := waitReady(t, ready)
	require.Equal(t, first, r.OldPID)
	require.Equal(t, second, r.PID)
	require.NotEqual(t, first, second)
	require.NotEmpty(t, r.Version)
	require.Equal(t, 3, r.Links)
	require.True(t, r.Quiet, "VPP's counters were read")
	require.True(t, gone(first))
	require.Equal(t, "drain", l.said())

	l.mu.Lock()
	l.err = errors.New("a link is stubborn")
	l.mu.Unlock()
	r, err = s.Restart(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a link is stubborn", r.DrainError, "it is told, and goes on")
	require.Zero(t, stateOf(t, s.Conf).Deaths)
}

// What is there at the time of the restart is started.
func TestRestartIsAnUpgrade(t *testing.T) {
	vpp, c := realVPP(t), config(t)
	path, broken := vpp, script(t, "echo of the wrong release >&2; exit 6")
	var mu sync.Mutex
	s := &Supervisor{Path: vpp, Conf: c, MaxDeaths: 2, DeathWindow: time.Minute, Next: func() (string, startup.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return path, c, nil
	}}
	set := func(p string) { mu.Lock(); defer mu.Unlock(); path = p }
	ready, _, _ := run(t, s)
	waitReady(t, ready)

	set(broken)
	_, err := s.Restart(t.Context())
	require.ErrorContains(t, err, "of the wrong release")
	m := waitState(t, c, node.StateGivenUp)
	require.Contains(t, m.LastDeath, "exit status 6")
	require.Equal(t, 2, m.Deaths)

	_, err = s.Restart(t.Context())
	require.ErrorContains(t, err, "exit status 6", "another chance")

	set(vpp)
	r, err := s.Restart(t.Context())
	require.NoError(t, err)
	require.Zero(t, r.OldPID)
	require.Equal(t, waitReady(t, ready), r.PID)
	require.Equal(t, node.StateReady, waitState(t, c, node.StateReady).State)
}

func TestTooManyDeaths(t *testing.T) {
	s := &Supervisor{Path: realVPP(t), Conf: config(t), MaxDeaths: 3, DeathWindow: time.Minute}
	uplinks := []node.DedicatedUplink{{Link: "eth0"}}
	s.Uplinks = func() []node.DedicatedUplink { return uplinks }
	ready, stop, logs := run(t, s)
	for range 3 {
		pid := waitReady(t, ready)
		require.Equal(t, uplinks, s.Status().Uplinks)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	m := waitState(t, s.Conf, node.StateGivenUp)
	require.Empty(t, m.Uplinks, "the host gets them back")
	require.Equal(t, 3, m.Deaths)
	require.Zero(t, m.NextStart)
	select {
	case <-ready:
		t.Fatal("it is started again")
	case <-time.After(time.Second):
	}
	said := false
	for _, e := range logs.AllEntries() {
		said = said || strings.Contains(e.Message, "vpp-manager restart --run-dir "+s.Conf.RunDir)
	}
	require.True(t, said, "the log tells what to do")

	_, err := s.Restart(t.Context())
	require.NoError(t, err)
	waitReady(t, ready)
	require.Equal(t, uplinks, s.Status().Uplinks)
	require.NoError(t, stop())
	require.Equal(t, node.StateStopped, stateOf(t, s.Conf).State)
	require.Empty(t, stateOf(t, s.Conf).Uplinks)
}

// Deaths long ago do not count.
func TestDeathsFarBetween(t *testing.T) {
	s := &Supervisor{Path: realVPP(t), Conf: config(t), MaxDeaths: 2, DeathWindow: 100 * time.Millisecond}
	ready, _, _ := run(t, s)
	for range 3 {
		pid := waitReady(t, ready)
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	waitReady(t, ready)
}

func TestOneRestartAtATime(t *testing.T) {
	s := &Supervisor{Path: realVPP(t), Conf: config(t)}
	ready, stop, _ := run(t, s)
	waitReady(t, ready)
	first := make(chan error, 1)
	go func() { _, err := s.Restart(context.Background()); first <- err }()
	require.Eventually(t, func() bool { return len(s.shared().busy) == 1 }, time.Second, time.Millisecond)
	_, err := s.Restart(t.Context())
	require.ErrorIs(t, err, ErrRestarting)
	require.NoError(t, <-first)
	require.NoError(t, stop())
	_, err = s.Restart(t.Context())
	require.ErrorIs(t, err, ErrEnding)
}

func TestBeforeThatFails(t *testing.T) {
	after := false
	s := &Supervisor{
		Path: script(t, "touch started"), Conf: config(t),
		Before: func() error { return errors.New("no such NIC") }, After: func() { after = true },
	}
	s.Log, _ = test.NewNullLogger()
	require.ErrorContains(t, s.Run(t.Context()), "no such NIC")
	require.False(t, after)
	require.NoFileExists(t, filepath.Join(s.Conf.RunDir, "started"))
	require.Contains(t, stateOf(t, s.Conf).LastDeath, "no such NIC")
}

func TestRunDirectoryStays(t *testing.T) {
	s := &Supervisor{Conf: config(t), Next: func() (string, startup.Config, error) {
		return "/bin/true", startup.Config{RunDir: os.TempDir()}, nil
	}}
	s.Log, _ = test.NewNullLogger()
	require.ErrorContains(t, s.Run(t.Context()), "start it anew")
}

// A VPP that answers but cannot be used counts as one that did not come up: the
// first time that is an error, later it is started again.
func TestVPPThatCannotBeUsed(t *testing.T) {
	refused := errors.New("no such interface")
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Connect: func(context.Context) error { return refused }}
	s.Log, _ = test.NewNullLogger()
	require.ErrorIs(t, s.Run(t.Context()), refused)
	require.Zero(t, stateOf(t, s.Conf).PID)

	var mu sync.Mutex
	calls := 0
	s = &Supervisor{Path: realVPP(t), Conf: config(t), Connect: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == 2 {
			return refused
		}
		return nil
	}}
	ready, stop, _ := run(t, s)
	first := waitReady(t, ready)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	waitReady(t, ready)
	m := stateOf(t, s.Conf)
	require.Equal(t, 3, m.Starts)
	require.Equal(t, 2, m.Deaths)
	require.Contains(t, m.LastDeath, "VPP answers, and is of no use: no such interface")
	require.NoError(t, stop())
}

// VPP does not heed SIGTERM while it starts.
func TestTheEndDoesNotWaitForAVPPThatStarts(t *testing.T) {
	s := &Supervisor{Path: script(t, "trap '' TERM; while :; do sleep 0.05; done"), Conf: config(t), Grace: time.Minute}
	s.Log, _ = test.NewNullLogger()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	require.Eventually(t, func() bool { return s.Status().Starts == 1 }, 10*time.Second, time.Millisecond)
	pid := s.Status().PID
	time.Sleep(50 * time.Millisecond) // the trap is set
	begin := time.Now()
	cancel()
	require.NoError(t, <-done)
	require.Less(t, time.Since(begin), 5*time.Second)
	requireGone(t, pid)
}
