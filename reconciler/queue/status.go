package queue

import (
	"context"
	"slices"

	"quorate/api/neon"
)

// StuckAfter is how many failures in a row make a shard stuck: others do not wait
// for it any more.
const StuckAfter = 10

// Ending is how a pass ended.
type Ending uint8

// The endings.
const (
	Clean   Ending = iota // nothing is left to do
	Blocked               // nothing can be done until something changes
	Cold                  // the destination is not warm enough yet
	Failed
)

// Note records how a pass ended, for callers of Status and the counts, and returns
// how many have failed in a row.
func (q *Queue[M]) Note(t *Task[M], end Ending, why string) (failures int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.cancelled = false
	if end == Failed {
		t.failures++
	} else {
		t.failures = 0
	}
	t.blocked, t.cold, t.lastErr = end == Blocked, end == Cold, why
	return t.failures
}

// LastError is why the last pass of a task did not end well.
func (q *Queue[M]) LastError(t *Task[M]) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.lastErr
}

// Status is what the queue knows of a shard.
type Status struct {
	Active    bool // a worker has it or will have it
	Waits     bool // to be warm, or it is stuck
	Blocked   bool // its last pass found nothing that could be done
	Failures  int  // in a row
	LastError string
}

// Status describes a shard; it is empty for one that needs no attention.
func (q *Queue[M]) Status(id neon.ShardID) Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks[id]
	if t == nil {
		return Status{}
	}
	return Status{
		Active: !t.idle(), Waits: t.waits(), Blocked: t.blocked, Failures: t.failures,
		LastError: t.lastErr,
	}
}

// Urgent reports whether an API call waits for a task, or its shard is not served.
func (q *Queue[M]) Urgent(t *Task[M]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.priority != Normal
}

// Changed returns a channel that is closed when the next turn of a worker has ended.
func (q *Queue[M]) Changed() <-chan struct{} { return q.changed.Changed() }

// AwaitNoWorker waits until no worker has any of the shards and no long step of one
// is to come.
func (q *Queue[M]) AwaitNoWorker(ctx context.Context, ids ...neon.ShardID) error {
	for {
		changed := q.changed.Changed()
		if !slices.ContainsFunc(ids, q.working) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (q *Queue[M]) working(id neon.ShardID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks[id]
	return t != nil && (t.running || t.long)
}

// Load counts the shards that need attention.
type Load struct {
	Busy    int // being worked on, or waiting for their turn
	Waits   int // waiting to be warm, or stuck
	Size    int // all but those for which nothing can be done
	Queued  int // kept from being worked on by work on others
	Stuck   int // failed StuckAfter times in a row or more
	Lengthy int // in a long step, waiting to be warm, or failing
}

// Load counts the shards that need attention.
func (q *Queue[M]) Load() (l Load) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tasks {
		switch {
		case t.waits():
			l.Waits++
		case !t.idle():
			l.Busy++
		}
		l.Size += one(!t.idle())
		l.Queued += one(t.queued || t.isParked())
		l.Stuck += one(t.stuck())
		l.Lengthy += one(t.long || t.cold || t.failures > 0)
	}
	return l
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
