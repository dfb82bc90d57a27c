package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// exitSetup is init's status when it could not prepare the tree.
const exitSetup = 125

// runInit is PID 1 of the tree. When it returns, the kernel kills whatever is
// left in the PID namespace.
func runInit(args []string) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	lab, err := claim()
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v: %s is started by the lab itself\n", err, argInit)
		return exitSetup
	}
	if err := lab.prepareMounts(); err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", refused(lab.in.Rootless, err))
		return exitSetup
	}
	worker, err := os.StartProcess(selfExe, append([]string{argWorker}, args...), &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: start the worker: %v\n", err)
		return exitSetup
	}

	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, lab.alive)
		close(orphaned)
	}()
	done := make(chan int, 1)
	go func() { done <- reap(worker.Pid) }()

	var kill <-chan time.Time
	for {
		select {
		case code := <-done:
			select {
			case <-orphaned:
				lab.removeAfter()
			default:
			}
			return code
		case sig := <-signals:
			_ = syscall.Kill(worker.Pid, sig.(syscall.Signal))
			if kill == nil {
				kill = time.After(killAfter)
			}
		case <-kill:
			return exitKilled
		case <-orphaned:
			lab.removeAfter()
			return exitKilled
		}
	}
}

// reap collects every child, orphans included, until the worker has ended, and
// returns the worker's exit status.
func reap(worker int) int {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return exitSetup
		case pid != worker:
			continue
		case ws.Signaled():
			return 128 + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
}

// removeAfter does what the outer process would have done: nobody else is left
// to. Every other process of the PID namespace is ended and gone first, so that
// nothing writes into the work directory any more.
func (c *claimed) removeAfter() {
	if c.apart() != nil {
		return
	}
	_ = syscall.Kill(-1, syscall.SIGKILL)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.ECHILD) {
			break
		}
		if pid == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if st, err := labDir(c.in.Dir); err == nil && os.SameFile(st, c.dir) {
		_ = os.RemoveAll(c.in.Dir)
	}
}

// prepareMounts makes the tree's own view of the file system: nothing mounted
// here shows on the host; what is mounted later shows in the nodes' own mount
// namespaces, not the other way round.
func (c *claimed) prepareMounts() error {
	if err := c.apart(); err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"make the mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"make the mounts shared within the lab", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }},
		{"mount a tmpfs on /run", func() error {
			return unix.Mount("sidewinder-lab", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		}},
		{"mount /proc", func() error {
			return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}},
		{"make /run/netns", func() error { return os.MkdirAll("/run/netns", 0o755) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}
