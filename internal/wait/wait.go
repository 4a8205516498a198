// Package wait has the three ways in which our goroutines wait for something: for
// time to pass, to be woken, and for a change that many wait for.
//
// All of them work in virtual time: nothing here is made before it is used, so
// that channels belong to the bubble of their owner.
package wait

import (
	"context"
	"sync"
	"time"
)

// Sleep waits for d, or until ctx ends. The error is the cause of ctx's end.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Signal wakes one goroutine. Sets that come before the receiver looks are merged
// into one, so Set never blocks. Make it with NewSignal.
type Signal chan struct{}

// NewSignal returns a signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set wakes the receiver, now or when it next receives.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Broadcast wakes all who wait. The zero value is ready to use.
//
// To miss nothing, take Changed first, then look at what may have changed, then
// wait for the channel.
type Broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// Changed returns a channel that is closed at the next Notify.
func (b *Broadcast) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// Notify wakes all who hold a channel of Changed.
func (b *Broadcast) Notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
