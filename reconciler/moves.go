package reconciler

import (
	"maps"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// move is a shard on its way for an operation.
type move struct {
	since time.Time
	nodes []neon.NodeID // it is taken from one and brought to another, as far as is known
}

// moveOf is the move that an intent makes of a shard.
func moveOf(sh *fsm.Shard, in *fsm.Intent) move {
	if in.PreferredNode != 0 {
		return move{time.Now(), []neon.NodeID{sh.Attached, in.PreferredNode}}
	}
	m := move{since: time.Now()}
	for _, n := range in.Secondary {
		if !sh.Intends(n) {
			m.nodes = append(m.nodes, n)
		}
	}
	for _, n := range sh.Secondary {
		if n != in.Attached && !slices.Contains(in.Secondary, n) {
			m.nodes = append(m.nodes, n)
		}
	}
	return m
}

// crowd counts the moves of all operations at each node. A node takes part in as many as it
// has slots for, and Options.OperationMoves when it has them all: of the steps of a move only
// some are calls to one node, the others are entries of the log and calls to the other node
// and to compute. What is beyond the slots waits for them.
type crowd struct {
	opts  Options
	slots func(neon.NodeID) int // how many calls of a kind a node takes at present
	moves map[neon.NodeID]int
}

// count counts anew what is under way.
func (c *crowd) count(running map[neon.NodeID]*operation) {
	c.moves = make(map[neon.NodeID]int)
	for _, op := range running {
		for _, m := range op.moving {
			c.add(m, 1)
		}
	}
}

func (c *crowd) add(m move, n int) {
	for _, id := range m.nodes {
		c.moves[id] += n
	}
}

// room is how many more moves a node may take part in.
func (c *crowd) room(id neon.NodeID) int {
	return max(1, c.opts.OperationMoves*c.slots(id)/c.opts.PerNode) - c.moves[id]
}

// admits reports whether a move may be begun as far as its nodes are concerned.
func (c *crowd) admits(m move) bool {
	return !slices.ContainsFunc(m.nodes, func(id neon.NodeID) bool { return c.room(id) <= 0 })
}

// crowdedLooks bounds the shards that one look at an operation finds bound for a node without
// room: the next look goes on with others.
const crowdedLooks = 64

// due are the shards to look at in a round if they are moving for an operation. A whole one
// also tries again to begin what could not be begun.
func (op *operation) due(whole bool, arrived []neon.ShardID) []neon.ShardID {
	if whole {
		op.plan, op.later = append(op.plan, op.later...), nil
		return slices.SortedFunc(maps.Keys(op.moving), neon.ShardID.Compare)
	}
	return arrived
}

// advance looks at moves that are due and begins as many as there is room for. All that is
// begun at once is one batch for the log.
func (o *operations) advance(st *fsm.State, op *operation, due []neon.ShardID) {
	op.overdue = o.overdue(st, op)
	b := &batch{operations: o, st: st, sched: scheduler.New(st, o.loads()), op: op}
	for _, id := range due {
		if _, moving := op.moving[id]; moving { // it may have arrived twice
			b.consider(id)
		}
	}
	crowded := 0
	for range len(op.plan) {
		if crowded >= crowdedLooks || op.overdue == "" && o.crowd.room(op.node) <= 0 {
			break
		}
		id := op.plan[0]
		op.plan = op.plan[1:]
		if _, under := op.moving[id]; !under && !b.consider(id) {
			op.plan = append(op.plan, id)
			crowded++
		}
	}
	// What was refused has not begun, or not been given up: it is looked at again as new.
	for _, id := range o.commit(b.intents) {
		long := op.refused(id, o.opts.Stalled)
		if _, settled := op.left[id]; settled && long {
			continue
		}
		o.over(op, id)
		delete(op.left, id)
		op.later = append(op.later, id)
	}
}

// batch is what one look at an operation decides.
type batch struct {
	*operations
	st      *fsm.State
	sched   *scheduler.Scheduler
	op      *operation
	intents []fsm.Intent
}

// consider decides about one shard. It is false if its move has to wait for room at a node.
func (b *batch) consider(id neon.ShardID) bool {
	op := b.op
	_, begun := op.moving[id]
	l := &look{st: b.st, sched: b.sched, op: op, id: id, begun: begun}
	v := b.settle(l, b.next(l))
	sh, exists := b.st.Shard(id)
	switch v.verdict {
	case finished:
		if begun {
			op.moved++
			op.gotOn = time.Now()
		}
		b.over(op, id)
		delete(op.obstacles, id)
	case later:
		b.over(op, id)
		op.later = append(op.later, id)
	case stays:
		b.over(op, id)
		op.left[id] = v.why
		b.logger.Info("shard stays where it is: "+v.why, "shard", id, "node", op.node)
		if in, ok := b.sched.GiveUp(sh); exists && ok {
			b.intents = append(b.intents, in)
		}
	case act:
		m := moveOf(&sh, &v.intent)
		if begun { // it goes to another node than before
			m.since = op.moving[id].since
			b.over(op, id)
		}
		if !b.crowd.admits(m) {
			return b.putBack(id, begun)
		}
		b.intents = append(b.intents, v.intent)
		op.to[id] = v.intent.PreferredNode
		b.under(op, id, m)
	case waiting:
		if !begun {
			b.under(op, id, move{since: time.Now(), nodes: []neon.NodeID{op.node}})
		}
	}
	return true
}

// putBack has a move wait for room at a node. One that was begun is planned again.
func (b *batch) putBack(id neon.ShardID, begun bool) bool {
	if begun {
		b.op.plan = append(b.op.plan, id)
	}
	return begun
}

// under notes that a shard is on its way.
func (o *operations) under(op *operation, id neon.ShardID, m move) {
	o.crowd.add(m, 1)
	op.moving[id] = m
	o.expect(id)
}

// over notes that a shard is not on its way any more, if it was.
func (o *operations) over(op *operation, id neon.ShardID) {
	o.crowd.add(op.moving[id], -1)
	delete(op.moving, id)
}

// await has the arrival of what is under way wake the operations, and nothing else.
func (o *operations) await() {
	awaited := make(map[neon.ShardID]struct{})
	for _, op := range o.running {
		for id := range op.moving {
			awaited[id] = struct{}{}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.awaited = awaited
}

// expect has the arrival of shards wake the operations.
func (o *operations) expect(ids ...neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		o.awaited[id] = struct{}{}
	}
}

// awaits reports whether the arrival of a shard is to be told.
func (o *operations) awaits(id neon.ShardID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.awaited[id]
	return ok
}

// ended hears that a shard is as its record says.
func (o *operations) ended(id neon.ShardID) {
	o.mu.Lock()
	_, awaited := o.awaited[id]
	if awaited {
		o.arrived = append(o.arrived, id)
	}
	o.mu.Unlock()
	if awaited {
		o.wake.Set()
	}
}

// takeArrived are the shards of which that was heard since the last time.
func (o *operations) takeArrived() (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ids, o.arrived = o.arrived, nil
	return ids
}
