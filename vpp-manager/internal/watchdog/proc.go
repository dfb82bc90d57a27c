package watchdog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// workerPrefix begins the names of VPP's worker threads, which end in their
// number.
const workerPrefix = "vpp_wk_"

// process reads the threads of one process.
type process struct {
	dir string // /proc/<pid>/task
	pid int
}

func newProcess(root string, pid int) process {
	return process{dir: filepath.Join(root, "proc", strconv.Itoa(pid), "task"), pid: pid}
}

// threads gives the main thread and the workers in their order.
func (p process) threads() (Thread, []Thread, error) {
	main, _, err := p.thread(p.pid)
	if err != nil {
		return Thread{}, nil, err
	}
	d, err := os.Open(p.dir)
	if err != nil {
		return Thread{}, nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return Thread{}, nil, err
	}
	type worker struct {
		Thread
		number int
	}
	var found []worker
	for _, name := range names {
		tid, err := strconv.Atoi(name)
		if err != nil || tid == p.pid {
			continue
		}
		t, comm, err := p.thread(tid)
		if err != nil {
			continue // it has just ended
		}
		if digits, ok := bytes.CutPrefix(comm, []byte(workerPrefix)); ok {
			if n, err := strconv.Atoi(string(digits)); err == nil {
				found = append(found, worker{t, n})
			}
		}
	}
	slices.SortFunc(found, func(a, b worker) int { return a.number - b.number })
	workers := make([]Thread, len(found))
	for i, w := range found {
		workers[i] = w.Thread
	}
	return main, workers, nil
}

// thread reads one thread's state, CPU time and name.
func (p process) thread(tid int) (Thread, []byte, error) {
	dir := filepath.Join(p.dir, strconv.Itoa(tid))
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Thread{}, nil, err
	}
	t, comm, err := parseStat(raw)
	if err != nil {
		return Thread{}, nil, fmt.Errorf("%s: %w", dir, err)
	}
	// In nanoseconds, where the kernel counts so: the stat file has only ticks
	// of 10 ms, within which an idle VPP wakes and sleeps again.
	if raw, err := os.ReadFile(filepath.Join(dir, "schedstat")); err == nil {
		if f := bytes.Fields(raw); len(f) == 3 {
			if ns, err := strconv.ParseInt(string(f[0]), 10, 64); err == nil {
				t.Ran = time.Duration(ns)
			}
		}
	}
	return t, comm, nil
}

// parseStat reads proc_pid_stat(5): the name, in parentheses, may have any
// character; after it come the state (field 3) and, as fields 14 and 15, the
// times in user and kernel mode, in ticks of 10 ms (USER_HZ).
func parseStat(raw []byte) (Thread, []byte, error) {
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return Thread{}, nil, fmt.Errorf("stat: no name in %q", raw)
	}
	f := bytes.Fields(raw[end+1:])
	if len(f) < 13 {
		return Thread{}, nil, fmt.Errorf("stat: %d fields after the name", len(f))
	}
	t := Thread{State: f[0][0]}
	for _, word := range f[11:13] {
		n, err := strconv.ParseInt(string(word), 10, 64)
		if err != nil {
			return Thread{}, nil, fmt.Errorf("stat: %w", err)
		}
		t.Ran += time.Duration(n) * 10 * time.Millisecond
	}
	return t, raw[open+1 : end], nil
}
