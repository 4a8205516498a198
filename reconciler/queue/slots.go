package queue

import (
	"time"

	"quorate/api/neon"
)

// lasting is how long the worker of a short call counts to its pool. Whether the node is
// busy or does not answer at all, others do not wait for it any longer.
const lasting = time.Second

// few stale entries of a list are not worth being cleared away.
const few = 64

// Kind is a kind of calls. A node may answer one and not another, so that each has slots of
// its own.
type Kind uint8

// The kinds of calls.
const (
	Changes Kind = iota // short calls that change something
	Looks               // short calls that only look
	Steps               // the questions of a long step
	kinds
)

// place is what slots are of: one kind of calls to a node.
type place struct {
	node neon.NodeID
	kind Kind
}

// slots are those of one place. There are at most limit, which is from 1 to Limits.PerNode.
type slots[M any] struct {
	limit, used int
	waiting     fifo[M] // also tasks that wait for something else by now
	parked      int     // of those that wait
}

func (q *Queue[M]) at(p place) *slots[M] {
	s := q.slots[p]
	if s == nil {
		s = &slots[M]{limit: q.perNode}
		q.slots[p] = s
	}
	return s
}

// Acquire takes a slot for calls of a kind for a task on each of some nodes. When a node has
// none the task is parked, and comes back by itself, with the slot that was given back: the
// caller must return at once. It also comes back after a decision newer than basis. Release
// ends it.
func (q *Queue[M]) Acquire(t *Task[M], kind Kind, basis uint64, nodes ...neon.NodeID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	given := t.given
	t.given, t.kind = place{}, kind
	for _, n := range nodes {
		p := place{n, kind}
		if s := q.at(p); s.used >= s.limit && p != given {
			if given != (place{}) {
				q.release(given)
			}
			t.nodes = append(t.nodes[:0], nodes...)
			q.park(t, basis, p)
			if t.newest > basis && !q.closed {
				q.resume(t) // it came during the turn
			}
			return false
		}
	}
	for _, n := range nodes {
		if p := (place{n, kind}); p == given {
			given = place{}
		} else {
			q.at(p).used++
		}
	}
	if given != (place{}) {
		q.release(given)
	}
	if kind != Steps {
		t.lasts = time.AfterFunc(lasting, func() { q.spare(t) })
	}
	return true
}

// park makes a task wait for a slot of a place.
func (q *Queue[M]) park(t *Task[M], basis uint64, p place) {
	t.running, t.parked, t.basis = false, p, basis
	s := q.at(p)
	s.parked++
	if s.waiting.len() > 2*s.parked+few {
		s.waiting.keep(func(t *Task[M]) bool { return t.parked == p })
	}
	s.waiting.push(t)
	q.changed.Notify()
}

// spare makes the worker of a call that lasts count to its pool no more.
func (q *Queue[M]) spare(t *Task[M]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.lasts == nil || q.closed {
		return
	}
	t.lasts, t.spare = nil, true
	if next := q.queued(t.pool); next != nil {
		q.begin(t.pool, next)
		return
	}
	q.running[t.pool]--
}

// Release gives back what Acquire has taken.
func (q *Queue[M]) Release(t *Task[M], nodes ...neon.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.lasts != nil {
		t.lasts.Stop()
		t.lasts = nil
	}
	if t.spare {
		t.spare = false
		q.running[t.pool]++
	}
	for _, n := range nodes {
		q.release(place{n, t.kind})
	}
}

// Answered gives a node one more slot for calls like those of a task, up to the limit.
func (q *Queue[M]) Answered(t *Task[M], n neon.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := place{n, t.kind}
	s := q.at(p)
	s.limit = min(s.limit+1, q.perNode)
	q.grant(s, p)
}

// Unanswered takes half of the slots for calls like those of a task from a node that did
// not answer one. One slot is left, so that it is found out when the node answers again.
func (q *Queue[M]) Unanswered(t *Task[M], n neon.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.at(place{n, t.kind})
	s.limit = max(1, s.limit/2)
}

// Throttle takes all slots but one of each kind from a node.
func (q *Queue[M]) Throttle(n neon.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for kind := range kinds {
		q.at(place{n, kind}).limit = 1
	}
}

// Slots is how many calls of each kind that a move makes a node takes at a time, at present.
// Looks are not among them: they are rare, and so are the answers that would raise theirs.
func (q *Queue[M]) Slots(n neon.NodeID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	least := q.perNode
	for _, kind := range []Kind{Changes, Steps} {
		if s := q.slots[place{n, kind}]; s != nil {
			least = min(least, s.limit)
		}
	}
	return least
}

// handBack passes on a slot that a task was given while it was parked and then did
// not need. Otherwise those that still wait would wait for ever.
func (q *Queue[M]) handBack(t *Task[M]) {
	if p := t.given; p != (place{}) {
		t.given = place{}
		q.release(p)
	}
}

// release frees a slot.
func (q *Queue[M]) release(p place) {
	s := q.at(p)
	s.used--
	q.grant(s, p)
	if s.used == 0 && s.limit == q.perNode && s.parked == 0 {
		delete(q.slots, p)
	}
}

// grant gives the free slots of a place to the tasks that wait for them longest. One that
// needs another slot, which is not free, waits for that instead. It would only hand this
// one on: some of those would do so in a circle, without a pause.
func (q *Queue[M]) grant(s *slots[M], p place) {
	for s.parked > 0 && s.used < s.limit && !q.closed {
		t := s.waiting.pop()
		if t.parked != p {
			continue
		}
		if other := q.lacks(t); other != (place{}) {
			s.parked--
			q.park(t, t.basis, other)
			continue
		}
		s.used++
		t.given = p
		q.resume(t)
	}
}

// lacks finds a place of which a task that waits needs a slot and there is none.
func (q *Queue[M]) lacks(t *Task[M]) place {
	for _, n := range t.nodes {
		p := place{n, t.kind}
		if s := q.slots[p]; s != nil && s.used >= s.limit {
			return p
		}
	}
	return place{}
}

// resume gives a parked task to the workers again.
func (q *Queue[M]) resume(t *Task[M]) {
	q.at(t.parked).parked--
	t.parked = place{}
	pool := t.priority
	if t.long {
		pool = slow
	}
	q.start(pool, t)
}
