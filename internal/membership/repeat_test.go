package membership

import (
	"slices"
	"testing"
	"testing/synctest"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// An abort that was done is carried again and takes back the next migration.
func TestAnAbortIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Upgrade(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		begin := func() {
			tl := w.timeline(t)
			w.Must(fsm.BeginMembership{Tenant: one.Tenant, Timeline: one.Timeline,
				Generation: tl.Generation, NewSet: moved})
		}
		abort := func() error {
			return w.migrator.Abort(decide.WithRequest(t.Context(), [32]byte{1}), one)
		}
		begin()
		if err := abort(); err != nil || joint(t, w) {
			t.Fatal(err)
		}
		begin() // by another client
		if err := abort(); err == nil && !joint(t, w) {
			t.Error("another migration was aborted")
		}
	})
}

// A client's abort that found nothing to abort is repeated under its key, and takes back a
// migration that was begun since.
func TestAnAbortOfNothingIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Upgrade(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		abort := func() error {
			return w.migrator.Abort(
				decide.ByClient(decide.WithRequest(t.Context(), [32]byte{1})), one)
		}
		if err := abort(); err != nil {
			t.Fatal(err)
		}
		tl := w.timeline(t)
		w.Must(fsm.BeginMembership{
			Tenant: one.Tenant, Timeline: one.Timeline, Generation: tl.Generation, NewSet: moved,
		})
		if err := abort(); err == nil && !joint(t, w) {
			t.Error("another migration was aborted")
		}
	})
}

// The first BeginMembership loses a race; the second has another number.
func TestAMigrationThatLostARaceIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Upgrade(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		died := neon.Errorf(neon.OutcomeUnknown, "died")
		w.Before = func(c fsm.Command) {
			if _, ok := c.(fsm.BeginMembership); ok { // another is faster, and aborts
				w.Before = nil
				tl := w.timeline(t)
				w.Must(fsm.BeginMembership{Tenant: one.Tenant, Timeline: one.Timeline,
					Generation: tl.Generation, NewSet: []neon.NodeID{2, 3, 4}})
				tl = w.timeline(t)
				w.Must(fsm.EndMembership{Tenant: one.Tenant, Timeline: one.Timeline,
					Generation: tl.Generation, Verdict: fsm.MembershipAbort})
			}
		}
		w.After = func(c fsm.Command) error {
			if tl := w.timeline(t); slices.Equal(tl.Set, moved) && acknowledged(&tl) {
				return died
			}
			return nil
		}
		r1 := func() error {
			return w.migrator.Migrate(decide.WithRequest(t.Context(), [32]byte{1}), one, moved)
		}
		err := r1()
		w.After = nil
		t.Log(err, w.timeline(t).Set)
		if err := w.migrator.Migrate(t.Context(), one, []neon.NodeID{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		err = r1()
		if tl := w.timeline(t); !slices.Equal(tl.Set, []neon.NodeID{1, 2, 3}) {
			t.Errorf("moved once more to %v: %v", tl.Set, err)
		}
	})
}

func joint(t *testing.T, w *world) bool { tl := w.timeline(t); return tl.Joint() }
