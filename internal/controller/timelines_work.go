package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

const (
	// deletePatience is how long a deletion is left to the request that asked for
	// it. One that an earlier leader left is carried on at once.
	deletePatience = 30 * time.Second

	// workAtOnce bounds the timelines that are worked on at one time.
	workAtOnce = 32
)

// turns lets one at a time work on a timeline: a request or the leader's own work.
type turns struct {
	mu      sync.Mutex
	holders map[neon.TimelineRef]*turn
}

type turn struct {
	yield func() // makes the holder stop; nil for one that is not interrupted
	done  chan struct{}
}

// take waits for the turn.
func (t *turns) take(
	ctx context.Context, ref neon.TimelineRef, yield func(),
) (release func(), err error) {
	for {
		t.mu.Lock()
		before := t.holders[ref]
		if before == nil {
			mine := &turn{yield: yield, done: make(chan struct{})}
			t.holders[ref] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.holders, ref)
				t.mu.Unlock()
				close(mine.done)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-before.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// interrupt makes whoever works on a timeline stop, if it can be interrupted.
func (t *turns) interrupt(ref neon.TimelineRef) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.holders[ref]; h != nil && h.yield != nil {
		h.yield()
	}
}

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (t *Timelines) Changed(_ *fsm.State, c fsm.Touched) {
	if !c.Timelines {
		return
	}
	select {
	case t.work <- struct{}{}:
	default: // there is a note already
	}
}

// ResumeTimelines drives what the log says is to be done about timelines to its
// end, for as long as this replica leads: imports that are complete, and deletions
// that nobody asks after any more. It returns when ctx ends, with nil.
func (t *Timelines) ResumeTimelines(ctx context.Context) error {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		going   = make(map[neon.TimelineRef]bool)
		permits = make(chan struct{}, workAtOnce)
	)
	defer wg.Wait()
	start := func(ref neon.TimelineRef, f func()) {
		mu.Lock()
		defer mu.Unlock()
		if going[ref] {
			return
		}
		going[ref] = true
		wg.Go(func() {
			f()
			mu.Lock()
			delete(going, ref)
			mu.Unlock()
			t.Changed(nil, fsm.Touched{Timelines: true}) // what came meanwhile was passed over
		})
	}
	for patience := time.Duration(0); ; patience = deletePatience {
		s := t.Log.State()
		for i := range s.Imports() {
			if ref := i.Ref(); !i.Finished && i.Complete() {
				start(ref, func() { t.driveImport(ctx, ref) })
			}
		}
		for d := range s.TimelineDeletes() {
			start(d.Ref(), func() { t.driveDelete(ctx, permits, d, patience) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.work:
		}
	}
}

// driveImport ends an import. It holds the turn all the time, so that a deletion
// that has interrupted it and got the turn knows that nothing follows.
func (t *Timelines) driveImport(ctx context.Context, ref neon.TimelineRef) {
	held, cancel := context.WithCancel(ctx)
	defer cancel()
	release, err := t.turns.take(ctx, ref, cancel)
	if err != nil {
		return
	}
	defer release()
	if err := t.endImport(held, ref); err != nil && held.Err() == nil {
		t.Logger.Info("The import of a timeline is not finished yet", "timeline", ref.String(),
			"err", err)
		_ = rest(held, activatePause) // and then begin again
	}
}

// driveDelete asks the pageservers again and again until nothing is left.
func (t *Timelines) driveDelete(
	ctx context.Context, permits chan struct{}, d fsm.TimelineDelete, patience time.Duration,
) {
	if rest(ctx, patience) != nil {
		return
	}
	for pause := resumeMin; ctx.Err() == nil; pause = min(2*pause, resumeMax) {
		s, err := t.Log.ReadState(ctx)
		if err == nil {
			if now, ok := s.TimelineDelete(d.Ref()); !ok || now != d {
				return
			}
			select {
			case permits <- struct{}{}:
				if _, err = t.deletePass(ctx, d); errors.Is(err, errOver) {
					err = nil // the next look tells
				}
				<-permits
			case <-ctx.Done():
				return
			}
		}
		if err != nil && ctx.Err() == nil {
			t.Logger.Info("The deletion of a timeline is not finished yet",
				"timeline", d.Ref().String(), "err", err)
		}
		if rest(ctx, pause) != nil {
			return
		}
	}
}
