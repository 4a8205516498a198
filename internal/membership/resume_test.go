package membership

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// begun adds timelines in the middle of a migration, after a number of others.
func (w *world) begun(after, n int) (all []neon.TimelineID) {
	for i := after; i < after+n; i++ {
		id := neon.TimelineID{0: 3}
		binary.BigEndian.PutUint32(id[12:], uint32(i))
		w.Must(fsm.CreateTimeline{
			Tenant: one.Tenant, Timeline: id, Set: []neon.NodeID{1, 2, 3},
		})
		w.Must(fsm.BeginMembership{
			Tenant: one.Tenant, Timeline: id, Generation: 1, NewSet: moved,
		})
		all = append(all, id)
	}
	return all
}

// during runs a term around f.
func (w *world) during(ctx context.Context, f func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { w.migrator.Run(ctx); close(ended) }()
	f()
	cancel()
	<-ended
}

func (w *world) done(id neon.TimelineID) bool {
	tl, _ := w.State().Timeline(one.Tenant, id)
	return tl.MigrationDone() && slices.Equal(tl.Set, moved)
}

// TestMigrationsThatCannotGoOnHoldUpNoOther: compute cannot be told of any but the last, and
// a client has still to wait for what takes its time.
func TestMigrationsThatCannotGoOnHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.begun(0, 200)
		good := all[len(all)-1]
		w.keepers.deaf = map[neon.TimelineID]bool{}
		for _, id := range all[:len(all)-1] {
			w.keepers.deaf[id] = true
		}
		w.during(t.Context(), func() {
			// The places are given back three times before all have had one.
			time.Sleep(4 * placeTime)
			if !w.done(good) {
				t.Error("a migration waits for others")
			}
			time.Sleep(10 * time.Minute)
			// Those that were begun later are tried at once, whatever has failed.
			late := w.begun(200, 1)[0]
			time.Sleep(jointTimeout + 2*scanInterval)
			if !w.done(late) {
				t.Error("a later migration waits for those that have failed")
			}
			w.keepers.mu.Lock()
			w.keepers.deaf = nil
			w.keepers.mu.Unlock()
			time.Sleep(resumeTimeout + longestPause + time.Minute)
			for _, id := range all {
				if !w.done(id) {
					t.Fatal("a migration is not tried again")
				}
			}
		})
	})
}

// TestAConflictThatStaysIsAFailure: nobody has overtaken a migration whose record is as it
// was. It is tried less and less often, and a client hears why.
func TestAConflictThatStaysIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.begun(0, 1)[0]
		w.keepers.ahead = 9
		switches := func() (n int) {
			w.keepers.mu.Lock()
			defer w.keepers.mu.Unlock()
			for _, line := range w.keepers.log {
				if line == "switch 1 to 9" {
					n++
				}
			}
			return n
		}
		w.during(t.Context(), func() {
			time.Sleep(time.Minute)
			if n := switches(); n < 4 || n > 8 {
				t.Errorf("it was tried %d times in a minute", n)
			}
		})
		before := switches()
		ref := neon.TimelineRef{Tenant: one.Tenant, Timeline: id}
		err := w.migrator.Migrate(t.Context(), ref, moved)
		if neon.CodeOf(err) != neon.Conflict || switches() > before+2 ||
			err.Error() != "received configuration with generation 9 from safekeeper, but expected 2" {
			t.Errorf("after %d tries a client hears %v", switches()-before, err)
		}
	})
}
