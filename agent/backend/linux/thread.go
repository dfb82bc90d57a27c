package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// thread is an OS thread that stays in one network namespace and runs functions
// there, one at a time.
type thread struct {
	work chan func()
	// ended is closed by close.
	ended chan struct{}
	once  sync.Once
}

const threadNetNS = "/proc/thread-self/ns/net"

// newThread starts a thread in the network namespace of the calling one.
func newThread() (*thread, error) {
	// The caller's thread is held until the new one is in place, so that "the
	// calling thread" means one thing.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want, err := os.Open(threadNetNS)
	if err != nil {
		return nil, fmt.Errorf("network namespace of the calling thread: %w", err)
	}
	defer want.Close()
	t := &thread{work: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread may be in a namespace other than the
		// process's and must end with this goroutine.
		runtime.LockOSThread()
		err := enter(want)
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-t.work:
				f()
			case <-t.ended:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

// enter moves the calling thread into the namespace; staying where it is needs
// no privilege.
func enter(want *os.File) error {
	is, err := os.Stat(threadNetNS)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	w, err := want.Stat()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if os.SameFile(is, w) {
		return nil
	}
	if err := unix.Setns(int(want.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	return nil
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case t.work <- func() { done <- f() }:
		return <-done
	case <-t.ended:
		return errors.New("the dataplane is closed")
	}
}

func (t *thread) close() { t.once.Do(func() { close(t.ended) }) }
