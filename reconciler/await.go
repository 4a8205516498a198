package reconciler

import (
	"sync"

	"quorate/api/neon"
)

// waiters are the requests that wait for shards to be as the log says.
type waiters struct {
	mu sync.Mutex
	by map[neon.ShardID][]*waiter
}

type waiter struct {
	index uint64
	done  chan error // one value
}

func newWaiters() *waiters { return &waiters{by: make(map[neon.ShardID][]*waiter)} }

func (w *waiters) add(id neon.ShardID, index uint64) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := &waiter{index: index, done: make(chan error, 1)}
	w.by[id] = append(w.by[id], x)
	return x
}

func (w *waiters) remove(id neon.ShardID, x *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filter(id, func(y *waiter) bool { return y != x })
}

// has reports whether somebody waits for a shard.
func (w *waiters) has(id neon.ShardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.by[id]) > 0
}

// done releases those who wait for a state no newer than index.
func (w *waiters) done(id neon.ShardID, index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filter(id, func(x *waiter) bool {
		if x.index > index {
			return true
		}
		x.done <- nil
		return false
	})
}

// failed ends all waits for a shard with an error.
func (w *waiters) failed(id neon.ShardID, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filter(id, func(x *waiter) bool { x.done <- err; return false })
}

func (w *waiters) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.by {
		w.filter(id, func(x *waiter) bool { x.done <- err; return false })
	}
}

func (w *waiters) filter(id neon.ShardID, f func(*waiter) bool) {
	list := w.by[id]
	kept := list[:0]
	for _, x := range list {
		if f(x) {
			kept = append(kept, x)
		}
	}
	if len(kept) == 0 {
		delete(w.by, id)
	} else {
		w.by[id] = kept
	}
}
