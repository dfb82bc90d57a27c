// Package reconcile keeps a dataplane equal to the desired state: one loop in
// which a new desired state, retries, a periodic full comparison and a request
// for one meet. It compares with what the dataplane was found to hold, never
// with what it was told earlier.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Options for New. Zero durations take the defaults named.
type Options struct {
	Backend dataplane.Backend
	Log     logrus.FieldLogger
	// Resync is the time between full comparisons; default 30 s.
	Resync time.Duration
	// MinBackoff and MaxBackoff bound the wait before a failed object, or an
	// unreachable dataplane, is tried again; default 50 ms and 15 s. The wait
	// doubles with each failure.
	MinBackoff, MaxBackoff time.Duration
	// Stepped, where set, is called after each round of the loop. It must not
	// block, nor call the Reconciler.
	Stepped func()
}

// Reconciler is the loop. Its methods may be called from any goroutine.
type Reconciler struct {
	o    Options
	wake chan struct{}

	mu   sync.Mutex
	cond chan struct{} // closed and replaced whenever a step has ended
	book book
}

// New makes a Reconciler; nothing happens before Run and a first SetDesired.
func New(o Options) *Reconciler {
	if o.Resync == 0 {
		o.Resync = 30 * time.Second
	}
	if o.MinBackoff == 0 {
		o.MinBackoff = 50 * time.Millisecond
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 15 * time.Second
	}
	return &Reconciler{
		o: o, wake: make(chan struct{}, 1), cond: make(chan struct{}),
		book: book{failures: map[dataplane.Key]*failure{}},
	}
}

// SetDesired gives the state to be reached from now on and returns its
// generation, for Await. Until the first call the dataplane is left as it is,
// so that nothing is removed before the inputs are known.
func (r *Reconciler) SetDesired(s dataplane.State) uint64 {
	r.mu.Lock()
	r.book.desired, r.book.have = s, true
	r.book.generation++
	g := r.book.generation
	r.book.desiredAt = g
	r.mu.Unlock()
	r.nudge()
	return g
}

// Trigger asks for a full comparison now, and for a try of what waits for
// something else to appear: it may just have. The generation it returns has been
// worked on, for Await, when the comparison is done.
func (r *Reconciler) Trigger() uint64 {
	r.mu.Lock()
	r.book.dumpWanted = true
	r.book.hurry(r.o.MinBackoff)
	r.book.generation++
	g := r.book.generation
	r.mu.Unlock()
	r.nudge()
	return g
}

func (r *Reconciler) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run loops until ctx ends. It leaves the dataplane as it is.
func (r *Reconciler) Run(ctx context.Context) error {
	resync := time.NewTicker(r.o.Resync)
	defer resync.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		retry := r.step(ctx)
		timer.Stop()
		if retry > 0 {
			timer.Reset(retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		case <-resync.C:
			r.mu.Lock()
			r.book.dumpWanted = true
			r.mu.Unlock()
		}
	}
}

// step does one round and returns after how long the next is due; 0 means that
// nothing waits.
func (r *Reconciler) step(ctx context.Context) time.Duration {
	r.mu.Lock()
	b := &r.book
	if !b.have {
		r.mu.Unlock()
		return 0
	}
	desired, generation := b.desired, b.generation
	actual, known := b.actual, b.known && !b.dumpWanted
	wasDrift := b.dumpWanted && b.known && b.processed >= b.desiredAt
	b.dumpWanted = false
	b.busy = !known
	r.mu.Unlock()

	if !known {
		var err error
		if actual, err = r.o.Backend.Dump(ctx); err != nil {
			return r.lost(ctx, err)
		}
		r.mu.Lock()
		b.actual, b.known, b.lastDump = actual, true, time.Now()
		r.mu.Unlock()
	}

	now := time.Now()
	r.mu.Lock()
	changes := b.due(dataplane.Diff(desired, actual), now)
	b.busy = len(changes) > 0
	r.mu.Unlock()
	if wasDrift && len(changes) > 0 {
		r.o.Log.WithField("objects", len(changes)).WithField("first", changes[0].Key.String()).
			Warn("the dataplane had changed by itself: repairing it")
	}
	var err error
	if len(changes) > 0 {
		start := time.Now()
		err = r.o.Backend.Apply(ctx, changes)
		r.o.Log.WithFields(logrus.Fields{"changes": len(changes), "took": time.Since(start), "failed": err != nil}).Debug("applied")
	}
	failed, rest := dataplane.Failures(err)
	if rest != nil || ctx.Err() != nil {
		return r.lost(ctx, rest)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	now = time.Now() // an Apply may have taken seconds
	b.record(changes, failed, now, r.o)
	b.busy, b.processed, b.err, b.lostTimes, b.lastSync = false, generation, nil, 0, time.Now()
	r.broadcast()
	return b.next(now)
}

// lost records that the dataplane could not be reached.
func (r *Reconciler) lost(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.book
	b.known, b.busy = false, false
	if b.err == nil || b.err.Error() != err.Error() {
		r.o.Log.WithError(err).Warn("the dataplane does not answer; what it holds stays as it is")
	}
	b.err = err
	b.lostTimes++
	r.broadcast()
	return backoff(b.lostTimes, r.o)
}

// broadcast wakes everyone in Await. r.mu is held.
func (r *Reconciler) broadcast() {
	close(r.cond)
	r.cond = make(chan struct{})
	if r.o.Stepped != nil {
		r.o.Stepped()
	}
}

// Await blocks until the generation has been worked on and each of keys is held
// as desired, or is absent where it is not desired. It returns the object's
// error as soon as one fails for another reason than ErrNotReady, and keeps
// waiting while the dataplane cannot be reached. When ctx ends first, the error
// says what was waited for.
func (r *Reconciler) Await(ctx context.Context, generation uint64, keys []dataplane.Key) error {
	return r.await(ctx, func() (bool, error) { return r.book.settled(generation, keys) })
}

// AwaitAbsent is Await for objects that are not desired any more; it also ends,
// without error, when the dataplane cannot be reached: nothing can be removed
// then, and nothing is forgotten.
func (r *Reconciler) AwaitAbsent(ctx context.Context, generation uint64, keys []dataplane.Key) error {
	return r.await(ctx, func() (bool, error) {
		if errors.Is(r.book.err, dataplane.ErrDisconnected) {
			return true, nil
		}
		return r.book.settled(generation, keys)
	})
}

// Absent reports whether the dataplane was last seen without all of keys.
func (r *Reconciler) Absent(keys []dataplane.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		if _, held := r.book.actual.Get(k); held {
			return false
		}
	}
	return r.book.known
}

// Unmet are the desired objects that the dataplane does not hold as desired, each
// with the reason. An error says why that is not known: the dataplane cannot be
// reached, or it is being compared or changed at this moment, or the generation
// has not been worked on yet (ErrNotReady).
func (r *Reconciler) Unmet(generation uint64) (map[dataplane.Key]error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.book
	switch {
	case b.err != nil:
		return nil, b.err
	case !b.have || b.busy || b.dumpWanted || b.processed < generation:
		// A comparison may find that the dataplane has started anew, empty.
		return nil, fmt.Errorf("%w: the newest state is still being programmed", dataplane.ErrNotReady)
	}
	out := make(map[dataplane.Key]error, len(b.failures))
	for k, f := range b.failures {
		out[k] = f.err
	}
	return out, nil
}

// await blocks until over, called with r.mu held, says so.
func (r *Reconciler) await(ctx context.Context, over func() (bool, error)) error {
	for {
		r.mu.Lock()
		done, err := over()
		changed := r.cond
		r.mu.Unlock()
		if done {
			return err
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("the dataplane has not caught up yet")
			}
			return errors.Join(ctx.Err(), err)
		case <-changed:
		}
	}
}
