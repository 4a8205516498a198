package queue

import (
	"context"

	"quorate/api/neon"
)

// Cancel makes the worker that has a shard give up; false when none has it.
func (q *Queue[M]) Cancel(id neon.ShardID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks[id]
	if t == nil || !t.taken() {
		return false
	}
	t.cancelled = true
	if t.stop != nil {
		t.stop()
	}
	return true
}

// During registers what ends the present call of a task; nil when it is over.
func (q *Queue[M]) During(t *Task[M], stop context.CancelFunc) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.stop = stop
	if t.cancelled && stop != nil {
		stop()
	}
}

// IsCancelled reports whether the present pass of a task was cancelled.
func (q *Queue[M]) IsCancelled(t *Task[M]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.cancelled
}
