// Package fake is a dataplane in memory. It keeps the rules that real ones
// keep: a route needs its interface, steering needs its policy, a policy in use
// cannot go. So a wrong order of changes fails here too, without root.
package fake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Fault makes changes fail.
type Fault struct {
	// Match selects the changes that fail.
	Match func(dataplane.Change) bool
	// Err is what they fail with.
	Err error
	// Times is how often; 0 means until cleared.
	Times int
}

// Backend is a dataplane in memory, for concurrent use.
type Backend struct {
	mu     sync.Mutex
	state  dataplane.State
	links  map[string]bool
	faults []*Fault
	down   error
	log    []string
	closed bool
}

var _ dataplane.Backend = (*Backend)(nil)

// New returns an empty dataplane on a machine with these links.
func New(links ...string) *Backend {
	b := &Backend{state: dataplane.New(), links: map[string]bool{}}
	for _, l := range links {
		b.links[l] = true
	}
	return b
}

// AddLink makes a link appear, as the CNI plugin does.
func (b *Backend) AddLink(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links[name] = true
}

// Inject adds a fault.
func (b *Backend) Inject(f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, &f)
}

// ClearFaults removes all faults and reconnects.
func (b *Backend) ClearFaults() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults, b.down = nil, nil
}

// Disconnect makes every call fail with an ErrDisconnected until ClearFaults.
func (b *Backend) Disconnect(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = fmt.Errorf("%w: %s", dataplane.ErrDisconnected, reason)
}

// Wipe forgets everything, as a restarted userspace dataplane does.
func (b *Backend) Wipe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = dataplane.New()
}

// Disturb changes the state behind the program's back.
func (b *Backend) Disturb(f func(dataplane.State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.state)
}

// Text is the state in text, one object a line, sorted.
func (b *Backend) Text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.Text()
}

// Log lists the changes that were carried out, oldest first, and forgets them.
func (b *Backend) Log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.log
	b.log = nil
	return l
}

// Dump implements dataplane.Backend.
func (b *Backend) Dump(ctx context.Context) (dataplane.State, error) {
	if err := ctx.Err(); err != nil {
		return dataplane.State{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return dataplane.State{}, b.down
	}
	return b.state.Clone(), nil
}

// Apply implements dataplane.Backend.
func (b *Backend) Apply(ctx context.Context, changes []dataplane.Change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, c := range changes {
		if b.down != nil {
			return errors.Join(append(errs, b.down)...)
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := b.apply(c); err != nil {
			errs = append(errs, &dataplane.KeyError{Op: c.Op, Key: c.Key, Err: err})
			continue
		}
		b.log = append(b.log, c.Op.String()+" "+c.Key.String())
	}
	return errors.Join(errs...)
}

// Close implements dataplane.Backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *Backend) apply(c dataplane.Change) error {
	if err := b.fault(c); err != nil {
		return err
	}
	if c.Op == dataplane.OpDelete {
		if err := b.inUse(c.Key); err != nil {
			return err
		}
		b.state.Delete(c.Key)
		return nil
	}
	if err := b.missing(c.Key, c.New); err != nil {
		return err
	}
	b.state.Set(c.Key, c.New)
	return nil
}

func (b *Backend) fault(c dataplane.Change) error {
	for i, f := range b.faults {
		if !f.Match(c) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				b.faults = slices.Delete(b.faults, i, i+1)
			}
		}
		return f.Err
	}
	return nil
}

// missing reports what the object refers to and is not there.
func (b *Backend) missing(k dataplane.Key, v dataplane.Value) error {
	needInterface := func(name string) error {
		if _, ok := b.state.Interfaces[dataplane.InterfaceKey(name)]; !ok && name != "lo" {
			return fmt.Errorf("%w: interface %s", dataplane.ErrNotReady, name)
		}
		return nil
	}
	switch k := k.(type) {
	case dataplane.InterfaceKey:
		if !b.links[string(k)] {
			return fmt.Errorf("%w: link %s does not exist", dataplane.ErrNotReady, k)
		}
	case dataplane.AddressKey:
		return needInterface(k.Interface)
	case dataplane.NeighbourKey:
		return needInterface(k.Interface)
	case dataplane.RouteKey:
		for _, nh := range v.(dataplane.Route).NextHops {
			if err := needInterface(nh.Interface); err != nil {
				return err
			}
		}
	case dataplane.SteeringKey:
		bsid := v.(dataplane.Steering).BSID
		if _, ok := b.state.Policies[dataplane.PolicyKey{BSID: bsid}]; !ok {
			return fmt.Errorf("%w: no policy with binding SID %s", dataplane.ErrNotReady, bsid)
		}
	}
	return nil
}

// inUse refuses to remove what another object refers to.
func (b *Backend) inUse(k dataplane.Key) error {
	pk, ok := k.(dataplane.PolicyKey)
	if !ok {
		return nil
	}
	for sk, s := range b.state.Steerings {
		if s.BSID == pk.BSID {
			return fmt.Errorf("%w: %s is still steered into policy %s", dataplane.ErrNotReady, sk, pk.BSID)
		}
	}
	return nil
}
