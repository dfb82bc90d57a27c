package watchdog

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
)

// Options say what to watch.
type Options struct {
	PID                    int
	APISocket, StatsSocket string
	Limits                 Limits
	Log                    logrus.FieldLogger
}

// pingEvery is the pause between an answer and the next question.
const pingEvery = 50 * time.Millisecond

// watchPriority is the nice value of the thread that watches, where this process
// may set it.
const watchPriority = -15

// Run watches a VPP that was ready until ctx ends, or VPP does; then the
// verdict is empty. Call it in a goroutine of its own, whose thread it keeps.
func Run(ctx context.Context, o Options) Verdict {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{Options: o, proc: newProcess("/", o.PID)}
	// Nobody waits for their end: to connect to a VPP that hangs takes GoVPP
	// two seconds, whatever becomes of ctx.
	go w.askAlways(ctx)
	go w.readAlways(ctx)
	// On a machine with too much to do this thread comes first: it needs some
	// 10 µs each time. It is not unlocked, so that it ends with its priority.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), watchPriority)
	period := unix.NsecToTimespec(o.Limits.Period.Nanoseconds())
	var st State
	for {
		// Not a timer of Go's, for which other threads would have to run.
		_ = unix.Nanosleep(&period, nil)
		if ctx.Err() != nil {
			return ""
		}
		s, err := w.sample()
		if err != nil {
			return "" // it has ended
		}
		if late := s.At.Sub(st.last.At); st.seen && late > 4*o.Limits.Period {
			o.Log.WithField("since the last look", late).Debug("The watchdog itself did not run")
		}
		var v Verdict
		if st, v = Step(st, s, o.Limits); v != "" {
			return v
		}
	}
}

type watch struct {
	Options
	proc process

	mu      sync.Mutex
	asked   time.Time
	answers uint64
	vitals  binapi.Vitals
}

// sample looks at the threads last: what they have not done by then they had
// not done before.
func (w *watch) sample() (Sample, error) {
	w.mu.Lock()
	s := Sample{Asked: w.asked, Answers: w.answers, Heartbeat: w.vitals.Heartbeat}
	loops := w.vitals.Loops
	w.mu.Unlock()
	main, workers, err := w.proc.threads()
	if err != nil {
		return s, err
	}
	s.Main, s.Workers, s.At = main, make([]Worker, len(workers)), time.Now()
	for i, t := range workers {
		s.Workers[i].Thread = t
		if i+1 < len(loops) {
			s.Workers[i].Loops = loops[i+1]
		}
	}
	return s, nil
}

// askAlways puts one question after the other. To connect is a question too.
func (w *watch) askAlways(ctx context.Context) {
	var conn *binapi.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	for ctx.Err() == nil {
		w.setAsked(time.Now())
		var err error
		if conn == nil {
			conn, err = binapi.Dial(ctx, binapi.Options{Socket: w.APISocket, ClientName: "vpp-manager-watch"})
		} else if err = conn.Ping(ctx); err != nil {
			_ = conn.Close()
			conn = nil
		}
		if err != nil {
			if ctx.Err() == nil {
				w.Log.WithError(err).Debug("VPP's API")
			}
		} else {
			w.answered()
		}
		pause(ctx, pingEvery)
	}
}

func (w *watch) setAsked(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked.IsZero() { // or the question before stands unanswered
		w.asked = t
	}
}

func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = time.Time{}
	w.answers++
}

// readAlways reads the statistics again and again.
func (w *watch) readAlways(ctx context.Context) {
	var stats *binapi.Stats
	defer func() {
		if stats != nil {
			_ = stats.Close()
		}
	}()
	for ; ctx.Err() == nil; pause(ctx, w.Limits.Period/2) {
		if stats == nil {
			var err error
			if stats, err = binapi.OpenStats(ctx, w.StatsSocket); err != nil {
				stats = nil
				if ctx.Err() == nil {
					w.Log.WithError(err).Debug("VPP's statistics")
				}
				continue
			}
		}
		// Those that cannot be read just now stay as they were: no sign of life.
		if v, err := stats.Vitals(); err == nil {
			w.mu.Lock()
			w.vitals = v
			w.mu.Unlock()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
