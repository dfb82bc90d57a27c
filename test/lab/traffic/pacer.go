package traffic

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pacedNice is a paced sender's priority. It is no real-time one: the kernel's
// own packet work would then have to wait for the senders.
const pacedNice = -15

// paced calls send once every interval until stop is closed, with the number of
// the call, from 0 on. It blocks, and keeps a thread of its own meanwhile, with a
// high priority where the system allows that.
//
// A call that comes late moves those after it: a sender that was held up goes on
// at its rate and does not make up for it, since a burst is another load than
// the one asked for.
func paced(interval time.Duration, stop <-chan struct{}, send func(n int)) {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), pacedNice)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	due := time.Now()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		send(n)
		// Never without a rest: a sender that is always late leaves no time to
		// those who are to receive.
		due = due.Add(interval)
		if earliest := time.Now().Add(interval / 2); due.Before(earliest) {
			due = earliest
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
