package cniserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
)

// apart has folders and a socket of its own, but the rig's network namespace.
func (r *rig) apart(n int) Options {
	opt := r.opt
	opt.StateDir = filepath.Join(r.dir, fmt.Sprintf("state%d", n))
	opt.Socket = filepath.Join(r.dir, fmt.Sprintf("run%d", n), "cni.sock")
	return opt
}

func TestSecondAgentInTheNamespace(t *testing.T) {
	r := newRig(t)
	first, err := New(r.opt) // Not even run.
	require.NoError(t, err)
	other := r.apart(2)
	for range 3 {
		_, err = New(other)
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, fmt.Sprintf("process %d", os.Getpid()))
	}
	require.NoDirExists(t, other.StateDir, "nothing is made before")
	first.Close()
	require.NoFileExists(t, r.opt.Socket)

	second, err := New(other)
	require.NoError(t, err)
	defer second.Close()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a network namespace")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // The thread ends with the goroutine.
		ns, err := netns.New()
		if err == nil {
			defer ns.Close()
			var third *Server
			if third, err = New(r.apart(3)); err == nil {
				third.Close()
			}
		}
		done <- err
	}()
	require.NoError(t, <-done, "another network namespace is another node")
}

func TestSimultaneousStarters(t *testing.T) {
	r := newRig(t)
	tests := map[string]func(n int) Options{
		"one namespace": r.apart,
		"one socket": func(n int) Options {
			opt := r.apart(n)
			opt.Socket = r.opt.Socket
			opt.Lock += fmt.Sprint(n)
			return opt
		},
		"one state folder": func(n int) Options {
			opt := r.apart(n)
			opt.StateDir = r.opt.StateDir
			opt.Lock += fmt.Sprint(n)
			return opt
		},
	}
	for name, opt := range tests {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			won := make(chan *Server, 8)
			for n := range cap(won) {
				wg.Go(func() {
					s, err := New(opt(n))
					if err == nil {
						won <- s
					} else if !errors.Is(err, ErrInUse) {
						t.Errorf("starter %d: %v", n, err)
					}
				})
			}
			wg.Wait()
			close(won)
			require.Len(t, won, 1)
			for s := range won {
				s.Close()
			}
		})
	}
}

// A stranger's process must not keep the agent from starting.
func TestLockOfAStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it runs a process of another user")
	}
	r := newRig(t)
	stranger := func(uid uint32) (stop func()) {
		t.Helper()
		python, err := exec.LookPath("python3")
		if err != nil {
			t.Skipf("needs python3: %v", err)
		}
		cmd := exec.Command(python, "-c", "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0'+sys.argv[1])\ns.listen()\nprint('ok',flush=True)\ntime.sleep(60)", r.opt.Lock)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 8))
		require.NoError(t, err)
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	}
	stop := stranger(65534)
	defer stop()
	s, err := New(r.opt)
	require.NoError(t, err)
	s.Close()
	stop()

	stop = stranger(0)
	defer stop()
	_, err = New(r.opt)
	require.ErrorIs(t, err, ErrInUse)
}

// The socket is closed to others when it is made, not soon after.
func TestSocketIsMadeClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	l, err := listenClosed(path)
	require.NoError(t, err)
	defer l.Close()
	fi, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
}

// The socket is there from New to Close.
func TestSocketBeforeRun(t *testing.T) {
	r := newRig(t)
	s, err := New(r.opt)
	require.NoError(t, err)
	c, err := net.Dial("unix", r.opt.Socket)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	s.Close()
	_, err = net.Dial("unix", r.opt.Socket)
	require.ErrorIs(t, err, syscall.ENOENT, "the agent is gone in order")
}
