package cniserver

import (
	"context"
	"sync"
)

// background runs functions until it is ended, and none before it is begun: what
// is dropped while the records are loaded was never programmed by this run.
type background struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (b *background) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx, b.cancel = context.WithCancel(context.Background())
}

// run starts f, whose context ends with end.
func (b *background) run(f func(ctx context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil || b.ctx.Err() != nil {
		return
	}
	ctx := b.ctx
	b.wg.Go(func() { f(ctx) })
}

// end has all functions end, and waits for them. It may be called again.
func (b *background) end() {
	b.mu.Lock()
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
