package supervise

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// orphanGrace is the time from SIGTERM to SIGKILL for what the leader of
	// the group leaves behind when it ends by itself.
	orphanGrace = 2 * time.Second
	// killWait bounds the wait for what has got SIGKILL: a process in
	// uninterruptible sleep does not end.
	killWait = 2 * time.Second
	// poll is how often the group is looked at until it has ended.
	poll = 20 * time.Millisecond
)

// group is the process group of the program that was started: VPP, or a
// wrapper and the VPP that it runs. Its number is the leader's PID, which is
// nobody else's until the leader is reaped.
type group struct {
	leader   int
	stopping atomic.Bool // Stop bounds the wait, not orphanGrace

	mu     sync.Mutex
	reaped bool
}

// whileOurs calls f unless the leader was reaped; until f returns it is not.
func (g *group) whileOurs(f func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reaped {
		return os.ErrProcessDone
	}
	return f()
}

// signal sends to each process of the group, or to none once it has ended.
func (g *group) signal(sig syscall.Signal) {
	_ = g.whileOurs(func() error { return syscall.Kill(-g.leader, sig) })
}

// whileMember calls f if the process is of this group.
func (g *group) whileMember(pid int, f func() error) error {
	return g.whileOurs(func() error {
		if pgid, err := unix.Getpgid(pid); err != nil || pgid != g.leader {
			return os.ErrProcessDone
		}
		return f()
	})
}

// has reports whether the process is of this group.
func (g *group) has(pid int) bool {
	return g.whileMember(pid, func() error { return nil }) == nil
}

// end waits for the leader to end, sees to it that the others of the group end
// as well, and only then lets the leader be reaped.
func (g *group) end() {
	for errors.Is(unix.Waitid(unix.P_PID, g.leader, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	if g.others() {
		g.signal(syscall.SIGTERM)
		deadline := time.Now().Add(orphanGrace)
		for g.others() && (g.stopping.Load() || time.Now().Before(deadline)) {
			time.Sleep(poll)
		}
	}
	// In any case: one that was forked meanwhile may not have been seen.
	g.signal(syscall.SIGKILL)
	for deadline := time.Now().Add(killWait); g.others() && time.Now().Before(deadline); {
		time.Sleep(poll)
	}
	g.mu.Lock()
	g.reaped = true
	g.mu.Unlock()
}

// others reports whether processes beside the leader live in the group.
func (g *group) others() bool {
	dir, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || pid == g.leader {
			continue
		}
		if pgrp, alive := processGroup(pid); alive && pgrp == g.leader {
			return true
		}
	}
	return false
}

// processGroup reads a process's group, and whether it is more than a zombie.
func processGroup(pid int) (pgrp int, alive bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// proc_pid_stat(5): the name, in parentheses, may have any character;
	// after it come state, parent and group.
	f := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(f) < 3 {
		return 0, false
	}
	pgrp, err = strconv.Atoi(string(f[2]))
	return pgrp, err == nil && f[0][0] != 'Z' && f[0][0] != 'X'
}
