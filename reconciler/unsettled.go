package reconciler

import (
	"context"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// unsettled finds those of many shards that a worker has to look at. A listing of a node
// tells of all that is there, and nearly all of that is as it should be: a task for each,
// and a pass, would cost far more than this look.
type unsettled struct {
	log        decide.Log
	queue      *shardQueue
	scenes     *scenes
	wait       *waiters
	report     *report
	limits     *warmLimits
	operations *operations
}

// wakeLot is how many shards are woken at a time, so that no list of all is made.
const wakeLot = 256

// wake has those of some shards looked at that are not as their records say, or whose end
// of work somebody waits for, until the term's ctx ends. What changes while it looks has them
// looked at by itself.
func (u *unsettled) wake(ctx context.Context, ids []neon.ShardID) {
	st := u.log.State()
	lot := make([]neon.ShardID, 0, wakeLot)
	for part := range slices.Chunk(ids, wakeLot) {
		if ctx.Err() != nil {
			return
		}
		lot = lot[:0]
		for _, id := range part {
			if !u.settled(st, id) {
				lot = append(lot, id)
			}
		}
		u.queue.Wake(queue.Normal, lot...)
	}
}

// settled reports whether a pass over a shard would do nothing, and tell nobody anything.
// It is asked in this order: who begins to wait, or to work, after a look here wakes the
// shard afterwards.
func (u *unsettled) settled(st *fsm.State, id neon.ShardID) bool {
	sc, ok := u.scenes.of(st, id)
	return ok && plan.Next(sc).Kind == plan.Done &&
		!u.queue.Has(id) && !u.wait.has(id) && !u.report.has(id) && !u.limits.has(id) &&
		!u.operations.awaits(id)
}
