package supervise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/watchdog"
)

// timed notes when the links were held.
type timed struct {
	links
	held chan time.Time
}

func (l *timed) Hold() (int, int, error) { l.held <- time.Now(); return l.links.Hold() }

func hangRounds() int {
	if n, err := strconv.Atoi(os.Getenv("SIDEWINDER_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return 3
}

func TestStoppedVPPIsFound(t *testing.T) {
	l := &timed{held: make(chan time.Time, 64)}
	limits := watchdog.DefaultLimits()
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l, Watch: &limits}
	ready, _, logs := run(t, s)
	var found []time.Duration
	for i := range hangRounds() {
		pid := waitReady(t, ready)
		time.Sleep(time.Duration(50+17*i) * time.Millisecond) // at any phase of the watchdog
		begin := time.Now()
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		select {
		case at := <-l.held:
			found = append(found, at.Sub(begin))
		case <-time.After(5 * time.Second):
			t.Fatal("a stopped VPP is not found")
		}
		m := waitState(t, s.Conf, node.StateWaiting)
		require.Contains(t, m.LastDeath, "VPP hung: stopped (state T)")
		requireGone(t, pid)
		_, err := s.Restart(t.Context()) // not to wait longer and longer
		require.NoError(t, err)
	}
	for _, e := range logs.AllEntries() {
		if strings.Contains(e.Message, "watchdog") {
			t.Log(e.Message, e.Data)
		}
	}
	slices.Sort(found)
	t.Logf("SIGSTOP found after: %v", found)
	require.Less(t, found[len(found)/2], 500*time.Millisecond)
}

// busyAll keeps every CPU busy, twice over.
func busyAll(t *testing.T) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 * runtime.NumCPU() {
		wg.Go(func() {
			for n := 0; ; n++ {
				if n%100000 == 0 {
					select {
					case <-stop:
						return
					default:
					}
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); wg.Wait() })
}

func TestBusyVPPIsLeftAlone(t *testing.T) {
	l := &timed{held: make(chan time.Time, 64)}
	limits := watchdog.DefaultLimits()
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l, Watch: &limits}
	ready, stop, _ := run(t, s)
	waitReady(t, ready)
	busyAll(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c, err := binapi.Dial(ctx, binapi.Options{Socket: s.Conf.APISocket(), ReplyTimeout: 30 * time.Second})
	require.NoError(t, err)
	defer c.Close()
	cli := func(command string) {
		t.Helper()
		var out string
		require.NoError(t, c.Do(ctx, binapi.CLI(command, &out)))
	}
	// Each of these keeps VPP's main thread from all else: interfaces and
	// routes by the thousands in one command file, and one long command.
	var b strings.Builder
	for range 150 {
		b.WriteString("create loopback interface\n")
	}
	for i := range 10000 {
		fmt.Fprintf(&b, "ip route add 10.%d.%d.0/24 via 192.168.1.1 loop0\n", i/256, i%256)
	}
	file := filepath.Join(s.Conf.RunDir, "many.cli")
	require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		cli("exec " + file)
		cli("test heap-validate now")
		cli("ip route add count 100000 11.0.0.0/24 via 192.168.1.1 loop0")
		cli("ip route del count 100000 11.0.0.0/24 via 192.168.1.1 loop0")
	}
	require.Empty(t, l.held, "it was busy, or starved")
	require.NoError(t, stop())
	require.Equal(t, 1, s.Status().Starts)
	require.Zero(t, s.Status().Deaths)
}

// The main thread waits for ever: it opens a pipe that nobody writes to.
func TestVPPThatHangsIsFound(t *testing.T) {
	l := &timed{held: make(chan time.Time, 64)}
	limits := watchdog.DefaultLimits()
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l, Watch: &limits}
	ready, _, _ := run(t, s)
	var found []time.Duration
	for i := range hangRounds() {
		pid := waitReady(t, ready)
		fifo := filepath.Join(s.Conf.RunDir, "fifo"+strconv.Itoa(i))
		require.NoError(t, syscall.Mkfifo(fifo, 0o600))
		c, err := binapi.Dial(t.Context(), binapi.Options{Socket: s.Conf.APISocket()})
		require.NoError(t, err)
		var out string
		ended := make(chan struct{})
		begin := time.Now()
		go func() {
			defer close(ended)
			_ = c.Do(context.Background(), binapi.CLI("exec "+fifo, &out))
		}()
		select {
		case at := <-l.held:
			found = append(found, at.Sub(begin))
		case <-time.After(5 * time.Second):
			t.Fatal("a VPP that hangs is not found")
		}
		m := waitState(t, s.Conf, node.StateWaiting)
		require.Contains(t, m.LastDeath, "asleep")
		requireGone(t, pid)
		<-ended
		_ = c.Close()
		_, err = s.Restart(t.Context())
		require.NoError(t, err)
	}
	slices.Sort(found)
	t.Logf("hang found after: %v", found)
	require.Less(t, found[len(found)/2], 500*time.Millisecond)
}

// Workers that have nothing to do are no worse than busy ones.
func TestIdleWorkersAreLeftAlone(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("a worker needs a CPU of its own")
	}
	l := &timed{held: make(chan time.Time, 64)}
	limits := watchdog.DefaultLimits().WithBusy(time.Second)
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l, Watch: &limits}
	s.Conf.Workers = 1
	ready, stop, _ := run(t, s)
	waitReady(t, ready)
	time.Sleep(5 * time.Second)
	require.Empty(t, l.held)
	require.NoError(t, stop())
	require.Zero(t, s.Status().Deaths)
}

// A tracer takes the worker's thread and never lets it go; the main thread
// runs on.
func TestWorkerThatHangsIsFound(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("a worker needs a CPU of its own")
	}
	l := &timed{held: make(chan time.Time, 64)}
	limits := watchdog.DefaultLimits()
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l, Watch: &limits}
	s.Conf.Workers = 1
	ready, _, _ := run(t, s)
	pid := waitReady(t, ready)
	worker := 0
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
	require.NoError(t, err)
	for _, f := range tasks {
		if comm, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(comm), "vpp_wk_") {
			worker, _ = strconv.Atoi(filepath.Base(filepath.Dir(f)))
		}
	}
	require.NotZero(t, worker)
	runtime.LockOSThread() // the tracer is this thread
	if err := syscall.PtraceAttach(worker); err != nil {
		t.Skip("ptrace: ", err)
	}
	select {
	case <-l.held:
	case <-time.After(10 * time.Second):
		t.Fatal("a worker that hangs is not found")
	}
	// A thread that is traced has not ended before its tracer knows.
	for {
		if _, err := syscall.Wait4(worker, nil, syscall.WALL, nil); err != nil && err != syscall.EINTR {
			break
		}
	}
	waitReady(t, ready)
	require.Contains(t, s.Status().LastDeath, "stopped (state t)")
}
