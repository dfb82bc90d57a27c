// Package supervise starts VPP, tells when it is ready, and says why it died.
package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// Process is one run of VPP.
type Process struct {
	conf startup.Config
	cmd  *exec.Cmd
	out  tail
	done chan struct{}
	err  error // after done
}

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
func Start(path string, conf startup.Config, coreDumps bool) (*Process, error) {
	text, err := conf.Text()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(conf.ConfFile(), []byte(text), 0o644); err != nil {
		return nil, err
	}
	if err := sweep(conf); err != nil {
		return nil, err
	}
	p := &Process{conf: conf, done: make(chan struct{})}
	p.cmd = exec.Command(path, "-c", conf.ConfFile())
	p.cmd.Dir = conf.RunDir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// A process group of its own: a Ctrl-C at the terminal is for the manager,
	// which then stops VPP in order.
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
		if !coreDumps {
			_ = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
		}
		started <- nil
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("VPP cannot be started: %w", err)
	}
	pid := strconv.Itoa(p.PID()) + "\n"
	if err := os.WriteFile(conf.PIDFile(), []byte(pid), 0o644); err != nil {
		p.Stop(time.Second)
		return nil, err
	}
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// WaitReady waits until the API answers, and gives VPP's version. It ends with
// a *DeathError when VPP dies first.
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
	// The API is used over the socket alone. Without names the shared memory
	// goes with VPP, however that ends.
	if err := remove(p.conf.SharedMemory()...); err != nil {
		return "", err
	}
	return c.Version(), nil
}

// Stop ends the process: SIGTERM, and SIGKILL when it has not ended after
// grace. It removes the sockets and shared memory.
func (p *Process) Stop(grace time.Duration) {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	_ = os.Remove(p.conf.PIDFile())
	_ = sweep(p.conf)
}

// Death says how the process ended. Only after Done.
func (p *Process) Death() *DeathError {
	<-p.done
	d := &DeathError{Status: describe(p.cmd.ProcessState, p.err)}
	d.LastLines = append(lastLines(p.conf.LogFile(), 5), p.out.last(10)...)
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

// lastLines reads the end of a file, at most n lines that are not empty.
func lastLines(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	const most = 8192
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, 2)
	}
	var t tail
	buf := make([]byte, most)
	m, _ := f.Read(buf)
	_, _ = t.Write(buf[:m])
	return t.last(n)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 16384
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > most {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-most:]...)
	}
	return len(p), nil
}

// last gives up to n lines that are not empty.
func (t *tail) last(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, l := range bytes.Split(t.buf, []byte("\n")) {
		if s := strings.TrimSpace(string(l)); s != "" {
			out = append(out, s)
		}
	}
	return out[max(0, len(out)-n):]
}
