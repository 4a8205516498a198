package deletion

import (
	"context"
	"errors"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/duty"
	"quorate/internal/wait"
)

const (
	// requestTime is how long the deletion of a timeline is left to the request that
	// asked for it. One that an earlier leader left is carried on at once.
	requestTime = 30 * time.Second

	// passesAtOnce bounds the deletions of timelines that ask pageservers at one time.
	passesAtOnce = 32
)

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (t *Timelines) Changed(_ *fsm.State, c fsm.Touched) {
	if c.Timelines {
		t.work.Set()
	}
}

// Run finishes the deletions of timelines that no client asks after any more, for as
// long as this replica leads. It returns when ctx ends.
func (t *Timelines) Run(ctx context.Context) {
	var deleting duty.Keyed[neon.TimelineRef]
	defer deleting.Wait()
	permits := make(chan struct{}, passesAtOnce)
	for delay := time.Duration(0); ; delay = requestTime {
		for d := range t.log.State().TimelineDeletes() {
			deleting.Start(d.Ref(), func() { t.drive(ctx, permits, d, delay) }, t.work.Set)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.work:
		}
	}
}

// drive asks the pageservers again and again until nothing is left.
func (t *Timelines) drive(
	ctx context.Context, permits chan struct{}, d fsm.TimelineDelete, delay time.Duration,
) {
	if wait.Sleep(ctx, delay) != nil {
		return
	}
	for pause := shortestPause; ctx.Err() == nil; pause = min(2*pause, longestPause) {
		s, err := t.log.ReadState(ctx)
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
			t.logger.Info("The deletion of a timeline is not finished yet",
				"timeline", d.Ref().String(), "err", err)
		}
		if wait.Sleep(ctx, pause) != nil {
			return
		}
	}
}
