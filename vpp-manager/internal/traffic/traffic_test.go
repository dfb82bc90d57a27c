package traffic

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sidewinder-net/sidewinder/xdp"
)

type fakeShim struct {
	mu     sync.Mutex
	name   string
	mode   xdp.Mode
	err    error
	closed int
}

func (s *fakeShim) LinkName() string { return s.name }

func (s *fakeShim) Mode() (xdp.Mode, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode, nil
}

func (s *fakeShim) SetMode(m xdp.Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.mode = m
	}
	return s.err
}

func (s *fakeShim) Close() error { s.closed++; return nil }

func fakes(shims ...*fakeShim) *Links {
	log, _ := test.NewNullLogger()
	return &Links{Log: log, Bounds: Bounds{
		Hold: 200 * time.Millisecond, Pause: time.Millisecond,
		Least: 20 * time.Millisecond, Most: 200 * time.Millisecond, Still: 30 * time.Millisecond,
	}, Find: func() ([]Shim, error) {
		out := make([]Shim, len(shims))
		for i, s := range shims {
			out[i] = s
		}
		return out, nil
	}}
}

func TestHold(t *testing.T) {
	a, b := &fakeShim{name: "a", mode: xdp.ModeVPP}, &fakeShim{name: "b", mode: xdp.ModeKernel}
	bad := &fakeShim{name: "bad", err: errors.New("gone")}
	l := fakes(a, bad, b)
	n, changed, err := l.Hold()
	require.Equal(t, 2, n)
	require.Equal(t, 2, changed)
	require.ErrorContains(t, err, "link bad: XDP shim: gone")
	require.Equal(t, xdp.ModeHeld, a.mode)
	require.Equal(t, xdp.ModeHeld, b.mode, "one that fails holds no other back")
	n, changed, _ = l.Hold()
	require.Equal(t, 2, n)
	require.Zero(t, changed)
	require.Equal(t, 2, bad.closed)
}

func TestDrain(t *testing.T) {
	a := &fakeShim{name: "a", mode: xdp.ModeVPP}
	l := fakes(a)
	var n uint64
	begin := time.Now()
	r, err := l.Drain(t.Context(), func() (uint64, error) {
		if time.Since(begin) < 60*time.Millisecond {
			n++ // still some in the rings
		}
		return n, nil
	})
	require.NoError(t, err)
	require.True(t, r.Quiet)
	require.Equal(t, 1, r.Links)
	require.GreaterOrEqual(t, r.Took, 70*time.Millisecond, "60 ms of packets, 30 ms of silence")
	require.Equal(t, xdp.ModeHeld, a.mode)

	r, err = l.Drain(t.Context(), func() (uint64, error) { n++; return n, nil })
	require.NoError(t, err)
	require.False(t, r.Quiet, "copies come for ever")
	require.GreaterOrEqual(t, r.Took, 200*time.Millisecond)

	r, err = l.Drain(t.Context(), nil)
	require.NoError(t, err)
	require.False(t, r.Quiet)
	require.GreaterOrEqual(t, r.Took, 20*time.Millisecond)

	r, err = l.Drain(t.Context(), func() (uint64, error) { return 0, errors.New("no statistics") })
	require.NoError(t, err)
	require.False(t, r.Quiet)
	require.Less(t, r.Took, time.Second)
}

// An agent that does not know yet switches a link back, once, or always.
func TestDrainSeesToItThatLinksStayHeld(t *testing.T) {
	for times, wantErr := range map[int]bool{1: false, 3: false, 1 << 30: true} {
		a := &fakeShim{name: "a", mode: xdp.ModeVPP}
		l := fakes(a)
		find, left := l.Find, times
		l.Find = func() ([]Shim, error) {
			if left > 0 {
				left--
				_ = a.SetMode(xdp.ModeVPP)
			}
			return find()
		}
		begin := time.Now()
		_, err := l.Drain(t.Context(), nil)
		require.Equal(t, wantErr, err != nil, "%d times: %v", times, err)
		require.Less(t, time.Since(begin), 2*time.Second)
		require.Equal(t, xdp.ModeHeld, a.mode)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	l := fakes(&fakeShim{name: "a"})
	l.Bounds.Most, l.Bounds.Least = time.Hour, time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, _ := l.Drain(ctx, nil)
	require.False(t, r.Quiet)
	require.Less(t, r.Took, 5*time.Second)
}

// With real shims, and a process that is killed.
func TestGuard(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // the thread ends with the test, and its namespace
	ns, err := netns.New()
	require.NoError(t, err)
	defer ns.Close()
	for i, name := range []string{"a", "b", "c"} {
		require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}))
		l, err := netlink.LinkByName(name)
		require.NoError(t, err)
		s, err := xdp.Attach(l.Attrs().Index)
		if errors.Is(err, xdp.ErrUnsupported) {
			t.Skip(err)
		}
		require.NoError(t, err)
		defer s.Detach()
		if i < 2 { // one is not VPP's
			require.NoError(t, s.SetMode(xdp.ModeVPP))
		}
	}
	modes := func() (out []xdp.Mode) {
		shims, err := xdp.FindAll()
		require.NoError(t, err)
		for _, s := range shims {
			m, err := s.Mode()
			require.NoError(t, err)
			out = append(out, m)
			_ = s.Close()
		}
		return out
	}
	for name, kill := range map[string]func(*os.Process) error{
		"killed":   func(p *os.Process) error { return p.Kill() },
		"crashed":  func(p *os.Process) error { return p.Signal(syscall.SIGSEGV) },
		"ended":    func(p *os.Process) error { return p.Signal(syscall.SIGUSR1) },
		"released": func(p *os.Process) error { return p.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			require.NoError(t, netns.Set(ns))
			victim := exec.Command("sh", "-c", "trap 'exit 0' USR1; trap : TERM; echo; while :; do sleep 0.02; done")
			out, err := victim.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, victim.Start())
			defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
			_, err = out.Read(make([]byte, 1)) // the traps are set
			require.NoError(t, err)
			g, err := xdp.NewGuard(victim.Process.Pid)
			if errors.Is(err, xdp.ErrUnsupported) {
				t.Skip(err)
			}
			require.NoError(t, err)
			defer g.Close()
			shims, err := xdp.FindAll()
			require.NoError(t, err)
			for _, s := range shims[:2] {
				require.NoError(t, s.SetMode(xdp.ModeVPP))
			}
			require.NoError(t, g.Cover(shims))
			require.NoError(t, g.Cover(shims[:2]), "one is left out again")
			for _, s := range shims {
				_ = s.Close()
			}
			// The death of another changes nothing.
			require.Error(t, exec.Command("sh", "-c", "kill -9 $$").Run())
			require.Equal(t, []xdp.Mode{xdp.ModeVPP, xdp.ModeVPP, xdp.ModeKernel}, modes())
			require.NoError(t, kill(victim.Process))
			if name == "released" {
				time.Sleep(100 * time.Millisecond)
				require.Equal(t, []xdp.Mode{xdp.ModeVPP, xdp.ModeVPP, xdp.ModeKernel}, modes(), "a signal that is handled")
				return
			}
			_, _ = victim.Process.Wait()
			require.Equal(t, []xdp.Mode{xdp.ModeHeld, xdp.ModeHeld, xdp.ModeKernel}, modes())
		})
	}
}

// What the manager runs covers links that come later.
func TestGuardFollowsTheLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	require.NoError(t, err)
	defer ns.Close()
	victim := exec.Command("sleep", "60")
	require.NoError(t, victim.Start())
	defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if netns.Set(ns) == nil {
			ForHost(log).Guard(ctx, victim.Process.Pid)
		}
	}()
	defer func() { cancel(); <-done }()
	time.Sleep(200 * time.Millisecond)
	for _, e := range hook.AllEntries() {
		if e.Level == logrus.WarnLevel {
			t.Skip(e.Message, e.Data)
		}
	}
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}))
	l, err := netlink.LinkByName("a")
	require.NoError(t, err)
	s, err := xdp.Attach(l.Attrs().Index)
	require.NoError(t, err)
	defer s.Detach()
	require.NoError(t, s.SetMode(xdp.ModeVPP))
	time.Sleep(guardEvery + 500*time.Millisecond)
	require.NoError(t, victim.Process.Kill())
	_ = victim.Wait()
	m, err := s.Mode()
	require.NoError(t, err)
	require.Equal(t, xdp.ModeHeld, m)
}

// guardedPID names, to a copy of this program, the process that it is to guard.
const guardedPID = "SIDEWINDER_TEST_GUARDED_PID"

// VPP dies with its manager: that is too late for what is on the way to it, as the
// manager's guard has gone by then.
func TestGuardWhenTheManagerIsKilled(t *testing.T) {
	if pid, err := strconv.Atoi(os.Getenv(guardedPID)); err == nil {
		log := logrus.New()
		log.SetOutput(os.Stdout)
		ForHost(log).Guard(t.Context(), pid)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	require.NoError(t, err)
	defer ns.Close()
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}))
	l, err := netlink.LinkByName("a")
	require.NoError(t, err)
	s, err := xdp.Attach(l.Attrs().Index)
	if errors.Is(err, xdp.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer s.Detach()
	require.NoError(t, s.SetMode(xdp.ModeVPP))
	vpp := exec.Command("sleep", "60")
	require.NoError(t, vpp.Start())
	defer func() { _ = vpp.Process.Kill(); _ = vpp.Wait() }()
	manager := exec.Command(os.Args[0], "-test.run=^TestGuardWhenTheManagerIsKilled$")
	manager.Env = append(os.Environ(), guardedPID+"="+strconv.Itoa(vpp.Process.Pid))
	var said bytes.Buffer
	manager.Stdout = &said
	require.NoError(t, manager.Start())
	defer func() { _ = manager.Process.Kill() }()
	time.Sleep(guardEvery + 500*time.Millisecond)
	m, err := s.Mode()
	require.NoError(t, err)
	require.Equal(t, xdp.ModeVPP, m)
	require.NoError(t, manager.Process.Kill())
	_ = manager.Wait()
	if strings.Contains(said.String(), "level=warning") {
		t.Skip(said.String())
	}
	m, err = s.Mode()
	require.NoError(t, err)
	require.Equal(t, xdp.ModeHeld, m)
	require.NoError(t, vpp.Process.Signal(syscall.Signal(0)), "VPP lives on, in this test")
}
