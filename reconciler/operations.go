package reconciler

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/reconciler/observed"
	"quorate/reconciler/queue"
	"quorate/scheduler"
)

// operations is the leader's work on the long operations that stand in the nodes'
// records. What it remembers is only which shards it has looked at: a successor
// makes a plan anew from what is left to do.
//
// One goroutine works on them, so that nothing here needs a lock.
type operations struct {
	ctx        context.Context
	opts       Options
	log        decide.Log
	failpoints failpoint.Points
	logger     *slog.Logger
	seen       *observed.Locations
	queue      *shardQueue
	scenes     *scenes
	loads      func() map[neon.NodeID]scheduler.Load
	commit     func([]fsm.Intent) (refused []neon.ShardID)
	running    map[neon.NodeID]*operation
}

// operation is one operation under way.
type operation struct {
	fsm.Operation
	node      neon.NodeID
	plan      []neon.ShardID            // not looked at yet
	moving    map[neon.ShardID]struct{} // on their way
	looked    map[neon.ShardID]struct{} // by a drain: all that were ever planned
	notBefore time.Time                 // until when there is nothing to plan
}

// verdict is what is to be done about one shard of an operation.
type verdict uint8

const (
	finished verdict = iota // nothing any more
	waiting                 // it is on its way, or will be able to go
	later                   // it has to be looked at anew in the next round
	act                     // commit an intent
)

// run works on all operations until the term ends. It begins when the nodes were
// listed, so that it knows what is on them.
func (o *operations) run() {
	select {
	case <-o.scenes.surveyed:
	case <-o.ctx.Done():
		return
	}
	tick := time.NewTicker(o.opts.OperationInterval)
	defer tick.Stop()
	for {
		o.round()
		select {
		case <-tick.C:
		case <-o.ctx.Done():
			return
		}
	}
}

// operating is the number of operations in the state.
func operating(st *fsm.State) (n int) {
	for node := range st.Nodes() {
		if node.Operation.Kind != fsm.OperationNone {
			n++
		}
	}
	return n
}

// round makes every operation do what it can do now. All of them together have at
// most OperationMoves shards under way.
func (o *operations) round() {
	st := o.log.State()
	o.follow(st)
	if len(o.running) == 0 {
		return
	}
	budget := o.opts.OperationMoves
	for _, op := range o.running {
		budget -= len(op.moving)
	}
	for _, id := range slices.Sorted(maps.Keys(o.running)) {
		op := o.running[id]
		switch {
		case op.Interrupted:
			o.end(op, fsm.EndNodeOperation{Node: op.node, Begun: op.Begun, Ending: fsm.Abandoned})
			continue
		case op.Force:
			o.force(op)
			continue
		case !o.loop(op):
			return
		}
		st := o.log.State()
		if n, _ := st.Node(op.node); n.Operation != op.Operation {
			continue // it was ended or interrupted meanwhile
		}
		before := len(op.moving)
		o.advance(st, op, max(0, budget))
		budget -= len(op.moving) - before
		if len(op.plan) == 0 && len(op.moving) == 0 {
			o.finish(op)
		}
	}
}

// loop passes the place at which tests slow an operation down, before anything is
// begun; false means that the term has ended.
func (o *operations) loop(op *operation) bool {
	return o.failpoints == nil ||
		o.failpoints.Sleep(o.ctx, "sleepy-"+op.Kind.String()+"-loop") == nil
}

// beforeDelete passes the place at which tests hold a deletion that has nothing
// left to do.
func (o *operations) beforeDelete() bool {
	return o.failpoints == nil ||
		o.failpoints.Pausable(o.ctx, "delete-node-after-reconciles-spawned") == nil
}

// follow takes up the operations that were begun and drops those that are over.
func (o *operations) follow(st *fsm.State) {
	alive := make(map[neon.NodeID]bool)
	for n := range st.Nodes() {
		if n.Operation.Kind == fsm.OperationNone {
			continue
		}
		alive[n.ID] = true
		if op := o.running[n.ID]; op != nil && op.Begun == n.Operation.Begun {
			op.Operation = n.Operation
			continue
		}
		op := &operation{
			Operation: n.Operation, node: n.ID,
			moving: make(map[neon.ShardID]struct{}), looked: make(map[neon.ShardID]struct{}),
		}
		o.begin(st, op)
		o.running[n.ID] = op
		o.logger.Info(title(op.Kind)+" background operation starting", "node", n.ID,
			"shards", len(op.plan))
	}
	for id, op := range o.running {
		if !alive[id] {
			delete(o.running, id)
			o.logger.Info(title(op.Kind)+" background operation was cancelled", "node", id)
		}
	}
}

func title(k fsm.OperationKind) string {
	switch k {
	case fsm.OperationDrain:
		return "Drain"
	case fsm.OperationFill:
		return "Fill"
	}
	return "Delete"
}

// begin plans an operation: which shards it has to look at. Those whose destination
// was chosen before, and those that were seen on the node though they are meant to
// be elsewhere, are on their way.
func (o *operations) begin(st *fsm.State, op *operation) {
	if op.Kind == fsm.OperationFill {
		op.plan = scheduler.New(st, o.loads()).Fill(op.node)
		for sh := range st.SecondaryOn(op.node, neon.ShardID{}) {
			if sh.PreferredNode == op.node {
				op.moving[sh.ID] = struct{}{}
			}
		}
		return
	}
	for sh := range st.NodeShards(op.node) {
		switch {
		case sh.Attached == op.node && sh.PreferredNode != 0:
			op.moving[sh.ID] = struct{}{}
		case op.Kind == fsm.OperationDelete, sh.Attached == op.node, sh.GenNode == op.node:
			op.plan = append(op.plan, sh.ID)
			op.looked[sh.ID] = struct{}{}
		}
	}
	for _, id := range o.seen.AttachedOn(op.node) {
		if sh, ok := st.Shard(id); ok && sh.Attached != op.node {
			op.moving[id] = struct{}{}
		}
	}
}

// newcomers lists what is attached on the node of a drain and was not there when it was
// planned: the shards that a planned one was split into.
func (o *operations) newcomers(op *operation) (ids []neon.ShardID) {
	for sh := range o.log.State().AttachedOn(op.node, neon.ShardID{}) {
		if _, known := op.looked[sh.ID]; !known {
			op.looked[sh.ID] = struct{}{}
			ids = append(ids, sh.ID)
		}
	}
	return ids
}

// advance looks at what is under way and begins as many moves as there is room for.
func (o *operations) advance(st *fsm.State, op *operation, room int) {
	sched := scheduler.New(st, o.loads())
	var intents []fsm.Intent
	consider := func(id neon.ShardID, begun bool) {
		in, v := o.next(&look{st: st, sched: sched, op: op, id: id, begun: begun})
		switch v {
		case finished:
			delete(op.moving, id)
			return
		case later:
			delete(op.moving, id)
			op.plan = append(op.plan, id)
			return
		case act:
			intents = append(intents, in)
		}
		op.moving[id] = struct{}{}
	}
	for _, id := range slices.SortedFunc(maps.Keys(op.moving), neon.ShardID.Compare) {
		consider(id, true)
	}
	limit := len(op.moving) + room
	for range len(op.plan) {
		if len(op.moving) >= limit {
			break
		}
		id := op.plan[0]
		op.plan = op.plan[1:]
		if _, under := op.moving[id]; !under {
			consider(id, false)
		}
	}
	if r := o.commit(intents); r != nil {
		// What was refused has not begun: it is looked at again as new.
		for _, id := range r {
			delete(op.moving, id)
			op.plan = append(op.plan, id)
		}
	}
}

// look is one look at one shard of an operation.
type look struct {
	st    *fsm.State
	sched *scheduler.Scheduler
	op    *operation
	id    neon.ShardID
	begun bool // its move was begun before
}

func (o *operations) next(l *look) (fsm.Intent, verdict) {
	sh, ok := l.st.Shard(l.id)
	tenant, ok2 := l.st.Tenant(l.id.Tenant)
	if !ok || !ok2 || tenant.Deleting {
		return fsm.Intent{}, finished
	}
	if l.st.Splitting(tenant.ID) {
		return fsm.Intent{}, later
	}
	if n, _ := l.st.Node(l.op.node); l.op.Kind != fsm.OperationDelete && !n.Available() {
		return o.abandonMove(l, sh)
	}
	switch l.op.Kind {
	case fsm.OperationDrain:
		return o.nextDrain(l, tenant, sh)
	case fsm.OperationFill:
		return o.nextFill(l, tenant, sh)
	}
	return o.nextDelete(l, tenant, sh)
}

// abandonMove ends what is done about a shard for a node that is not available: what the
// node has is evacuated as soon as another one can take it. The operation could not
// be cancelled either.
func (o *operations) abandonMove(l *look, sh fsm.Shard) (fsm.Intent, verdict) {
	if sh.Attached == l.op.node || sh.PreferredNode == l.op.node {
		if in, ok := l.sched.GiveUp(sh); ok {
			return in, act
		}
	}
	return fsm.Intent{}, finished
}

// pinned reports whether an operator forbade to move a tenant.
func pinned(t fsm.Tenant) bool {
	return t.Scheduling == neon.ShardPause || t.Scheduling == neon.ShardStop
}

// nextDrain moves what is attached. Pinned tenants stay, and so do shards that
// have nowhere to go or whose destination does not become warm.
func (o *operations) nextDrain(l *look, tenant fsm.Tenant, sh fsm.Shard) (fsm.Intent, verdict) {
	switch {
	case sh.Attached != l.op.node:
		return fsm.Intent{}, o.inPlace(l)
	case pinned(tenant):
		return fsm.Intent{}, finished
	case l.sched.UnderWay(sh):
		return o.onItsWay(l, sh)
	case l.begun && sh.PreferredNode == 0:
		return fsm.Intent{}, finished // it gave up
	}
	if in, ok := l.sched.Leave(sh); ok {
		return in, act
	}
	o.logger.Info("shard stays where it is: there is no other node for it", "shard", sh.ID,
		"node", l.op.node)
	return fsm.Intent{}, finished
}

// onItsWay waits for a shard to be warm on its destination, unless nothing works
// there.
func (o *operations) onItsWay(l *look, sh fsm.Shard) (fsm.Intent, verdict) {
	if o.queue.Status(sh.ID).Failures < queue.StuckAfter {
		return fsm.Intent{}, waiting
	}
	if in, ok := l.sched.GiveUp(sh); ok {
		return in, act
	}
	return fsm.Intent{}, finished
}

// nextFill brings a shard to the node that is filled.
func (o *operations) nextFill(l *look, tenant fsm.Tenant, sh fsm.Shard) (fsm.Intent, verdict) {
	n, _ := l.st.Node(l.op.node)
	switch {
	case sh.Attached == l.op.node:
		return fsm.Intent{}, o.inPlace(l)
	case sh.Attached == 0, !sh.HasSecondary(l.op.node), pinned(tenant):
		return fsm.Intent{}, finished
	case !n.Schedulable() && sh.PreferredNode == l.op.node:
		if in, ok := l.sched.GiveUp(sh); ok {
			return in, act
		}
		return fsm.Intent{}, finished
	case sh.PreferredNode == l.op.node:
		return o.onItsWay(l, sh)
	case !n.Schedulable(), l.begun, sh.PreferredNode != 0:
		return fsm.Intent{}, finished
	}
	in, err := l.sched.Prewarm(sh, l.op.node, scheduler.OverrideScheduler)
	if err != nil {
		return fsm.Intent{}, finished
	}
	return in, act
}

// nextDelete moves everything, whatever it takes and however long: a shard that
// has nowhere to go holds the deletion up. Only stopped tenants are not touched;
// what they have on the node ends with it.
func (o *operations) nextDelete(l *look, tenant fsm.Tenant, sh fsm.Shard) (fsm.Intent, verdict) {
	switch {
	case tenant.Scheduling == neon.ShardStop:
		return fsm.Intent{}, finished
	case sh.Attached == l.op.node:
		if in, ok := l.sched.Leave(sh); ok {
			return in, act
		}
		return fsm.Intent{}, waiting
	case sh.HasSecondary(l.op.node):
		if in, ok := l.sched.LeaveSecondary(sh, l.op.node); ok {
			return in, act
		}
		return fsm.Intent{}, waiting
	}
	return fsm.Intent{}, o.inPlace(l)
}

// inPlace is finished once a shard is as its intent says, nothing of the move being
// left to do.
func (o *operations) inPlace(l *look) verdict {
	if o.scenes.done(l.st, l.id) {
		return finished
	}
	return waiting
}

// finish ends an operation that has nothing under way. A drain and a deletion look
// once more whether anything came to the node meanwhile.
func (o *operations) finish(op *operation) {
	if time.Now().Before(op.notBefore) {
		return
	}
	var end fsm.Command = fsm.EndNodeOperation{Node: op.node, Begun: op.Begun, Ending: fsm.Finished}
	if op.Kind == fsm.OperationDrain {
		if op.plan = o.newcomers(op); len(op.plan) > 0 {
			return
		}
	}
	if op.Kind == fsm.OperationDelete {
		st := o.log.State()
		o.begin(st, op)
		op.plan = slices.DeleteFunc(op.plan, func(id neon.ShardID) bool {
			tenant, _ := st.Tenant(id.Tenant)
			return tenant.Scheduling == neon.ShardStop || tenant.Deleting
		})
		if len(op.plan) > 0 {
			op.notBefore = time.Now().Add(o.opts.RetryMin)
			return
		}
		if !o.beforeDelete() {
			return
		}
		end = fsm.DeleteNode{Node: op.node, Begun: op.Begun}
	}
	o.end(op, end)
}

func (o *operations) end(op *operation, end fsm.Command) {
	if _, err := o.log.Propose(o.ctx, fsm.RequestID{}, end); err != nil {
		if o.ctx.Err() == nil {
			o.logger.Info("the end of an operation was not committed", "node", op.node, "err", err)
		}
		return
	}
	delete(o.running, op.node)
	if e, ok := end.(fsm.EndNodeOperation); ok && e.Ending == fsm.Abandoned {
		o.logger.Info(
			title(op.Kind)+" background operation was interrupted by a restart of the node",
			"node", op.node)
		return
	}
	o.logger.Info(title(op.Kind)+" background operation completed successfully", "node", op.node)
}

// force takes everything away from a node that is deleted by force, in batches and
// without waiting for anything, and deletes it. What no other node can take loses
// its place with the node.
func (o *operations) force(op *operation) {
	for o.loop(op) {
		st := o.log.State()
		if n, _ := st.Node(op.node); n.Operation != op.Operation {
			return
		}
		sched := scheduler.New(st, o.loads())
		var intents []fsm.Intent
		for sh := range st.NodeShards(op.node) {
			if tenant, _ := st.Tenant(sh.ID.Tenant); tenant.Scheduling == neon.ShardStop {
				continue
			}
			in, ok := fsm.Intent{}, false
			if sh.Attached == op.node {
				in, ok = sched.FailOver(sh)
			} else {
				in, ok = sched.LeaveSecondary(sh, op.node)
			}
			if ok {
				intents = append(intents, in)
			}
			if len(intents) >= o.opts.EvacuationBatch {
				break
			}
		}
		refused := o.commit(intents)
		switch {
		case len(intents) == 0:
			if o.beforeDelete() {
				o.end(op, fsm.DeleteNode{Node: op.node, Begun: op.Begun})
			}
			return
		case len(refused) == len(intents):
			return // the next round tries again
		}
	}
}
