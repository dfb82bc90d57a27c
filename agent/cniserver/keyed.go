package cniserver

import (
	"context"
	"sync"
)

// keyedMutex is one mutex for each key, made on demand. Waiting ends with the
// context.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	// sem holds one token while the key is locked.
	sem chan struct{}
	// users are the holder and all who wait.
	users int
}

func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{sem: make(chan struct{}, 1)}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()

	select {
	case l.sem <- struct{}{}:
		return func() { <-l.sem; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, ctx.Err()
	}
}

// tryLock does not wait: ok is false while somebody holds the key or waits for it.
func (k *keyedMutex) tryLock(key string) (unlock func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		k.held = map[string]*keyLock{}
	}
	if k.held[key] != nil {
		return nil, false
	}
	l := &keyLock{sem: make(chan struct{}, 1), users: 1}
	l.sem <- struct{}{}
	k.held[key] = l
	return func() { <-l.sem; k.leave(key, l) }, true
}

func (k *keyedMutex) leave(key string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.held, key)
	}
}
