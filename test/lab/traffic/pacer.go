package traffic

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pacedPriority is the real-time priority of a paced sender, the lowest but
// some: a sender works for microseconds and sleeps for the rest.
const pacedPriority = 10

// paced calls send once every interval until stop is closed, with the number of
// the call, from 0 on. It blocks, and keeps a thread of its own meanwhile: at
// real-time priority where the system allows that, so that what is measured is
// the network and not the wait for a processor.
//
// A call that comes late moves those after it: a sender that was held up goes on
// at its rate and does not make up for it, since a burst is another load than
// the one asked for.
func paced(interval time.Duration, stop <-chan struct{}, send func(n int)) {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: pacedPriority}, 0)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	due := time.Now()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		send(n)
		due = due.Add(interval)
		if late := time.Since(due); late > interval {
			due = due.Add(late)
			continue
		}
		for {
			left := time.Until(due)
			if left <= 0 {
				break
			}
			ts := unix.NsecToTimespec(int64(left))
			_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
		}
	}
}

// clock is the system's wall clock in nanoseconds: the one by which the kernel
// stamps packets that it receives.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return time.Now().UnixNano()
	}
	return ts.Nano()
}
