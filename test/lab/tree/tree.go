// Package tree runs a program as a process tree in namespaces of its own: a
// mount, a PID, a network and, for an ordinary user, a user namespace. Whatever
// the program makes inside (network namespaces, links, mounts, processes) the
// kernel takes down with the tree, however the tree ends.
//
// There are three processes:
//
//	outer    what the user started; owns the work directory and its lock
//	init     PID 1 inside; prepares the mounts, reaps, and is the first to
//	         notice that the outer process is gone
//	worker   the program itself, with the outer process's arguments
//
// A program that uses the package calls Dispatch first in main (or TestMain),
// and Run where it wants to be inside.
package tree

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names by which a re-executed binary knows its role: argument 0.
const (
	argInit   = "sidewinder-lab-init"
	argWorker = "sidewinder-lab-worker"
	argEnter  = "sidewinder-lab-enter"
)

// envInside carries the Inside as JSON from the outer process to the worker.
const envInside = "SIDEWINDER_LAB_INSIDE"

// selfExe is this program, also after it was replaced on disk.
const selfExe = "/proc/self/exe"

// Inside is what the worker knows of its tree.
type Inside struct {
	// ID names the lab to `list`, `exec` and `down`.
	ID string `json:"id"`
	// Dir is the work directory, on the host's file system. It is removed at
	// the end unless the worker failed.
	Dir string `json:"dir"`
	// Rootless: the tree belongs to an ordinary user. Only what a user
	// namespace allows can be done.
	Rootless bool `json:"rootless"`
}

// Options say what a tree needs.
type Options struct {
	// NeedRoot is why an ordinary user cannot run this ("VPP needs ..."); empty
	// when one can.
	NeedRoot string
	// Description is shown by `list`.
	Description string
}

// ExitError is how a worker ended that did not end well. The worker has
// already said why.
type ExitError struct {
	// Code is the exit status: the worker's own, or 128 and the signal.
	Code int
	// Dir holds the logs, when they were kept.
	Dir string
}

func (e *ExitError) Error() string {
	if e.Dir == "" {
		return fmt.Sprintf("the lab ended with status %d", e.Code)
	}
	return fmt.Sprintf("the lab ended with status %d; logs are in %s", e.Code, e.Dir)
}

// ErrRefused: the kernel does not let this user make namespaces.
var ErrRefused = errors.New("the kernel refuses the namespaces that the lab is made of")

// ExitInterrupted is the worker's status after Ctrl-C or SIGTERM: nothing
// failed, so nothing is kept.
const ExitInterrupted = 130

// exitKilled is the status of a tree that was ended by force.
const exitKilled = 128 + int(syscall.SIGKILL)

// killAfter is how long the worker has to end after a signal.
const killAfter = 20 * time.Second

// Dispatch runs the roles of a re-executed binary. It returns only in the outer
// process and in the worker.
func Dispatch() {
	switch os.Args[0] {
	case argInit:
		os.Exit(runInit(os.Args[1:]))
	case argEnter:
		os.Exit(runEnter(os.Args[1:]))
	}
}

// Current tells whether this process is a worker, and of which tree.
func Current() (Inside, bool) {
	if os.Args[0] != argWorker || !underInit() {
		return Inside{}, false
	}
	var in Inside
	if err := json.Unmarshal([]byte(os.Getenv(envInside)), &in); err != nil {
		return Inside{}, false
	}
	return in, true
}

// Run calls work inside a tree. In the outer process that means starting the
// tree with this process's own arguments, so that the worker comes to the same
// call, and waiting for it; the error is then an *ExitError when the worker
// failed. In the worker Run is work.
func Run(opts Options, work func(Inside) error) error {
	if in, ok := Current(); ok {
		return work(in)
	}
	rootless := !privileged()
	if rootless && opts.NeedRoot != "" {
		return fmt.Errorf("this needs root: %s", opts.NeedRoot)
	}
	SweepStale()
	dir, err := newWorkDir(opts.Description)
	if err != nil {
		return err
	}
	code, err := runOuter(Inside{ID: dir.id, Dir: dir.path, Rootless: rootless})
	if err != nil {
		return errors.Join(err, dir.remove())
	}
	switch code {
	case 0:
		return dir.remove()
	case ExitInterrupted, 128 + int(syscall.SIGTERM), 128 + int(syscall.SIGHUP), exitKilled:
		// Somebody ended it: nothing failed that logs would explain.
		return errors.Join(dir.remove(), &ExitError{Code: code})
	}
	dir.keep()
	return &ExitError{Code: code, Dir: dir.path}
}

// privileged reports whether this process may make namespaces without a user
// namespace: effective CAP_SYS_ADMIN and CAP_NET_ADMIN.
func privileged() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.Geteuid() == 0
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&need == need
}

// runOuter starts init and waits for it; it passes on signals. The result is
// the worker's exit status.
func runOuter(in Inside) (int, error) {
	// Pdeathsig follows the thread that made the child, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	// The second line of defence: init reads the end of this pipe when the
	// outer process is gone, whatever happened to the signal.
	alive, keepOpen, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer keepOpen.Close()
	defer alive.Close()

	raw, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	if err := greet(keepOpen, in); err != nil {
		return 0, fmt.Errorf("tell init where it belongs: %w", err)
	}
	cmd := exec.Command(selfExe)
	cmd.Args = append([]string{argInit}, os.Args[1:]...)
	cmd.Env = append(os.Environ(), envInside+"="+string(raw))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGTERM,
		// Ctrl-C reaches the outer process alone, which passes it on once.
		Setpgid: true,
	}
	if in.Rootless {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	if err := cmd.Start(); err != nil {
		return 0, refused(in.Rootless, err)
	}
	done := make(chan error, 1)
	// Only Start must stay on this thread: waiting may happen anywhere.
	go func() { done <- cmd.Wait() }()

	var kill <-chan time.Time
	for {
		select {
		case sig := <-signals:
			if kill != nil {
				_ = cmd.Process.Kill()
				continue
			}
			_ = cmd.Process.Signal(sig)
			kill = time.After(killAfter)
		case <-kill:
			_ = cmd.Process.Kill()
		case err := <-done:
			return exitCode(cmd.ProcessState, err)
		}
	}
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	if state == nil {
		return 0, err
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}

// refused explains why the kernel did not make the namespaces.
func refused(rootless bool, err error) error {
	if !rootless {
		return fmt.Errorf("%w: %w; run it with CAP_SYS_ADMIN (a privileged container, or root on the machine)", ErrRefused, err)
	}
	return fmt.Errorf("%w: %w; run it as root, or allow user namespaces (sysctl user.max_user_namespaces above 0, "+
		"kernel.unprivileged_userns_clone=1 on Debian, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)", ErrRefused, err)
}
