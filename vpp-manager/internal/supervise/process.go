// Package supervise starts VPP, tells when it is ready, and says why it died.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// Process is one run of VPP.
type Process struct {
	conf   startup.Config
	cmd    *exec.Cmd
	group  *group
	pid    atomic.Int64
	out    tail
	logged int64 // size of the log at the start
	done   chan struct{}
	err    error // after done
}

// pipeWait bounds the wait for the end of the output, once the process group
// has ended: one that left the group may hold the pipe.
const pipeWait = time.Second

// DeathError says how a VPP ended.
type DeathError struct {
	// Status is the exit status or signal in words.
	Status string
	// LastLines of its log and error output.
	LastLines []string
}

func (e *DeathError) Error() string {
	s := "VPP ended: " + e.Status
	if len(e.LastLines) > 0 {
		s += "; its last words:\n  " + strings.Join(e.LastLines, "\n  ")
	}
	return s
}

// Start writes the configuration and starts the VPP at path. It dies with this
// process. The caller must have the run directory for itself (see Lock).
func Start(path string, conf startup.Config) (*Process, error) {
	text, err := conf.Text()
	if err != nil {
		return nil, err
	}
	if err := endLeftover(conf); err != nil {
		return nil, err
	}
	if err := writeFile(conf.ConfFile(), text); err != nil {
		return nil, err
	}
	if err := sweep(conf); err != nil {
		return nil, err
	}
	p := &Process{conf: conf, done: make(chan struct{})}
	if p.logged, err = rotate(conf.LogFile(), mostLog); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(path, "-c", conf.ConfFile())
	p.cmd.Dir = conf.RunDir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = pipeWait
	// A process group of its own: a Ctrl-C at the terminal is for the manager,
	// which then stops VPP in order; and a signal reaches a VPP that is run by
	// a wrapper.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the child
		// ends, so this one is kept until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		core := &unix.Rlimit{}
		if conf.CoreDumps {
			core.Cur, core.Max = unix.RLIM_INFINITY, unix.RLIM_INFINITY
		}
		_ = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_CORE, core, nil)
		p.group = &group{leader: p.cmd.Process.Pid}
		started <- nil
		p.group.end()
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("VPP cannot be started: %w", err)
	}
	if err := p.setPID(p.cmd.Process.Pid); err != nil {
		p.Stop(time.Second)
		return nil, err
	}
	return p, nil
}

// PID is the number of the process that was started; after WaitReady VPP's,
// which is another if the program is a wrapper.
func (p *Process) PID() int { return int(p.pid.Load()) }

func (p *Process) setPID(pid int) error {
	if p.pid.Swap(int64(pid)) == int64(pid) {
		return nil
	}
	return writeFile(p.conf.PIDFile(), strconv.Itoa(pid)+"\n")
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// WaitReady waits until the API answers, and gives VPP's version. It ends with
// a *DeathError when VPP dies first, and with ErrForeignVPP when it is another
// process that answers.
func (p *Process) WaitReady(ctx context.Context, require ...binapi.Group) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	waitSocket(ctx, p.conf.APISocket())
	c, err := binapi.Dial(ctx, binapi.Options{Socket: p.conf.APISocket(), ClientName: "vpp-manager", Require: require})
	if err != nil {
		select {
		case <-p.done:
			return "", p.Death()
		default:
		}
		return "", err
	}
	defer c.Close()
	pid, err := vppPID(p.conf.APISocket(), p.group)
	if err != nil {
		select {
		case <-p.done:
			return "", p.Death()
		default:
		}
		return "", err
	}
	if err := p.setPID(pid); err != nil {
		return "", err
	}
	// The API is used over the socket alone. Without names the shared memory
	// goes with VPP, however that ends.
	if err := remove(p.conf.SharedMemory()...); err != nil {
		return "", err
	}
	return c.Version(), nil
}

// waitSocket waits until somebody listens at a socket, or ctx ends: a node is
// without its VPP until then, so it looks more often than one that dials does.
func waitSocket(ctx context.Context, path string) {
	for {
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Unpin lets VPP's main thread run where its configuration says, see unpin. A VPP that has ended is os.ErrProcessDone.
func (p *Process) Unpin() error {
	pid := p.PID()
	return p.group.whileMember(pid, func() error { return unpin(pid, p.conf.CPU.Float) })
}

// Stop ends the process and all others of its group: SIGTERM, and SIGKILL when
// they have not ended after grace. It removes the sockets and shared memory.
func (p *Process) Stop(grace time.Duration) {
	select {
	case <-p.done:
	default:
		p.group.stopping.Store(true)
		p.group.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
			p.group.signal(syscall.SIGKILL)
			p.group.stopping.Store(false)
			<-p.done
		}
	}
	_ = os.Remove(p.conf.PIDFile())
	_ = sweep(p.conf)
}

// Kill ends the process and all others of its group at once; Done tells when
// they have ended.
func (p *Process) Kill() { p.group.signal(syscall.SIGKILL) }

// Death says how the process ended. Only after Done.
func (p *Process) Death() *DeathError {
	<-p.done
	d := &DeathError{Status: describe(p.cmd.ProcessState, p.err)}
	d.LastLines = append(lastLines(p.conf.LogFile(), p.logged, 5), p.out.last(10)...)
	return d
}

func describe(s *os.ProcessState, err error) string {
	if s == nil {
		return fmt.Sprint(err)
	}
	ws, ok := s.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		text := "signal " + strconv.Itoa(int(ws.Signal())) + " (" + ws.Signal().String() + ")"
		if ws.CoreDump() {
			text += ", core dumped"
		}
		return text
	}
	return "exit status " + strconv.Itoa(s.ExitCode())
}

// sweep removes what a VPP that was killed leaves behind.
func sweep(c startup.Config) error {
	return remove(append(c.SharedMemory(), c.APISocket(), c.CLISocket(), c.StatsSocket())...)
}

// remove removes files; one that is absent is no error.
func remove(files ...string) error {
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
