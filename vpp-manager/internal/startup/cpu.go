package startup

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/utils/cpuset"
)

// CPU is where VPP's threads run. The zero value leaves it to VPP.
type CPU struct {
	// Pin: Main and Workers hold.
	Pin  bool
	Main int
	// Workers has a CPU for each worker.
	Workers cpuset.CPUSet
	// Float is where a main thread that is not pinned is to run; empty: on all
	// CPUs that this process may use.
	Float cpuset.CPUSet
}

// statements of the cpu section.
func (c CPU) statements(workers int) []statement {
	switch {
	case c.Pin && c.Workers.IsEmpty():
		return []statement{{words: []string{"main-core", fmt.Sprint(c.Main)}}}
	case c.Pin:
		return []statement{
			{words: []string{"main-core", fmt.Sprint(c.Main)}},
			{words: []string{"corelist-workers", c.Workers.String()}},
		}
	case workers > 0:
		return []statement{{words: []string{"workers", fmt.Sprint(workers)}}}
	}
	return nil
}

// Pinned reports whether the threads have CPUs of their own, by this
// configuration or by VPP's choice; else the main one is to run where Float
// says.
func (c Config) Pinned() bool {
	if c.Workers > 0 || c.CPU.Pin {
		return true
	}
	theirs, err := parse(c.Extra)
	if err != nil {
		return false
	}
	for _, s := range theirs {
		for _, st := range s.statements {
			if s.name == "cpu" && places(st) {
				return true
			}
		}
	}
	return false
}

// ErrCPU: the CPUs asked for cannot be had.
var ErrCPU = errors.New("CPUs unusable")

// CPUs are what a choice is made from.
type CPUs struct {
	// Allowed to this process; Isolated from the scheduler (isolcpus); Near the
	// uplinks' NICs, empty if that is not known.
	Allowed, Isolated, Near cpuset.CPUSet
}

// CPUWish is what the user asks for.
type CPUWish struct {
	// Workers is their number; with Cores, it must be 0 or that of the cores.
	Workers int
	// Main is the main thread's CPU; negative: choose.
	Main int
	// Cores of the workers; empty: choose.
	Cores cpuset.CPUSet
}

// ChooseCPU places the threads. Workers go to isolated CPUs near the NIC if
// there are, then to other isolated ones, then to near ones: a worker may poll
// all the time, and whatever else runs there suffers. The main thread stays off
// isolated CPUs and, if it can, off CPU 0, where interrupts and housekeeping
// are. On one or two CPUs nothing is pinned, unless that was asked for. A wish
// that cannot be met is ErrCPU.
func ChooseCPU(c CPUs, w CPUWish) (CPU, int, error) {
	workers := w.Workers
	if !w.Cores.IsEmpty() {
		if n := w.Cores.Size(); workers != 0 && workers != n {
			return CPU{}, 0, fmt.Errorf("%w: %d workers on the %d CPUs %s; leave out the number, or give as many CPUs", ErrCPU, workers, n, w.Cores)
		}
		workers = w.Cores.Size()
		if bad := w.Cores.Difference(c.Allowed); !bad.IsEmpty() {
			return CPU{}, 0, fmt.Errorf("%w: workers on CPU %s: this process may use %s only (sched_setaffinity, or its cgroup's cpuset)", ErrCPU, bad, c.Allowed)
		}
	}
	if w.Main >= 0 && !c.Allowed.Contains(w.Main) {
		return CPU{}, 0, fmt.Errorf("%w: main thread on CPU %d: this process may use %s only (sched_setaffinity, or its cgroup's cpuset)", ErrCPU, w.Main, c.Allowed)
	}
	if w.Main >= 0 && w.Cores.Contains(w.Main) {
		return CPU{}, 0, fmt.Errorf("%w: CPU %d is asked for the main thread and for a worker", ErrCPU, w.Main)
	}
	chosen := w.Main >= 0 || !w.Cores.IsEmpty()
	if !chosen && (workers == 0 || c.Allowed.Size() <= 2) {
		return CPU{Float: floating(c)}, workers, nil
	}
	if workers+1 > c.Allowed.Size() {
		return CPU{}, 0, fmt.Errorf("%w: %d workers and the main thread need %d CPUs, this process may use %d (%s)", ErrCPU, workers, workers+1, c.Allowed.Size(), c.Allowed)
	}
	out := CPU{Pin: true, Main: w.Main, Workers: w.Cores}
	if out.Main < 0 {
		free := c.Allowed.Difference(w.Cores)
		common := free.Difference(c.Isolated)
		out.Main = first(free, common.Intersection(c.Near).Difference(cpuset.New(0)), common.Difference(cpuset.New(0)), common)
	}
	if out.Workers.IsEmpty() && workers > 0 {
		free := c.Allowed.Difference(cpuset.New(out.Main))
		rest := free.Difference(cpuset.New(0))
		iso := rest.Intersection(c.Isolated)
		var cores []int
		for _, set := range []cpuset.CPUSet{iso.Intersection(c.Near), iso, rest.Intersection(c.Near), rest, free} {
			for _, cpu := range set.Difference(cpuset.New(cores...)).List() {
				if len(cores) < workers {
					cores = append(cores, cpu)
				}
			}
		}
		out.Workers = cpuset.New(cores...)
	}
	return out, workers, nil
}

// floating is where a main thread that forwards packets runs best: near the
// NIC; and not on isolated CPUs, between which the scheduler moves nothing.
func floating(c CPUs) cpuset.CPUSet {
	common := c.Allowed.Difference(c.Isolated)
	for _, set := range []cpuset.CPUSet{common.Intersection(c.Near), common} {
		if !set.IsEmpty() {
			return set
		}
	}
	return c.Allowed
}

// first CPU of the first set that has one; else of all.
func first(all cpuset.CPUSet, sets ...cpuset.CPUSet) int {
	for _, s := range append(sets, all) {
		if !s.IsEmpty() {
			return s.List()[0]
		}
	}
	return 0
}

// ParseCPUs reads a list such as "2-5,8"; empty is none.
func ParseCPUs(list string) (cpuset.CPUSet, error) {
	set, err := cpuset.Parse(strings.TrimSpace(list))
	if err != nil {
		return cpuset.New(), fmt.Errorf("%w: %q is not a list of CPUs such as 2-5,8", ErrCPU, list)
	}
	return set, nil
}
