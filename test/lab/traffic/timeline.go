package traffic

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// timeline is what became of numbered messages: when each was sent and when it
// arrived.
type timeline struct {
	mu sync.Mutex
	// sent and arrived are by number, in clock's nanoseconds; 0 in arrived is
	// not arrived.
	sent, arrived []int64
	received      int
	duplicates    int
	sendErrors    int
	// The two clocks at the beginning: whether the wall clock was set since.
	beginWall int64
	begin     time.Time
}

func newTimeline() *timeline {
	l := &timeline{}
	l.beginWall, l.begin = bothClocks()
	return l
}

// bothClocks reads the wall clock and the monotonic one at the same moment.
func bothClocks() (wall int64, now time.Time) {
	const together = 100 * time.Microsecond
	for range 100 {
		now = time.Now()
		wall = clock()
		if time.Since(now) < together {
			break
		}
	}
	return wall, now
}

// depart notes that the next message is about to be sent, and gives the stamp.
func (l *timeline) depart() int64 {
	now := clock()
	l.mu.Lock()
	l.sent = append(l.sent, now)
	l.arrived = append(l.arrived, 0)
	l.mu.Unlock()
	return now
}

// refused notes that the sender's own system did not take a message.
func (l *timeline) refused() {
	l.mu.Lock()
	l.sendErrors++
	l.mu.Unlock()
}

// arrive notes an arrival. A number that was never sent is told.
func (l *timeline) arrive(number uint64, at int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case number >= uint64(len(l.arrived)):
		return false
	case l.arrived[number] != 0:
		l.duplicates++
	default:
		l.arrived[number] = at
		l.received++
	}
	return true
}

// counts are the messages sent and arrived so far.
func (l *timeline) counts() (sent, received int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent), l.received
}

// settle waits until everything has arrived, or nothing more seems to come.
func (l *timeline) settle(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if sent, received := l.counts(); sent == received {
			return
		}
	}
}

// clockMoved says why the stamps of a measurement cannot be trusted: somebody set
// the clock.
func (l *timeline) clockMoved() error {
	wall, now := bothClocks()
	moved := time.Duration(wall-l.beginWall) - now.Sub(l.begin)
	if moved.Abs() > 2*time.Millisecond {
		return fmt.Errorf("the system's clock was moved by %s while packets were timed: gaps are off by that", moved)
	}
	return nil
}

// Window is a part of a measurement, by the wall clock. The zero Window is all
// of it.
type Window struct{ From, To time.Time }

func (w Window) bounds() (from, to int64) {
	from, to = math.MinInt64, math.MaxInt64
	if !w.From.IsZero() {
		from = w.From.UnixNano()
	}
	if !w.To.IsZero() {
		to = w.To.UnixNano()
	}
	return from, to
}

// result measures the messages of a window.
func (l *timeline) result(w Window) StreamResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := measure(l.sent, l.arrived, w)
	r.SendErrors, r.Duplicates = l.sendErrors, l.duplicates
	return r
}

// usualDelay is the median time on the way; 0 when nothing arrived.
func usualDelay(sent, arrived []int64) int64 {
	delays := make([]int64, 0, len(sent))
	for n, at := range arrived {
		if at != 0 {
			delays = append(delays, at-sent[n])
		}
	}
	if len(delays) == 0 {
		return 0
	}
	slices.Sort(delays)
	return delays[len(delays)/2]
}

// measure tells what became of the messages sent within a window.
//
// A gap is a time in which something should have arrived and nothing did. It
// begins when the first message that did not come should have: at its sending
// and the usual time on the way. It ends with the next arrival of any message.
// So a sender that was late itself makes no gap, a lost message makes one of an
// interval, and a message that was held up for 50 ms one of 50 ms. A gap counts
// for the window in which it begins.
func measure(sent, arrived []int64, w Window) StreamResult {
	from, to := w.bounds()
	var r StreamResult
	var last int64
	for n, s := range sent {
		if s < from || s >= to {
			continue
		}
		r.Sent++
		if r.Sent > 1 {
			r.MaxSendGap = max(r.MaxSendGap, time.Duration(s-last))
		}
		last = s
		if arrived[n] == 0 {
			r.Lost++
			continue
		}
		r.Received++
		r.MaxDelay = max(r.MaxDelay, time.Duration(arrived[n]-s))
	}
	usual := usualDelay(sent, arrived)
	order := make([]int64, 0, len(arrived))
	for _, at := range arrived {
		if at != 0 {
			order = append(order, at)
		}
	}
	slices.Sort(order)
	if len(sent) > 0 {
		// What is missing at the end is missing until the last one was sent.
		order = append(order, max(last, sent[len(sent)-1])+usual)
	}
	next := 0 // the first message that is due after the previous arrival
	for i, at := range order {
		// Messages that were due before an arrival are not waited for any more.
		if next < len(sent) {
			if due := sent[next] + usual; due < at && due >= from && due < to {
				if gap := time.Duration(at - due); gap > r.MaxGap {
					r.MaxGap, r.MaxGapAt = gap, time.Unix(0, due)
				}
			}
		}
		for next < len(sent) && (sent[next]+usual <= at || arrived[next] != 0 && arrived[next] <= at) {
			next++
		}
		if i > 0 && at >= from && order[i-1] < to && i < len(order)-1 {
			r.MaxSilence = max(r.MaxSilence, time.Duration(at-order[i-1]))
		}
	}
	return r
}

// StreamResult is what became of a stream's messages.
type StreamResult struct {
	Sent     int `json:"sent"`
	Received int `json:"received"`
	Lost     int `json:"lost"`
	// MaxGap is the longest time for which nothing arrived although something
	// should have: the sender's own pauses are not in it.
	MaxGap time.Duration `json:"-"`
	// MaxGapAt is when that began; zero without a gap.
	MaxGapAt time.Time `json:"-"`
	// MaxSilence is the longest time between two arrivals, whatever the reason.
	MaxSilence time.Duration `json:"-"`
	// MaxDelay is the longest time that one message was on the way.
	MaxDelay time.Duration `json:"-"`
	// MaxSendGap is the longest time between two sendings.
	MaxSendGap time.Duration `json:"-"`
	// SendErrors are messages that the sender's own kernel refused, Duplicates
	// those that arrived again; both of the whole measurement.
	SendErrors int `json:"sendErrors,omitempty"`
	Duplicates int `json:"duplicates,omitempty"`
}

// Add joins the results of streams that ran side by side.
func (r StreamResult) Add(o StreamResult) StreamResult {
	at := r.MaxGapAt
	if o.MaxGap > r.MaxGap {
		at = o.MaxGapAt
	}
	return StreamResult{
		Sent: r.Sent + o.Sent, Received: r.Received + o.Received, Lost: r.Lost + o.Lost,
		MaxGap: max(r.MaxGap, o.MaxGap), MaxGapAt: at, MaxSilence: max(r.MaxSilence, o.MaxSilence),
		MaxDelay: max(r.MaxDelay, o.MaxDelay), MaxSendGap: max(r.MaxSendGap, o.MaxSendGap),
		SendErrors: r.SendErrors + o.SendErrors, Duplicates: r.Duplicates + o.Duplicates,
	}
}
