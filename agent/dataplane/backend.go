package dataplane

import (
	"context"
	"errors"
	"fmt"
)

// Backend is a dataplane that can be read back and changed.
type Backend interface {
	// Dump reads what the dataplane really holds of this program's objects.
	// Foreign objects are not in it. An error means that nothing is known.
	Dump(ctx context.Context) (State, error)
	// Apply carries out the changes in the order given. Every change is tried;
	// the error joins one *KeyError for each that failed (see Failures), or is
	// another error when the dataplane cannot be reached at all, in which case
	// the state reached is unknown and the caller must Dump.
	//
	// OpAdd of an object that exists replaces it. OpUpdate of one that is
	// absent adds it. OpDelete of one that is absent succeeds.
	Apply(ctx context.Context, changes []Change) error
	// Close releases connections. It leaves the dataplane as it is.
	Close() error
}

// Sentinel errors, matched with errors.Is.
var (
	// ErrUnsupported: this backend can never hold the object on this machine.
	// It is reported and not tried again until the desired object changes or
	// the backend is replaced.
	ErrUnsupported = errors.New("not supported by this dataplane")
	// ErrNotReady: something the object refers to is not there yet (a link, a
	// policy). It is tried again.
	ErrNotReady = errors.New("not ready")
	// ErrDisconnected: the dataplane cannot be reached; nothing is known of it.
	ErrDisconnected = errors.New("dataplane not reachable")
)

// KeyError is the failure of one change.
type KeyError struct {
	Op  Op
	Key Key
	Err error
}

func (e *KeyError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Key, e.Err) }

// Unwrap lets errors.Is see the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// Failures splits an error of Apply into the failures by key and whatever else
// is in it; rest is nil when all of err is about single objects.
func Failures(err error) (byKey map[Key]*KeyError, rest error) {
	byKey = map[Key]*KeyError{}
	var others []error
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if ke, ok := err.(*KeyError); ok { //nolint:errorlint // the tree is walked by hand: errors.As would find the first only
			byKey[ke.Key] = ke
			return
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		others = append(others, err)
	}
	walk(err)
	return byKey, errors.Join(others...)
}
