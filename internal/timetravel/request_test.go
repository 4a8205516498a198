package timetravel

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm/fsmtest"
)

// A client that waits for less than the call takes ends no call: it would be one without an
// answer, which holds the tenant for long.
func TestATimeTravelOutlivesItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.tenant(neon.Placement{})
		w.answers(func(ctx context.Context, _ neon.NodeID, _ neon.ShardID) error {
			select {
			case <-time.After(20 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		defer w.run(w.travels)()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := w.travels.Travel(ctx, tenantOne, then, []neon.ShardCount{0}); err == nil {
			t.Error("a request has waited for more than it may")
		}
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if calls := w.took(); w.recorded() || len(calls) != 1 {
			t.Errorf("the time travel is recorded: %v, after the calls %q", w.recorded(), calls)
		}
	})
}

// Below the level of time travels nothing keeps the tenant away while a pageserver is at it.
func TestWithoutARecordNothingOutlivesTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{Faulty: fsmtest.NewFaulty(t), t: t}
		w.AddNodes(t, 1, neon.MakeAZ("a"))
		w.travels = w.leader()
		w.tenant(neon.Placement{})
		under := false
		w.answers(func(ctx context.Context, _ neon.NodeID, _ neon.ShardID) error {
			under = true
			defer func() { under = false }()
			select {
			case <-time.After(20 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		defer w.run(w.travels)()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := w.travels.Travel(ctx, tenantOne, then, []neon.ShardCount{0}); err == nil {
			t.Error("a request has waited for more than it may")
		}
		synctest.Wait()
		if err := w.attach(); err == nil && under {
			t.Error("the tenant is attached while a pageserver puts it back")
		}
	})
}
