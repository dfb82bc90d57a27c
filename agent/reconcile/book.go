package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

// failure is an object that the dataplane does not hold as desired.
type failure struct {
	err      error
	attempts int
	last     time.Time // the newest try
	next     time.Time // when it is tried again; zero: never (unsupported)
	wanted   dataplane.Value
}

// book is what the loop knows. It is guarded by the Reconciler's mutex; states
// in it are replaced, and actual is changed only by the loop itself.
type book struct {
	desired    dataplane.State
	have       bool
	generation uint64
	desiredAt  uint64 // the generation of desired; later ones asked for a comparison
	processed  uint64 // the newest generation that was worked on

	actual     dataplane.State
	known      bool
	busy       bool // a comparison or a change is under way
	dumpWanted bool
	lastDump   time.Time
	lastSync   time.Time

	failures  map[dataplane.Key]*failure
	err       error // the dataplane cannot be reached
	lostTimes int
}

// due leaves out the changes that wait for their next try, unless what is
// desired has changed meanwhile.
func (b *book) due(changes []dataplane.Change, now time.Time) []dataplane.Change {
	pending := make(map[dataplane.Key]bool, len(changes))
	out := slices.DeleteFunc(changes, func(c dataplane.Change) bool {
		pending[c.Key] = true
		f, ok := b.failures[c.Key]
		if !ok || !sameWanted(f.wanted, c.New) {
			return false
		}
		return f.next.IsZero() || now.Before(f.next)
	})
	for k := range b.failures {
		if !pending[k] {
			delete(b.failures, k)
		}
	}
	return out
}

func sameWanted(a, b dataplane.Value) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Equal(b)
}

// record takes in the outcome of an Apply.
func (b *book) record(changes []dataplane.Change, failed map[dataplane.Key]*dataplane.KeyError, now time.Time, o Options) {
	appeared := false
	for _, c := range changes {
		e, bad := failed[c.Key]
		if !bad {
			if _, was := b.failures[c.Key]; was {
				delete(b.failures, c.Key)
				o.Log.WithField("object", c.Key.String()).Info("object is in place now")
			}
			if c.Op == dataplane.OpDelete {
				b.actual.Delete(c.Key)
			} else {
				b.actual.Set(c.Key, c.New)
				appeared = true
			}
			continue
		}
		// What the failed change left behind is not known: look before the
		// next try.
		f := b.failures[c.Key]
		if f == nil || !sameWanted(f.wanted, c.New) {
			f = &failure{wanted: c.New}
			b.failures[c.Key] = f
		}
		f.attempts++
		f.last = now
		if f.err == nil || f.err.Error() != e.Error() {
			o.Log.WithField("object", c.Key.String()).WithError(e.Err).Warn(c.Op.String() + " failed")
		}
		f.err = e
		if errors.Is(e, dataplane.ErrUnsupported) {
			f.next = time.Time{}
			continue
		}
		b.known = false
		f.next = now.Add(backoff(f.attempts, o))
	}
	if appeared {
		// It may be what others wait for.
		for _, f := range b.failures {
			if errors.Is(f.err, dataplane.ErrNotReady) {
				f.next = now
			}
		}
	}
}

// hurry shortens the wait of what was not ready, but not below min since its
// last try: a try may itself cause the event that leads here.
func (b *book) hurry(min time.Duration) {
	for _, f := range b.failures {
		if soon := f.last.Add(min); errors.Is(f.err, dataplane.ErrNotReady) && soon.Before(f.next) {
			f.next = soon
		}
	}
}

func backoff(attempts int, o Options) time.Duration {
	d := o.MinBackoff
	for range attempts - 1 {
		if d *= 2; d >= o.MaxBackoff {
			return o.MaxBackoff
		}
	}
	return d
}

// next is how long until the earliest retry, 0 when there is none.
func (b *book) next(now time.Time) time.Duration {
	var wait time.Duration
	for _, f := range b.failures {
		if f.next.IsZero() {
			continue
		}
		if d := max(f.next.Sub(now), time.Millisecond); wait == 0 || d < wait {
			wait = d
		}
	}
	return wait
}

// settled says whether Await is over, with the error to return; when it is not,
// the error says what is waited for.
func (b *book) settled(generation uint64, keys []dataplane.Key) (bool, error) {
	if b.err != nil {
		return false, b.err
	}
	if b.processed < generation {
		return false, nil
	}
	var waiting error
	for _, k := range keys {
		if f, ok := b.failures[k]; ok {
			if !errors.Is(f.err, dataplane.ErrNotReady) {
				return true, f.err
			}
			waiting = f.err
			continue
		}
		want, wanted := b.desired.Get(k)
		got, held := b.actual.Get(k)
		if wanted != held || (held && !want.Equal(got)) {
			waiting = fmt.Errorf("%s is not as desired yet", k)
		}
	}
	return waiting == nil, waiting
}

// Status tells how far the dataplane is from what is desired.
func (r *Reconciler) Status() status.Reconcile {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.book
	s := status.Reconcile{Objects: b.desired.Len(), LastDump: b.lastDump, LastSync: b.lastSync}
	if b.err != nil {
		s.Error = b.err.Error()
	}
	for k, f := range b.failures {
		o := status.Object{Key: k.String(), Reason: f.err.Error(), Attempts: f.attempts}
		if f.next.IsZero() {
			s.Unsupported = append(s.Unsupported, o)
		} else {
			s.Failing = append(s.Failing, o)
		}
	}
	byKey := func(a, b status.Object) int { return strings.Compare(a.Key, b.Key) }
	slices.SortFunc(s.Failing, byKey)
	slices.SortFunc(s.Unsupported, byKey)
	s.InSync = b.have && b.err == nil && len(s.Failing) == 0 && b.processed == b.generation
	return s
}
