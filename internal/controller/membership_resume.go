package controller

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

const (
	// settleScan is how often timelines are looked through for migrations that
	// nobody carries on.
	settleScan = time.Minute

	// jointPatience is how long a migration that failed is left to whoever asked for
	// it, to try again or to abort; one that is committed only once settleScan has
	// passed. One that an earlier leader left is carried on at once.
	jointPatience = 10 * time.Minute

	// settleTime bounds one try for one timeline.
	settleTime = 2 * time.Minute
)

// waiting is a timeline in the middle of a migration, as this leader first saw it.
type waiting struct {
	sequence uint64
	since    time.Time
}

// ResumeMigrations carries on the migrations of timelines between safekeepers that
// earlier leaders and requests have left, for as long as this replica leads. It
// returns when ctx ends, with nil.
func (t *Timelines) ResumeMigrations(ctx context.Context) error {
	tick := time.NewTicker(settleScan)
	defer tick.Stop()
	left := t.unsettled(ctx, nil)
	retry := make(map[neon.TimelineRef]bool) // found at the beginning of the term
	for ref := range left {
		retry[ref] = true
	}
	for pause := resumeMin; ; {
		for ref := range retry {
			if t.resumeMigration(ctx, ref) {
				delete(retry, ref)
				pause = resumeMin
			}
		}
		var again <-chan time.Time
		if len(retry) > 0 {
			again = time.After(pause)
			pause = min(2*pause, resumeMax)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-tick.C:
			left = t.unsettled(ctx, left)
			for ref, w := range left {
				tl, ok := t.Log.State().Timeline(ref.Tenant, ref.Timeline)
				if age := time.Since(w.since); ok &&
					(age >= jointPatience || !tl.Joint() && age >= settleScan) {
					retry[ref] = true
				}
			}
		}
	}
}

// unsettled lists the timelines in the middle of a migration. Those that have not
// moved since they were listed before keep their time.
func (t *Timelines) unsettled(
	ctx context.Context, before map[neon.TimelineRef]waiting,
) map[neon.TimelineRef]waiting {
	now := make(map[neon.TimelineRef]waiting)
	for tl := range t.Log.State().Timelines() {
		if ctx.Err() != nil {
			return now
		}
		if tl.MigrationDone() || tl.Deleted {
			continue
		}
		w := waiting{sequence: tl.Sequence, since: time.Now()}
		if old, ok := before[tl.Ref()]; ok && old.sequence == tl.Sequence {
			w = old
		}
		now[tl.Ref()] = w
	}
	return now
}

// resumeMigration tells whether nothing is left to be done for a timeline.
func (t *Timelines) resumeMigration(ctx context.Context, ref neon.TimelineRef) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for range decisions {
		s, err := t.Log.ReadState(ctx)
		if err != nil {
			return ctx.Err() != nil
		}
		tl, ok := s.Timeline(ref.Tenant, ref.Timeline)
		if !ok || tl.Deleted || tl.MigrationDone() {
			return true
		}
		if err = t.carryOn(ctx, s, &tl); err != nil && neon.CodeOf(err) != neon.Conflict {
			if ctx.Err() == nil {
				t.Logger.Info("A migration between safekeepers is not finished yet",
					"timeline", ref.String(), "err", err)
			}
			return false
		}
	}
	return false
}

func (t *Timelines) carryOn(ctx context.Context, s *fsm.State, tl *fsm.Timeline) error {
	if tl.Joint() {
		return t.advance(ctx, s, tl)
	}
	return t.settle(ctx, s, tl)
}
