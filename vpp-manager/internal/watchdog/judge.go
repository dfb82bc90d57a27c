// Package watchdog tells a VPP that hangs from one that is busy, or starved.
package watchdog

import (
	"fmt"
	"time"
)

// Limits say how long VPP may do what before it counts as hung. A limit of 0
// is no limit.
type Limits struct {
	// Period between samples. What passes between two samples counts as
	// silence for twice this time at most: when this program itself did not
	// run, VPP may not have either.
	Period time.Duration
	// Stopped by a signal or a debugger.
	Stopped time.Duration
	// Asleep: it sleeps with a question before it, and uses no CPU. That is no
	// matter of load: one that is woken and waits for a CPU does not sleep.
	Asleep time.Duration
	// Busy: it says nothing at all, and computes, waits for a CPU, or for the
	// kernel (making an interface may wait for others there).
	Busy time.Duration
	// API: it forwards packets, but its API does not answer.
	API time.Duration
	// Worker: a worker thread gets nowhere, while the main thread is well.
	Worker time.Duration
}

// DefaultLimits find a VPP that is stopped or hangs within 300 ms or so.
func DefaultLimits() Limits {
	return Limits{
		Period:  50 * time.Millisecond,
		Stopped: 150 * time.Millisecond,
		Asleep:  200 * time.Millisecond,
		Busy:    3 * time.Second,
		API:     10 * time.Second,
		Worker:  3 * time.Second,
	}
}

// WithBusy sets the limit for a VPP that is busy, and those that must not be
// shorter.
func (l Limits) WithBusy(d time.Duration) Limits {
	l.Busy, l.Worker = d, d
	l.API = max(l.API, d)
	return l
}

// Thread of VPP, as /proc tells.
type Thread struct {
	// State is the kernel's letter: R running or waiting for a CPU, S asleep, D
	// waiting in the kernel, T and t stopped.
	State byte
	// Ran is the CPU time it has used.
	Ran time.Duration
}

// Worker is a thread beside the main one that forwards packets.
type Worker struct {
	Thread
	// Loops a second, by its own account.
	Loops uint64
}

// Sample is what was seen at one time. Times are those of one clock.
type Sample struct {
	At time.Time
	// Asked is when the question was put that VPP has not answered yet; zero:
	// there is none.
	Asked time.Time
	// Answers and Heartbeat change whenever VPP answers a question, and with
	// each round of its statistics.
	Answers, Heartbeat uint64
	Main               Thread
	Workers            []Worker
}

// State is what the judge remembers between samples. The zero value knows
// nothing.
type State struct {
	last                             Sample
	seen                             bool
	stopped, asleep, silent, noReply time.Duration
	workers                          []progress
}

// Verdict on a VPP; empty: it is well, or nothing is proven yet.
type Verdict string

// Step takes one more sample. It depends on its arguments alone.
func Step(st State, s Sample, l Limits) (State, Verdict) {
	next := State{last: s, seen: true, workers: make([]progress, len(s.Workers))}
	if !st.seen {
		return next, ""
	}
	p := st.last
	passed := s.At.Sub(p.At)
	counted := min(passed, 2*l.Period)
	beat, answered := s.Heartbeat != p.Heartbeat, s.Answers != p.Answers

	if stopped(p) && stopped(s) {
		next.stopped = st.stopped + passed
	}
	// A main thread that slept at both times and used no CPU between them has
	// slept all the time; the question was there all the time as well.
	// One look at it in between is needed all the same: where both programs were
	// frozen (a container that is paused, a virtual machine), this one may be the
	// first to run again.
	if !answered && !s.Asked.IsZero() && s.Asked.Equal(p.Asked) && p.Main.sleptUntil(s.Main) {
		next.asleep = st.asleep + min(passed, l.Asleep/2)
	}
	if !answered {
		next.noReply = st.noReply + counted
		if !beat {
			next.silent = st.silent + counted
		}
	}
	if beat && len(p.Workers) == len(s.Workers) {
		for i, w := range s.Workers {
			var was progress
			if i < len(st.workers) {
				was = st.workers[i]
			}
			next.workers[i] = was.step(p.Workers[i], w, counted)
		}
	} else if !beat && len(st.workers) == len(s.Workers) {
		// The statistics tell nothing new: what was found stands.
		next.workers = st.workers
	}
	return next, next.verdict(l)
}

// progress of a worker, or rather the lack of it: how long it has computed
// without getting on, and slept without ever waking.
type progress struct{ stuck, still time.Duration }

func (was progress) step(p, w Worker, passed time.Duration) progress {
	switch {
	case p.sleptUntil(w.Thread):
		// VPP's threads wake every 10 ms.
		return progress{still: was.still + passed}
	case w.Loops == p.Loops && w.Ran-p.Ran > passed/2:
		// A worker with nothing to do sleeps nearly always, at a rate that
		// hardly changes. One that computes does not make the same number of
		// rounds again and again.
		return progress{stuck: was.stuck + passed}
	case w.Loops == p.Loops && w.State == 'R':
		// It waits for a CPU.
		return progress{stuck: was.stuck}
	}
	return progress{}
}

func (st State) verdict(l Limits) Verdict {
	over := func(d, limit time.Duration) bool { return limit > 0 && d >= limit }
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	switch {
	case over(st.stopped, l.Stopped):
		return Verdict(fmt.Sprintf("stopped (state %c) for %s", stateOf(st.last), ms(st.stopped)))
	case over(st.asleep, l.Asleep):
		return Verdict(fmt.Sprintf("asleep for %s with a question before it", ms(st.asleep)))
	case over(st.silent, l.Busy):
		return Verdict(fmt.Sprintf("silent for %s (state %c)", ms(st.silent), st.last.Main.State))
	case over(st.noReply, l.API):
		return Verdict(fmt.Sprintf("its API has not answered for %s", ms(st.noReply)))
	}
	for i, w := range st.workers {
		switch {
		case over(w.stuck, l.Worker):
			return Verdict(fmt.Sprintf("worker %d computes without getting on for %s", i, ms(w.stuck)))
		case over(w.still, l.Worker):
			return Verdict(fmt.Sprintf("worker %d does not wake for %s", i, ms(w.still)))
		}
	}
	return ""
}

// sleptUntil: asleep then and now, and not awake in between.
func (t Thread) sleptUntil(now Thread) bool {
	return t.State == 'S' && now.State == 'S' && t.Ran == now.Ran
}

func (t Thread) stopped() bool { return t.State == 'T' || t.State == 't' }

// stopped: a stop is for all threads; the main one may be the last to notice.
func stopped(s Sample) bool {
	if s.Main.stopped() {
		return true
	}
	for _, w := range s.Workers {
		if w.stopped() {
			return true
		}
	}
	return false
}

// stateOf gives the letter of the first thread that is stopped.
func stateOf(s Sample) byte {
	if !s.Main.stopped() {
		for _, w := range s.Workers {
			if w.stopped() {
				return w.State
			}
		}
	}
	return s.Main.State
}
