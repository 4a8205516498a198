package duty

import (
	"context"
	"sync"
)

// Turns lets one at a time work on a thing: a request, or the leader's own work. The
// zero value is ready to use.
type Turns[K comparable] struct {
	mu      sync.Mutex
	holders map[K]*turn
}

type turn struct {
	yield func() // makes the holder stop; nil for one that is not interrupted
	done  chan struct{}
}

// Take waits for the turn. Interrupt calls yield while it is held; nil: the holder
// cannot be interrupted.
func (t *Turns[K]) Take(ctx context.Context, key K, yield func()) (release func(), err error) {
	for {
		t.mu.Lock()
		before := t.holders[key]
		if before == nil {
			mine := &turn{yield: yield, done: make(chan struct{})}
			if t.holders == nil {
				t.holders = make(map[K]*turn)
			}
			t.holders[key] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.holders, key)
				t.mu.Unlock()
				close(mine.done)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-before.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Interrupt makes the holder of a turn stop, if it can be interrupted.
func (t *Turns[K]) Interrupt(key K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.holders[key]; h != nil && h.yield != nil {
		h.yield()
	}
}
