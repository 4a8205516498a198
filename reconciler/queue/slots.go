package queue

import (
	"quorate/api/neon"
)

// Acquire takes a slot of a node. When there is none the task is parked and comes
// back by itself, with the slot that was given back: the caller must return at once.
func (q *Queue[M]) Acquire(n neon.NodeID, t *Task[M]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.slot == n {
		t.slot = 0
		return true
	}
	q.handBack(t)
	if q.slots[n] < q.perNode {
		q.slots[n]++
		return true
	}
	t.running, t.parked = false, true
	q.parked[n] = append(q.parked[n], t)
	q.changed.Notify()
	return false
}

// Release gives a slot back.
func (q *Queue[M]) Release(n neon.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.release(n)
}

// handBack passes on a slot that a task was given while it was parked and then did
// not need. Otherwise those that still wait would wait for ever.
func (q *Queue[M]) handBack(t *Task[M]) {
	if n := t.slot; n != 0 {
		t.slot = 0
		q.release(n)
	}
}

// release hands a slot to the task that waits for it longest, or frees it.
func (q *Queue[M]) release(n neon.NodeID) {
	waiting := q.parked[n]
	if len(waiting) == 0 || q.closed {
		q.slots[n]--
		return
	}
	t := waiting[0]
	if len(waiting) == 1 {
		delete(q.parked, n)
	} else {
		q.parked[n] = waiting[1:]
	}
	t.parked, t.slot = false, n
	q.start(t.priority, t)
}
