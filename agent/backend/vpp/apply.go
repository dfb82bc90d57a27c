package vpp

import (
	"context"
	"errors"
	"fmt"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// Apply implements dataplane.Backend. After a Dump it works on the VPP that the
// Dump read alone: on a newer connection it is dataplane.ErrDisconnected until the
// next Dump. Changes of one kind that follow one
// another, and all add or all delete, go to VPP in one pipeline.
func (b *Backend) Apply(ctx context.Context, changes []dataplane.Change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(changes) == 0 {
		return nil
	}
	c, err := b.connect(ctx)
	if err != nil {
		return err
	}
	if b.dumped != nil && b.dumped != c {
		// The changes are the difference to what another VPP held: on this one,
		// which may have started anew, they are not all that is missing.
		return fmt.Errorf("%w: the connection is not the one that VPP's state was read from", dataplane.ErrDisconnected)
	}
	a := &applier{Backend: b, ctx: ctx, c: c}
	if a.view, err = readView(ctx, c); err != nil {
		return lost(err)
	}
	for len(changes) > 0 {
		n := run(changes)
		if err := a.apply(changes[:n]); err != nil {
			return errors.Join(lost(err), errors.Join(a.failed...))
		}
		changes = changes[n:]
	}
	if err := a.takeOverlay(); err != nil {
		return errors.Join(lost(err), errors.Join(a.failed...))
	}
	if a.deleted {
		if err := a.tidy(); err != nil {
			return errors.Join(lost(err), errors.Join(a.failed...))
		}
	}
	return errors.Join(a.failed...)
}

// run counts the changes at the front that can go together.
func run(changes []dataplane.Change) int {
	same := func(x dataplane.Change) bool {
		return x.Key.Kind() == changes[0].Key.Kind() && (x.Op == dataplane.OpDelete) == (changes[0].Op == dataplane.OpDelete)
	}
	n := 1
	for n < len(changes) && same(changes[n]) {
		n++
	}
	return n
}

// applier carries out one Apply.
type applier struct {
	*Backend
	ctx     context.Context
	c       *binapi.Conn
	view    *view
	source  uint8 // our FIB source; 0: not looked up yet
	tables  map[binapi.Table]bool
	buffers int // bytes of data in VPP's buffers; 0: not asked yet
	deleted bool
	stalled bool // BeforeStall was called
	failed  []error
}

// apply carries out changes of one kind and direction. Its error is about the
// connection; what fails for one key is collected.
func (a *applier) apply(changes []dataplane.Change) error {
	del := changes[0].Op == dataplane.OpDelete
	a.deleted = a.deleted || del
	switch changes[0].Key.Kind() {
	case dataplane.KindSetting:
		return a.settings(changes)
	case dataplane.KindInterface:
		return a.interfaces(changes)
	case dataplane.KindAddress:
		return a.addresses(changes)
	case dataplane.KindNeighbour:
		return a.neighbours(changes)
	case dataplane.KindRoute:
		return a.routes(changes)
	case dataplane.KindLocalSID:
		if del {
			return a.deleteLocalSIDs(changes)
		}
		return a.setLocalSIDs(changes)
	case dataplane.KindPolicy:
		if del {
			return a.deletePolicies(changes)
		}
		return a.setPolicies(changes)
	case dataplane.KindSteering:
		return a.steerings(changes)
	}
	for _, ch := range changes {
		a.fail(ch, fmt.Errorf("%w: objects of this kind", dataplane.ErrUnsupported))
	}
	return nil
}

// stall is called before VPP is asked for something that takes it long.
func (a *applier) stall() {
	if !a.stalled && a.opts.BeforeStall != nil {
		a.opts.BeforeStall()
	}
	a.stalled = true
}

// fail notes that a change was not carried out.
func (a *applier) fail(ch dataplane.Change, err error) {
	if err != nil {
		a.failed = append(a.failed, &dataplane.KeyError{Op: ch.Op, Key: ch.Key, Err: err})
	}
}

// do runs calls of which each is needed, for one change. fatal is about the
// connection; err is VPP's refusal.
func (a *applier) do(calls ...*binapi.Call) (fatal, err error) {
	if fatal := a.c.Do(a.ctx, calls...); fatal != nil {
		return fatal, nil
	}
	for _, call := range calls {
		if call.Err != nil {
			return nil, call.Err
		}
	}
	return nil, nil
}

// each runs one call for each change that make has one for, in one pipeline.
// harmless refusals count as success.
func (a *applier) each(changes []dataplane.Change, make func(dataplane.Change) (*binapi.Call, error), harmless ...int32) error {
	calls, of := a.collect(changes, make)
	if len(calls) == 0 {
		return nil
	}
	if err := a.c.Do(a.ctx, calls...); err != nil {
		return err
	}
	for i, call := range calls {
		a.fail(of[i], unless(call.Err, harmless...))
	}
	return nil
}

// collect makes the calls; a change that has none failed or is done.
func (a *applier) collect(changes []dataplane.Change, mk func(dataplane.Change) (*binapi.Call, error)) ([]*binapi.Call, []dataplane.Change) {
	calls := make([]*binapi.Call, 0, len(changes))
	of := make([]dataplane.Change, 0, len(changes))
	for _, ch := range changes {
		call, err := mk(ch)
		if err != nil {
			a.fail(ch, err)
		} else if call != nil {
			calls, of = append(calls, call), append(of, ch)
		}
	}
	return calls, of
}

// unless is err, or nil when it is one of these refusals.
func unless(err error, harmless ...int32) error {
	for _, rv := range harmless {
		if binapi.Retval(err) == rv {
			return nil
		}
	}
	return err
}
