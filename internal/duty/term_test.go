package duty

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/wait"
)

// TestWorkOfATermOutlivesItsRequest: whoever asked for it may go, and the work goes on, with
// the values of the request. The end of the term ends it, and joins it.
func TestWorkOfATermOutlivesItsRequest(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var term Term
		of, cancel := context.WithCancel(t.Context())
		defer cancel()
		end := term.Begin(of)
		begun, done := time.Now(), time.Duration(0)
		ask := func(takes time.Duration) error {
			ctx, give := context.WithTimeout(context.WithValue(t.Context(), key{}, "x"), time.Second)
			defer give()
			return term.Do(ctx, func(ctx context.Context) error {
				if ctx.Value(key{}) != "x" {
					t.Error("the values of the request are lost")
				}
				err := wait.Sleep(ctx, takes)
				done = time.Since(begun)
				return err
			})
		}
		if err := ask(time.Millisecond); err != nil {
			t.Error(err)
		}
		if err := ask(time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request has waited: %v", err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if want := time.Minute + time.Millisecond; done != want {
			t.Errorf("the work has ended after %s, not %s", done, want)
		}
		_ = ask(time.Hour)
		before := time.Since(begun)
		cancel()
		end()
		if done != before {
			t.Errorf("the work has ended after %s, and the term after %s", done, before)
		}
	})
}

// TestWorkWithoutATermEndsWithItsRequest: a replica that does not lead keeps nothing.
func TestWorkWithoutATermEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var term Term
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := term.Do(ctx, func(ctx context.Context) error { return wait.Sleep(ctx, time.Minute) })
		if err == nil {
			t.Error("the work went on")
		}
		term.Begin(t.Context())() // and after one neither
		err = term.Do(ctx, func(ctx context.Context) error { return wait.Sleep(ctx, time.Minute) })
		if err == nil {
			t.Error("the work went on")
		}
	})
}

// TestWorkThatPanicsEndsNoProcess: who waits for it panics, as if it had done the work itself.
func TestWorkThatPanicsEndsNoProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var term Term
		of, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer term.Begin(of)()
		ask := func(takes time.Duration) (got any) {
			ctx, give := context.WithTimeout(t.Context(), time.Second)
			defer give()
			defer func() { got = recover() }()
			_ = term.Do(ctx, func(context.Context) error {
				<-time.After(takes)
				panic("broken")
			})
			return nil
		}
		if got := ask(0); got != "broken" {
			t.Errorf("who waits hears %v", got)
		}
		if got := ask(time.Minute); got != nil {
			t.Errorf("who does not wait hears %v", got)
		}
		time.Sleep(2 * time.Minute)
	})
}
