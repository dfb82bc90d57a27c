package supervise

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// script makes an executable that stands in for VPP.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vpp")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	return path
}

func config(t *testing.T) startup.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "supervise-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return startup.Config{RunDir: dir, MainHeap: "128M", Buffers: 2048, Plugins: startup.DefaultPlugins()}
}

func realVPP(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if p := os.Getenv("SIDEWINDER_VPP"); p != "" {
		return p
	}
	p, err := exec.LookPath("vpp")
	if err != nil {
		t.Skip("VPP not found")
	}
	return p
}

// run runs a supervisor in the background; ready gets each PID.
func run(t *testing.T, s *Supervisor) (ready chan int, stop func() error, logs *test.Hook) {
	t.Helper()
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	s.Log = log
	ready = make(chan int, 16)
	s.Ready = func(pid int, _ string) { ready <- pid }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(15 * time.Second):
			return errors.New("the supervisor does not end")
		}
	})
	t.Cleanup(func() { require.NoError(t, stop()) })
	return ready, stop, hook
}

func waitReady(t *testing.T, ready chan int) int {
	t.Helper()
	select {
	case pid := <-ready:
		return pid
	case <-time.After(30 * time.Second):
		t.Fatal("VPP is not ready")
	}
	return 0
}

func TestDeathAtStartSaysWhy(t *testing.T) {
	for text, want := range map[string][]string{
		"echo no such luck >&2; exit 3": {"exit status 3", "no such luck"},
		"kill -11 $$":                   {"signal 11"},
		"exit 0":                        {"exit status 0"},
	} {
		s := &Supervisor{Path: script(t, text), Conf: config(t), Log: logrus.New()}
		err := s.Run(context.Background())
		var death *DeathError
		require.ErrorAs(t, err, &death, text)
		for _, w := range want {
			require.ErrorContains(t, err, w)
		}
	}
}

// plenty of huge pages, so it says.
func plenty() startup.HugePages {
	return startup.HugePages{Size: 2 << 20, Free: 1 << 20, Nodes: []uint64{1 << 20}}
}

func TestHugePagesTakenMeanwhile(t *testing.T) {
	path := realVPP(t)
	if config(t).FitsHugePages(startup.ReadHugePages("/")) {
		// Dies as VPP does when the pages are gone.
		path = script(t, `grep -q hugepage "$2" && { echo no huge pages >&2; exit 1; }
exec `+path+` "$@"`)
	}
	s := &Supervisor{Path: path, Conf: config(t), HugePages: plenty}
	ready, stop, logs := run(t, s)
	waitReady(t, ready)
	text, err := os.ReadFile(s.Conf.ConfFile())
	require.NoError(t, err)
	require.Contains(t, string(text), "main-heap-page-size 4k")
	require.NoError(t, stop())
	warned := false
	for _, e := range logs.AllEntries() {
		warned = warned || e.Level == logrus.WarnLevel && strings.Contains(e.Message, "huge pages")
	}
	require.True(t, warned)
}

func TestHugePagesAreCountedAtEachStart(t *testing.T) {
	counts := []startup.HugePages{plenty(), {}, plenty()}
	s := &Supervisor{Conf: config(t), Log: logrus.New(), HugePages: func() startup.HugePages {
		h := counts[0]
		counts = counts[1:]
		return h
	}}
	require.True(t, s.pages(s.Conf, false).HugePages)
	require.False(t, s.pages(s.Conf, false).HugePages)
	require.False(t, s.pages(s.Conf, true).HugePages)
	require.True(t, s.pages(s.Conf, false).HugePages)
}

// A VPP that dies for another reason is tried twice, and the second death is
// the error.
func TestDeathWithAndWithoutHugePages(t *testing.T) {
	s := &Supervisor{Path: script(t, "echo once >>starts; exit 4"), Conf: config(t), HugePages: plenty, Log: logrus.New()}
	require.ErrorContains(t, s.Run(context.Background()), "exit status 4")
	starts, err := os.ReadFile(filepath.Join(s.Conf.RunDir, "starts"))
	require.NoError(t, err)
	require.Equal(t, "once\nonce\n", string(starts))
}

func TestNoExecutable(t *testing.T) {
	s := &Supervisor{Path: filepath.Join(t.TempDir(), "none"), Conf: config(t), Log: logrus.New()}
	require.ErrorIs(t, s.Run(context.Background()), os.ErrNotExist)
}

func TestStartTimeout(t *testing.T) {
	s := &Supervisor{Path: script(t, "exec sleep 60"), Conf: config(t), Log: logrus.New(), StartTimeout: 200 * time.Millisecond}
	require.ErrorContains(t, s.Run(context.Background()), "did not answer within 200ms")
}

func TestStopKillsWhatIgnoresSIGTERM(t *testing.T) {
	p, err := Start(script(t, "trap '' TERM; while :; do sleep 0.05; done"), config(t))
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond) // until the trap is set
	begin := time.Now()
	p.Stop(300 * time.Millisecond)
	require.GreaterOrEqual(t, time.Since(begin), 300*time.Millisecond)
	require.Contains(t, p.Death().Status, "signal 9")
}

func TestRunKillRestartStop(t *testing.T) {
	s := &Supervisor{Path: realVPP(t), Conf: config(t)}
	ready, stop, logs := run(t, s)
	first := waitReady(t, ready)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	second := waitReady(t, ready)
	require.NotEqual(t, first, second)
	for _, f := range s.Conf.SharedMemory() {
		_, err := os.Stat(f)
		require.ErrorIs(t, err, os.ErrNotExist, "a VPP that is killed must leave no shared memory")
	}
	raw, err := os.ReadFile(s.Conf.PIDFile())
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(second), strings.TrimSpace(string(raw)))
	said := false
	for _, e := range logs.AllEntries() {
		if err, ok := e.Data[logrus.ErrorKey].(error); ok && strings.Contains(err.Error(), "signal 9 (killed)") {
			said = true
		}
	}
	require.True(t, said, "the log must say why VPP died")

	require.NoError(t, stop())
	require.ErrorIs(t, syscall.Kill(second, 0), syscall.ESRCH, "VPP must be gone")
	for _, f := range append(s.Conf.SharedMemory(), s.Conf.APISocket(), s.Conf.PIDFile()) {
		_, err := os.Stat(f)
		require.ErrorIs(t, err, os.ErrNotExist, f)
	}
}

func TestTwoSideBySide(t *testing.T) {
	path := realVPP(t)
	a, b := &Supervisor{Path: path, Conf: config(t)}, &Supervisor{Path: path, Conf: config(t)}
	readyA, _, _ := run(t, a)
	readyB, _, _ := run(t, b)
	pa, pb := waitReady(t, readyA), waitReady(t, readyB)
	require.NotEqual(t, pa, pb)
	// The end of one leaves the other alone.
	require.NoError(t, syscall.Kill(pa, syscall.SIGKILL))
	waitReady(t, readyA)
	require.NoError(t, syscall.Kill(pb, 0))
}

// cpuTime is what a process has used, from /proc.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	require.NoError(t, err)
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	var ticks int
	for _, s := range f[11:13] {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func TestIdleVPPSleeps(t *testing.T) {
	s := &Supervisor{Path: realVPP(t), Conf: config(t)}
	ready, _, _ := run(t, s)
	pid := waitReady(t, ready)
	time.Sleep(500 * time.Millisecond) // until it has settled
	const d = 2 * time.Second
	before := cpuTime(t, pid)
	time.Sleep(d)
	used := cpuTime(t, pid) - before
	require.Less(t, used, d/5, "an idle VPP used %s in %s", used, d)
}
