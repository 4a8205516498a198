package duty

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
)

// Term is the time for which this replica leads. What is begun in it for a request goes on
// when the request is given up: a pageserver may go on as well, and whoever asked again would
// have to begin anew. It ends with the term, which joins it. The zero value has not begun.
type Term struct {
	mu  sync.Mutex
	ctx context.Context // nil while this replica does not lead
	all sync.WaitGroup
}

// Begin begins the term, until ctx ends or end is called. The latter waits for all work.
func (t *Term) Begin(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	t.mu.Lock()
	t.ctx = ctx
	t.mu.Unlock()
	return func() {
		cancel()
		t.mu.Lock()
		t.ctx = nil
		t.mu.Unlock()
		t.all.Wait()
	}
}

// Do runs work and waits for it, at most until ctx ends. The context of the work has the
// values of ctx. Without a term the work ends with ctx. When it panics, so does whoever waits
// for it, and nobody else: the process goes on.
func (t *Term) Do(ctx context.Context, work func(context.Context) error) error {
	t.mu.Lock()
	of := t.ctx
	if of == nil {
		t.mu.Unlock()
		return work(ctx)
	}
	type outcome struct {
		err   error
		panic any
	}
	done := make(chan outcome, 1)
	t.all.Go(func() {
		var o outcome
		defer func() {
			if o.panic = recover(); o.panic != nil {
				slog.Error("work of a term panicked", "panic", o.panic, "stack", string(debug.Stack()))
			}
			done <- o
		}()
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		defer cancel(nil)
		defer context.AfterFunc(of, func() { cancel(context.Cause(of)) })()
		o.err = work(ctx)
	})
	t.mu.Unlock()
	select {
	case o := <-done:
		if o.panic != nil {
			panic(o.panic)
		}
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
