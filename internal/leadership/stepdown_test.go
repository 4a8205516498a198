package leadership

import (
	"context"
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
)

// observed is what a test's term has seen.
func observed() neon.GlobalObserved {
	return neon.GlobalObserved{neon.ShardID{Tenant: neon.TenantID{1}}: {}}
}

func TestStepDownTellsWhatTheTermHasSeenOnceItHasEnded(t *testing.T) {
	gave := 0
	give := func(context.Context) error { gave++; return nil }
	scene(t, give, func(t *testing.T, m *member, l *Leadership) {
		m.follow("self", "")
		ended := l.TermBegins()
		time.AfterFunc(time.Minute, func() {
			m.follow("a", "http://a")
			l.TermEnds(observed)
			ended()
		})
		begun := time.Now()
		answers := make(chan int, 2)
		for range 2 {
			go func() {
				seen, err := l.StepDown(t.Context())
				if err != nil {
					t.Error(err)
				}
				answers <- len(seen)
			}()
		}
		for range 2 {
			if n := <-answers; n != 1 {
				t.Errorf("told of %d shards", n)
			}
		}
		if took := time.Since(begun); took != time.Minute || gave != 1 {
			t.Errorf("answered after %s, leadership was given away %d times", took, gave)
		}
		// It does not lead any more: it repeats itself.
		if seen, err := l.StepDown(t.Context()); len(seen) != 1 || err != nil || gave != 1 {
			t.Errorf("again: %d shards, %v, given away %d times", len(seen), err, gave)
		}
	})
}

func TestStepDownGoesOnWithoutTheOneWhoAsked(t *testing.T) {
	var let chan struct{} // made in the bubble
	give := func(context.Context) error { <-let; return nil }
	scene(t, give, func(t *testing.T, m *member, l *Leadership) {
		let = make(chan struct{})
		m.follow("self", "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.StepDown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that is gone: %v", err)
		}
		close(let)
		if seen, err := l.StepDown(t.Context()); seen == nil || err != nil {
			t.Errorf("the one who asks again: %v, %v", seen, err)
		}
	})
}

func TestRefusedStepDownLeavesTheTermAlone(t *testing.T) {
	refusal := errors.New("nobody else")
	give := func(context.Context) error { return refusal }
	scene(t, give, func(t *testing.T, m *member, l *Leadership) {
		m.follow("self", "")
		ended := l.TermBegins()
		if _, err := l.StepDown(t.Context()); !errors.Is(err, refusal) {
			t.Errorf("refused with %v", err)
		}
		asked := false
		l.TermEnds(func() neon.GlobalObserved { asked = true; return nil })
		ended()
		if asked {
			t.Error("nobody wants to know what a term saw that ends by itself")
		}
	})
}
