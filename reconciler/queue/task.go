package queue

import (
	"context"
	"slices"
	"time"

	"quorate/api/neon"
)

// Priority chooses the pool a shard is worked on in.
type Priority uint8

// The priorities.
const (
	Normal   Priority = iota // background
	High                     // an API call waits for it
	Failover                 // no pageserver serves it
	slow                     // one long step of any, in a pool of its own
	pools
)

// Task is one shard that needs attention. At most one worker has it at a time, so
// two calls for one shard never overlap.
//
// Memory belongs to the worker that has the task and needs no lock. All other
// fields but ID are guarded by the lock of the queue.
type Task[M any] struct {
	ID     neon.ShardID
	Memory M

	priority Priority
	queued   bool     // waits in a pool's queue
	running  bool     // a worker has it
	parked   place    // where it waits for a slot
	pool     Priority // of the worker that has it
	long     bool     // waits for, or makes, a long step

	again  bool   // woken while a worker had it
	kicked bool   // woken by a caller of Wake, not only by a change of the record
	newest uint64 // log index of the newest decision among those changes
	basis  uint64 // log index of the newest decision that the last pass was based on

	kind  Kind          // of the calls that it has, or waits for, a slot for
	given place         // where it was given a slot that it has not used yet
	nodes []neon.NodeID // of whose slots it needs one each, while it is parked
	lasts *time.Timer   // runs out when a call lasts
	spare bool          // its worker does not count to the pool while the call lasts
	timer *time.Timer   // back-off under way

	blocked  bool // its last pass found nothing that could be done
	cold     bool // its last pass found the destination not warm enough
	failures int  // in a row
	lastErr  string

	cancelled bool               // an operator wants this pass to end
	stop      context.CancelFunc // ends the present call
}

// begin is the start of a turn of a worker of a pool.
func (t *Task[M]) begin(pool Priority) {
	t.running, t.again, t.queued = true, false, false
	t.kicked, t.newest, t.pool = false, 0, pool
}

// idle reports whether nothing can be done and no worker tries. A blocked task that
// is woken is work again at once, and not only when its pass has ended.
func (t *Task[M]) idle() bool { return t.blocked && t.timer != nil }

// stuck reports whether it has failed for long.
func (t *Task[M]) stuck() bool { return t.failures >= StuckAfter }

// waits reports whether others need not wait for it.
func (t *Task[M]) waits() bool { return t.cold || t.stuck() }

// taken reports whether a worker has the task, or it will get one without a wake-up.
func (t *Task[M]) taken() bool { return t.running || t.isParked() || t.long }

// isParked reports whether a task waits for a slot.
func (t *Task[M]) isParked() bool { return t.parked != (place{}) }

// fifo is a queue of tasks that does not shift its slice on every pop.
type fifo[M any] struct {
	items []*Task[M]
	head  int
}

func (f *fifo[M]) push(t *Task[M]) { f.items = append(f.items, t) }

func (f *fifo[M]) pop() *Task[M] {
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

func (f *fifo[M]) len() int { return len(f.items) - f.head }

// keep drops the tasks for which a condition does not hold, and repetitions.
func (f *fifo[M]) keep(holds func(*Task[M]) bool) {
	kept := make(map[*Task[M]]bool)
	f.items = slices.DeleteFunc(slices.Delete(f.items, 0, f.head), func(t *Task[M]) bool {
		drop := kept[t] || !holds(t)
		kept[t] = true
		return drop
	})
	f.head = 0
}
