package membership

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

const (
	// scanInterval is how often timelines are looked through for migrations that
	// no request carries on.
	scanInterval = time.Minute

	// jointTimeout is how long a migration that failed is left to the client that asked for
	// it, to try again or to abort; one that is committed only once scanInterval has
	// passed. One that an earlier leader left is carried on at once.
	jointTimeout = 10 * time.Minute

	// shortestPause and longestPause bound the pause between two tries.
	shortestPause = time.Second
	longestPause  = time.Minute

	// resumeTimeout bounds one try for one timeline.
	resumeTimeout = 2 * time.Minute
)

// waiting is a timeline in the middle of a migration, as this leader first saw it.
type waiting struct {
	sequence uint64
	since    time.Time
}

// Run carries on the migrations of timelines between safekeepers that
// earlier leaders and requests have left, for as long as this replica leads. It
// returns when ctx ends.
func (m *Migrator) Run(ctx context.Context) {
	tick := time.NewTicker(scanInterval)
	defer tick.Stop()
	left := m.unpublished(ctx, nil)
	retry := make(map[neon.TimelineRef]bool) // found at the beginning of the term
	for ref := range left {
		retry[ref] = true
	}
	for pause := shortestPause; ; {
		for ref := range retry {
			if m.resume(ctx, ref) {
				delete(retry, ref)
				pause = shortestPause
			}
		}
		var again <-chan time.Time
		if len(retry) > 0 {
			again = time.After(pause)
			pause = min(2*pause, longestPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-tick.C:
			left = m.unpublished(ctx, left)
			for ref, w := range left {
				tl, ok := m.Log.State().Timeline(ref.Tenant, ref.Timeline)
				if age := time.Since(w.since); ok &&
					(age >= jointTimeout || !tl.Joint() && age >= scanInterval) {
					retry[ref] = true
				}
			}
		}
	}
}

// unpublished lists the timelines in the middle of a migration. Those that have not
// moved since they were listed before keep their time.
func (m *Migrator) unpublished(
	ctx context.Context, before map[neon.TimelineRef]waiting,
) map[neon.TimelineRef]waiting {
	now := make(map[neon.TimelineRef]waiting)
	for tl := range m.Log.State().Timelines() {
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

// resume reports whether nothing is left to be done for a timeline.
func (m *Migrator) resume(ctx context.Context, ref neon.TimelineRef) bool {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	for range decide.Tries {
		s, err := m.Log.ReadState(ctx)
		if err != nil {
			return ctx.Err() != nil
		}
		tl, ok := s.Timeline(ref.Tenant, ref.Timeline)
		if !ok || tl.Deleted || tl.MigrationDone() {
			return true
		}
		if err = m.carryOn(ctx, s, &tl); err != nil && neon.CodeOf(err) != neon.Conflict {
			if ctx.Err() == nil {
				m.Logger.Info("A migration between safekeepers is not finished yet",
					"timeline", ref.String(), "err", err)
			}
			return false
		}
	}
	return false
}

func (m *Migrator) carryOn(ctx context.Context, s *fsm.State, tl *fsm.Timeline) error {
	if tl.Joint() {
		return m.advance(ctx, s, tl)
	}
	return m.publish(ctx, s, tl)
}
