package supervise

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dumpTimeout bounds the wait for a core dump: one of gigabytes takes a slow disk
// some time, and one into a pipe that nobody reads never ends.
const dumpTimeout = time.Minute

// dumpsCore reports whether the kernel is writing the process's core dump
// (proc_pid_status(5), CoreDumping, since Linux 4.15). Meanwhile it answers
// nothing, and to kill it would cut the dump off.
func dumpsCore(pid int) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "CoreDumping:"); ok {
			return strings.TrimSpace(v) == "1"
		}
	}
	return false
}

// crashed reports whether the process had ended by itself when it was killed, as
// one does that takes its time to die. Only after Done.
func (p *Process) crashed() bool {
	if p.cmd.ProcessState == nil {
		return false
	}
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && (!ws.Signaled() || ws.Signal() != syscall.SIGKILL)
}
