package reconciler

import (
	"context"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/reconciler/plan"
)

// Priority chooses the pool a shard is worked on in.
type Priority uint8

// The priorities.
const (
	Normal Priority = iota // background, failover
	High                   // an API call waits for it
	slow                   // one long step of either, in a pool of its own
	pools
)

// task is one shard that needs attention. At most one worker has it at a time,
// which is what keeps two calls for one shard from ever overlapping.
type task struct {
	id       neon.ShardID
	priority Priority
	queued   bool   // waits in a pool's queue
	basis    uint64 // log index of the newest decision the last pass was based on
	running  bool
	again    bool        // woken while running
	kicked   bool        // by somebody, not only by a change of the record
	newest   uint64      // log index of the newest decision among those changes
	parked   bool        // waits for a slot of a node
	slot     neon.NodeID // a node of which it was given a slot that it has not used yet
	acted    bool        // made at least one call or proposal since it was last completed
	step     *plan.Step
	passed   string // the failpoint before the next step
	blocked  bool   // its last pass found nothing that could be done
	cold     bool   // its last pass found the destination not warm enough
	failures int
	lastErr  string
	late     *failure                // the first optional step of this pass that failed
	skipped  []neon.NodeID           // nodes where such steps failed in this pass
	trouble  map[neon.NodeID]trouble // with nodes other than the intended one
	timer    *time.Timer             // back-off under way

	cancelled bool               // an operator wants this pass to end
	stop      context.CancelFunc // ends the present call
	alarm     *alarm             // of a reconcile under way
}

// queue hands shards to bounded pools of workers. A wake-up carries no data:
// duplicates merge and a lost one is repeated by the next change.
type queue struct {
	mu      sync.Mutex
	tasks   map[neon.ShardID]*task
	ready   [pools]fifo
	running [pools]int
	limit   [pools]int
	parked  map[neon.NodeID][]*task
	slots   map[neon.NodeID]int
	perNode int
	closed  bool
	wg      sync.WaitGroup
	work    func(*task)
}

// fifo is a queue of tasks that does not shift its slice on every pop.
type fifo struct {
	items []*task
	head  int
}

func (f *fifo) push(t *task) { f.items = append(f.items, t) }

func (f *fifo) pop() *task {
	if f.head == len(f.items) {
		return nil
	}
	t := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return t
}

func newQueue(o Options, work func(*task)) *queue {
	return &queue{
		tasks:   make(map[neon.ShardID]*task),
		limit:   [pools]int{Normal: o.NormalWorkers, High: o.HighWorkers, slow: o.SlowWorkers},
		parked:  make(map[neon.NodeID][]*task),
		slots:   make(map[neon.NodeID]int),
		perNode: o.PerNode,
		work:    work,
	}
}

// wake makes sure that each shard is looked at after this call.
func (q *queue) wake(p Priority, ids ...neon.ShardID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		q.wakeLocked(p, id)
	}
}

func (q *queue) wakeLocked(p Priority, id neon.ShardID) {
	if q.closed {
		return
	}
	t := q.tasks[id]
	switch {
	case t == nil:
		t = &task{id: id, priority: p}
		q.tasks[id] = t
		q.start(p, t)
	case t.running || t.parked || t.step != nil:
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

// touched wakes a shard whose record changed. A back-off goes on unless the
// change is a newer decision: what the pass itself committed must not end it.
func (q *queue) touched(id neon.ShardID, basis uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch t := q.tasks[id]; {
	case t != nil && t.timer != nil && t.basis >= basis:
	case t != nil && (t.running || t.parked || t.step != nil):
		t.again, t.newest = true, max(t.newest, basis)
	default:
		q.wakeLocked(Normal, id)
	}
}

// idle tells whether nothing can be done and nobody tries: a task that was blocked
// and was woken is work again, from then on and not only when its pass has ended.
func (t *task) idle() bool { return t.blocked && t.timer != nil }

// urgent tells whether somebody waits for a shard that a worker has.
func (q *queue) urgent(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.priority == High
}

// begin is the start of a pass.
func (t *task) begin() {
	t.running, t.again, t.queued = true, false, false
	t.kicked, t.newest = false, 0
	t.late, t.skipped = nil, nil
}

// failure is a step that failed.
type failure struct {
	step plan.Step
	err  error
}

// trouble is how often something failed on a node, and since when.
type trouble struct {
	times int
	since time.Time
}

// blame counts a failure on a node.
func (t *task) blame(n neon.NodeID) {
	if t.trouble == nil {
		t.trouble = make(map[neon.NodeID]trouble)
	}
	x := t.trouble[n]
	if x.times++; x.times == 1 {
		x.since = time.Now()
	}
	t.trouble[n] = x
}

// hopelessAfter is how many failures at least make a node one that hands nothing
// over.
const hopelessAfter = 3

// hopeless lists the nodes on which things have failed for at least that long.
func (t *task) hopeless(long time.Duration) (ids []neon.NodeID) {
	for n, x := range t.trouble {
		if x.times >= hopelessAfter && time.Since(x.since) >= long {
			ids = append(ids, n)
		}
	}
	return ids
}

// start runs a task in a pool, or queues it for one.
func (q *queue) start(pool Priority, t *task) {
	if q.running[pool] >= q.limit[pool] {
		t.queued = true
		q.ready[pool].push(t)
		return
	}
	q.running[pool]++
	t.begin()
	q.wg.Add(1)
	go q.run(pool, t)
}

func (q *queue) run(pool Priority, t *task) {
	defer q.wg.Done()
	for t != nil {
		q.work(t)
		t = q.next(pool)
	}
}

// next takes the pool's next task, or gives the worker back.
func (q *queue) next(pool Priority) *task {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		for t := q.ready[pool].pop(); t != nil; t = q.ready[pool].pop() {
			if t.queued && (pool == slow) == (t.step != nil) {
				t.begin()
				return t
			}
		}
	}
	q.running[pool]--
	return nil
}

// finish ends a pass: the task is done, unless it was woken meanwhile.
func (q *queue) finish(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.running = false
	q.handBack(t)
	if t.again && !q.closed {
		t.again = false
		q.start(t.priority, t)
		return
	}
	delete(q.tasks, t.id)
}

// retry ends a failed pass and repeats it after a while, or when woken: at once if
// that happened during the pass.
func (q *queue) retry(t *task, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.running, t.again = false, false
	q.handBack(t)
	switch {
	case q.closed:
		delete(q.tasks, t.id)
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

// long hands a task over to the pool of long steps.
func (q *queue) long(t *task, step plan.Step) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.running, t.step = false, &step
	q.handBack(t)
	q.start(slow, t)
}

// acquire takes a slot of a node. When there is none the task is parked and comes
// back by itself, with the slot that was given back: the caller must return at once.
func (q *queue) acquire(n neon.NodeID, t *task) bool {
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
	return false
}

// release gives a slot back.
func (q *queue) release(n neon.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.releaseLocked(n)
}

// handBack passes on a slot that a task was given while it was parked and then had
// no use for: those who still wait would wait for ever otherwise.
func (q *queue) handBack(t *task) {
	if n := t.slot; n != 0 {
		t.slot = 0
		q.releaseLocked(n)
	}
}

// releaseLocked hands a slot to whoever waits for it longest, or frees it.
func (q *queue) releaseLocked(n neon.NodeID) {
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

// lookup tells whether a shard is being worked on and how its last pass failed.
func (q *queue) lookup(id neon.ShardID) (active bool, failures int, lastErr string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks[id]
	if t == nil {
		return false, 0, ""
	}
	return !t.idle(), t.failures, t.lastErr
}

// working tells whether a worker has a shard, or a long step of it is to come.
func (q *queue) working(id neon.ShardID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks[id]
	return t != nil && (t.running || t.step != nil)
}

// note records how a pass ended, for those who ask.
func (q *queue) note(t *task, end ending, why string) (failures int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.cancelled = false
	if end == failed {
		t.failures++
	} else {
		t.failures = 0
	}
	t.blocked, t.cold, t.lastErr = end == blocked, end == cold, why
	return t.failures
}

// ending is how a pass ended.
type ending uint8

const (
	clean ending = iota
	blocked
	cold
	failed
)

// waiting is the number of shards that work on others keeps from being worked on.
func (q *queue) waiting() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tasks {
		if t.queued || t.parked {
			n++
		}
	}
	return n
}

// size is the number of shards being worked on or waiting for their turn; those
// for which nothing can be done do not count.
func (q *queue) size() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tasks {
		if !t.idle() {
			n++
		}
	}
	return n
}

// stuckAfter is how many failures in a row make a shard one that nobody waits for.
const stuckAfter = 10

// load is the number of shards being worked on, and of those that only wait: for
// their destination to be warm, or after many failures.
func (q *queue) load() (busy, waits int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tasks {
		switch {
		case t.cold, t.failures >= stuckAfter:
			waits++
		case !t.idle():
			busy++
		}
	}
	return busy, waits
}

// laborious is the number of shards that take time: they warm, catch up, wait to be
// warm or have failed.
func (q *queue) laborious() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tasks {
		if t.step != nil || t.cold || t.failures > 0 {
			n++
		}
	}
	return n
}

// stuck counts the shards that failed at least n times in a row.
func (q *queue) stuck(n int) (count int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tasks {
		if t.failures >= n {
			count++
		}
	}
	return count
}

// close takes no more tasks and joins the workers; their context has ended.
func (q *queue) close() {
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
