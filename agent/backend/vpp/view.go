package vpp

import (
	"context"
	"fmt"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// held is an interface of ours in VPP.
type held struct {
	binapi.Interface
	tag tag
	// modes of its queues, where they were read.
	modes []binapi.RxMode
}

// view is VPP's interfaces as they were a moment ago.
type view struct {
	byName  map[string]held
	byIndex map[binapi.Index]string
	// parked are interfaces of ours that are on an uplink and not in use.
	parked map[string]held
	// lo is the loopback of ours; nil when there is none.
	lo *held
	// memifs are the interfaces behind pods' memifs.
	memifs memifView
	// others are interfaces without a tag of ours.
	others []binapi.Interface
}

func newView(all []binapi.Interface) *view {
	v := &view{byName: map[string]held{}, byIndex: map[binapi.Index]string{}, parked: map[string]held{}, memifs: newMemifView()}
	for _, i := range all {
		t, ok := parseTag(i.Tag)
		switch {
		case !ok:
			v.others = append(v.others, i)
		case t.role == roleLoopback:
			v.lo = &held{Interface: i, tag: t}
		case t.role == roleParked:
			v.parked[t.name] = held{Interface: i, tag: t}
		case v.memifs.take(i, t):
		default:
			v.byName[t.name] = held{Interface: i, tag: t}
			v.byIndex[i.Index] = t.name
		}
	}
	return v
}

// anyOn is the interface of this name, in use or parked.
func (v *view) anyOn(name string) (held, bool) {
	if h, ok := v.byName[name]; ok {
		return h, true
	}
	h, ok := v.parked[name]
	return h, ok
}

func readView(ctx context.Context, c *binapi.Conn) (*view, error) {
	var all []binapi.Interface
	call := binapi.Interfaces(&all)
	if err := do(ctx, c, call); err != nil {
		return nil, err
	}
	return newView(all), nil
}

// index resolves a link's name.
func (v *view) index(name string) (binapi.Index, error) {
	h, ok := v.byName[name]
	if !ok {
		return 0, fmt.Errorf("%w: VPP has no interface for link %q", dataplane.ErrNotReady, name)
	}
	return h.Index, nil
}

// do runs calls of which each is needed.
func do(ctx context.Context, c *binapi.Conn, calls ...*binapi.Call) error {
	if err := c.Do(ctx, calls...); err != nil {
		return err
	}
	for _, call := range calls {
		if call.Err != nil {
			return call.Err
		}
	}
	return nil
}
