package membership

import (
	"context"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/wait"
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

	// resumedAtOnce bounds the migrations that are tried at one time: those that are tried
	// for the first time, and those that have failed, which are kept apart. A try has its
	// place for placeTime. After that it is waiting for somebody, and takes no place from
	// those who are not.
	resumedAtOnce = 64
	placeTime     = 5 * time.Second
)

// waiting is a timeline in the middle of a migration, as this leader first saw it.
type waiting struct {
	sequence uint64
	since    time.Time
}

// places are what tries have to have to begin.
type places chan struct{}

// take waits for a place. It is given back after placeTime, or earlier by release.
func (p places) take(ctx context.Context) (release func(), err error) {
	select {
	case p <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	back := sync.OnceFunc(func() { <-p })
	late := time.AfterFunc(placeTime, back)
	return func() { late.Stop(); back() }, nil
}

// Run carries on the migrations of timelines between safekeepers that
// earlier leaders and requests have left, for as long as this replica leads. It
// returns when ctx ends.
//
// Each migration has its own retry, so that one that cannot go on holds up no other.
func (m *Migrator) Run(ctx context.Context) {
	var resuming duty.Keyed[neon.TimelineRef]
	defer resuming.Wait()
	first, again := make(places, resumedAtOnce), make(places, resumedAtOnce)
	start := func(ref neon.TimelineRef) {
		resuming.Start(ref, func() { m.drive(ctx, ref, first, again) }, func() {})
	}
	tick := time.NewTicker(scanInterval)
	defer tick.Stop()
	left := m.unpublished(ctx, nil)
	for ref := range left {
		start(ref)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		left = m.unpublished(ctx, left)
		for ref, w := range left {
			tl, ok := m.Log.State().Timeline(ref.Tenant, ref.Timeline)
			if age := time.Since(w.since); ok &&
				(age >= jointTimeout || !tl.Joint() && age >= scanInterval) {
				start(ref)
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

// drive carries one migration on until nothing is left to be done.
func (m *Migrator) drive(ctx context.Context, ref neon.TimelineRef, first, again places) {
	lane := first
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		release, err := lane.take(ctx)
		if err != nil {
			return
		}
		done := m.resume(ctx, ref)
		release()
		if done || wait.Sleep(ctx, pause) != nil {
			return
		}
		lane = again
	}
}

// resume reports whether nothing is left to be done for a timeline.
func (m *Migrator) resume(ctx context.Context, ref neon.TimelineRef) bool {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	var last progress
	for range decide.Tries {
		s, err := m.Log.ReadState(ctx)
		if err != nil {
			return false
		}
		tl, ok := s.Timeline(ref.Tenant, ref.Timeline)
		if !ok || tl.Deleted || tl.MigrationDone() {
			return true
		}
		if err = last.failed(&tl); err == nil {
			err = last.made(&tl, m.carryOn(ctx, s, &tl))
		}
		if err != nil {
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

// progress tells a conflict that comes from having been overtaken, after which one looks
// again, from one that would come again: the record is the same then. The zero value is
// ready to use.
type progress struct {
	sequence uint64
	conflict error
}

// made notes how a step ended that was based on a record. An error other than a conflict is
// returned.
func (p *progress) made(tl *fsm.Timeline, err error) error {
	if p.sequence, p.conflict = tl.Sequence, nil; neon.CodeOf(err) == neon.Conflict {
		p.conflict, err = err, nil
	}
	return err
}

// failed is the conflict that the last step ended with, if nothing has changed since.
func (p *progress) failed(tl *fsm.Timeline) error {
	if tl.Sequence == p.sequence {
		return p.conflict
	}
	return nil
}
