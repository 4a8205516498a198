// Package queue hands shards that need attention to bounded pools of workers.
//
// A wake-up carries no data. Several for one shard merge, and a lost one is repeated
// by the next change. At most one worker has a shard at a time.
//
// A node that does not answer holds up nobody else. It has a number of slots for calls of
// each kind, which get fewer as calls of that kind stay without an answer. The worker of a
// call that lasts counts to the slots of the node, and not to its pool any more.
//
// The package does not know what the workers do. It makes no calls, reads no state
// and decides nothing about a shard.
package queue

import (
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
)

// Limits bound what is under way at a time.
type Limits struct {
	High, Normal, Failover, Slow int // workers of each pool

	PerNode int // calls of each Kind to one node
}

// Queue hands shards to workers. M is what a worker remembers of a shard from one
// pass to the next, until nothing is left to do.
type Queue[M any] struct {
	limit   [pools]int
	perNode int
	work    func(*Task[M])
	wg      sync.WaitGroup
	changed wait.Broadcast

	mu      sync.Mutex
	tasks   map[neon.ShardID]*Task[M]
	ready   [pools]fifo[M]
	running [pools]int // without the workers whose calls last
	slots   map[place]*slots[M]
	closed  bool
}

// New makes a queue. A worker calls work for one turn with one task; work must end
// with Finish, Retry or Long, or with an Acquire that failed.
func New[M any](l Limits, work func(*Task[M])) *Queue[M] {
	return &Queue[M]{
		tasks: make(map[neon.ShardID]*Task[M]),
		limit: [pools]int{
			Normal: l.Normal, High: l.High, Failover: l.Failover, slow: l.Slow,
		},
		slots:   make(map[place]*slots[M]),
		perNode: l.PerNode,
		work:    work,
	}
}

// Wake makes sure that each shard is looked at after this call.
func (q *Queue[M]) Wake(p Priority, ids ...neon.ShardID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		q.wake(p, id)
	}
}

func (q *Queue[M]) wake(p Priority, id neon.ShardID) {
	if q.closed {
		return
	}
	t := q.tasks[id]
	switch {
	case t == nil:
		t = &Task[M]{ID: id, priority: p}
		q.tasks[id] = t
		q.start(p, t)
	case t.taken():
		t.again, t.kicked = true, true
		t.priority = max(t.priority, p)
	case t.timer != nil:
		t.priority = max(t.priority, p)
		if t.timer.Stop() {
			t.timer = nil
			q.start(t.priority, t)
		}
	case t.queued && p > t.priority:
		t.priority = p
		q.start(p, t) // its place in the other queue is passed over
	}
}

// Has reports whether there is something left to do for a shard, as far as the queue knows.
func (q *Queue[M]) Has(id neon.ShardID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tasks[id] != nil
}

// RecordChanged wakes a shard whose record changed. A back-off goes on unless the
// change is a newer decision: what the pass itself committed must not end it. A shard
// that waits for a slot is looked at again after a newer decision, since it may not need
// the slot any more.
func (q *Queue[M]) RecordChanged(p Priority, id neon.ShardID, decision uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch t := q.tasks[id]; {
	case t != nil && t.timer != nil && t.basis >= decision:
	case t != nil && t.isParked() && decision > t.basis && !q.closed:
		t.priority = max(t.priority, p)
		q.resume(t)
	case t != nil && t.taken():
		t.again, t.newest = true, max(t.newest, decision)
		t.priority = max(t.priority, p)
	default:
		q.wake(p, id)
	}
}

// start runs a task in a pool, or queues it for one.
func (q *Queue[M]) start(pool Priority, t *Task[M]) {
	if q.running[pool] >= q.limit[pool] {
		t.queued = true
		q.ready[pool].push(t)
		return
	}
	q.running[pool]++
	q.begin(pool, t)
}

// begin gives a task to a new worker, which counts to its pool already.
func (q *Queue[M]) begin(pool Priority, t *Task[M]) {
	t.begin(pool)
	q.wg.Add(1)
	go q.run(pool, t)
}

func (q *Queue[M]) run(pool Priority, t *Task[M]) {
	defer q.wg.Done()
	for t != nil {
		q.work(t)
		t = q.next(pool)
	}
}

// next takes the pool's next task, or gives the worker back.
func (q *Queue[M]) next(pool Priority) *Task[M] {
	q.mu.Lock()
	defer q.mu.Unlock()
	// there may be one worker too many, after a call that has lasted
	if q.running[pool] <= q.limit[pool] {
		if t := q.queued(pool); t != nil {
			t.begin(pool)
			return t
		}
	}
	q.running[pool]--
	return nil
}

// queued takes the task that a pool has to work on next; nil for none.
func (q *Queue[M]) queued(pool Priority) *Task[M] {
	if q.closed {
		return nil
	}
	for t := q.ready[pool].pop(); t != nil; t = q.ready[pool].pop() {
		if t.queued && (pool == slow) == t.long {
			return t
		}
	}
	return nil
}

// Finish ends a pass. The task is done, unless it was woken meanwhile. After a long
// step the shard is looked at again.
func (q *Queue[M]) Finish(t *Task[M]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	again := t.again || t.long
	q.endTurn(t)
	if again && !q.closed {
		q.start(t.priority, t)
		return
	}
	delete(q.tasks, t.ID)
}

// Retry ends a pass that was based on a decision and repeats it after a while. It is
// repeated at once if the shard was woken, or decided anew, during the pass.
func (q *Queue[M]) Retry(t *Task[M], basis uint64, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.endTurn(t)
	t.basis = basis
	switch {
	case q.closed:
		delete(q.tasks, t.ID)
		return
	case t.kicked || t.newest > t.basis:
		q.start(t.priority, t)
		return
	}
	t.timer = time.AfterFunc(after, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if t.timer == nil || q.closed {
			return
		}
		t.timer = nil
		q.start(t.priority, t)
	})
}

// Long hands a task over to the pool of long steps, where its next turn is.
func (q *Queue[M]) Long(t *Task[M]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.endTurn(t)
	t.long = true
	q.start(slow, t)
}

// endTurn takes a task back from the worker that had it.
func (q *Queue[M]) endTurn(t *Task[M]) {
	t.running, t.long, t.again = false, false, false
	q.handBack(t)
	q.changed.Notify()
}

// Close takes no more tasks and joins the workers. Their context must have ended.
func (q *Queue[M]) Close() {
	q.mu.Lock()
	q.closed = true
	for _, t := range q.tasks {
		if t.timer != nil {
			t.timer.Stop()
		}
	}
	q.mu.Unlock()
	q.wg.Wait()
}
