package deletion

import (
	"net/http"
	"testing"
	"testing/synctest"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

func goneEverywhere(neon.ShardNumber) (int, error) { return http.StatusNotFound, nil }

// It was refused, and is repeated.
func TestARefusedDeletionIsNotDoneBelowTheLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.shards.set(func(neon.ShardNumber) (int, error) {
			return 0, answered{http.StatusPreconditionFailed, "has children"}
		})
		for range 2 {
			stage, err := w.delete(decide.WithRequest(t.Context(), [32]byte{1}))
			if err == nil {
				t.Errorf("refused by all pageservers, answered %d", stage)
			}
		}
	})
}

// The tenant is dropped in the middle of a deletion and brought back with its data.
func TestADroppedTenantTakesItsDeletionsAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.Upgrade(t)
		w.shards.set(func(neon.ShardNumber) (int, error) { return http.StatusAccepted, nil })
		r1 := func() (Stage, error) {
			return w.delete(decide.WithRequest(t.Context(), [32]byte{1}))
		}
		if stage, err := r1(); stage != Runs || err != nil {
			t.Fatal(stage, err)
		}
		w.Must(fsm.DropTenant{ID: tenantOne})
		create(w.Faulty, tenantOne, 4) // imported again, the timeline is there still
		w.Attach(t, tenantOne)
		n := len(w.shards.calls())
		if stage, err := r1(); err == nil && stage == Done && len(w.shards.calls()) == n {
			t.Error("answered as done; no pageserver was asked, nothing is recorded")
		}
	})
}

// A request joins a deletion that another has begun.
func TestWhoJoinsADeletionDoesNotRepeatIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.Upgrade(t)
		w.shards.set(func(neon.ShardNumber) (int, error) { return http.StatusAccepted, nil })
		stage, err := w.delete(decide.WithRequest(t.Context(), [32]byte{1}))
		if stage != Runs || err != nil {
			t.Fatal(stage, err)
		}
		w.shards.set(goneEverywhere)
		r2 := func() (Stage, error) {
			return w.delete(decide.WithRequest(t.Context(), [32]byte{2}))
		}
		if stage, err := r2(); stage != Done || err != nil { // the client asks again: done
			t.Fatal(stage, err)
		}
		// The timeline is created again. Then R2 is carried again.
		n := len(w.shards.calls())
		if _, err := r2(); err == nil && len(w.shards.calls()) > n {
			t.Errorf("the new timeline was deleted on %d shards", len(w.shards.calls())-n)
		}
	})
}

// The refusal of one deletion makes that of another, in another tenant, be forgotten.
func TestARefusedDeletionForgetsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.Upgrade(t)
		other := neon.TenantID{77}
		create(w.Faulty, other, 1)
		w.Attach(t, other)
		del := func() (Stage, error) {
			ctx := decide.WithRequest(t.Context(), [32]byte{2})
			return w.timelines.Delete(ctx, other, neon.TimelineID{5})
		}
		w.Before = func(c fsm.Command) {
			if _, ok := c.(fsm.CancelDeleteTimeline); ok {
				w.Before = nil
				if stage, err := del(); stage != Done || err != nil {
					t.Fatal(stage, err)
				}
			}
		}
		w.shards.set(func(s neon.ShardNumber) (int, error) {
			if w.Before != nil {
				return 0, answered{http.StatusPreconditionFailed, "has children"}
			}
			return http.StatusNotFound, nil
		})
		if _, err := w.delete(decide.WithRequest(t.Context(), [32]byte{1})); err == nil {
			t.Fatal("not refused")
		}
		n := len(w.shards.calls())
		if _, err := del(); err == nil && len(w.shards.calls()) > n {
			t.Error("the done deletion in another tenant is done again")
		}
	})
}
