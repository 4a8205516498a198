package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/internal/wait"
	"quorate/reconciler/observed"
	"quorate/reconciler/outbox"
	"quorate/scheduler"
)

// operations is the leader's work on the long operations that stand in the nodes'
// records. What it remembers is only which shards it has looked at: a successor
// makes a plan anew from what is left to do.
//
// One goroutine works on them, so that nothing here needs a lock but what others ask
// for.
type operations struct {
	ctx        context.Context
	opts       Options
	log        decide.Log
	failpoints failpoint.Points
	logger     *slog.Logger
	seen       *observed.Locations
	queue      *shardQueue
	scenes     *scenes
	outbox     troubled
	loads      func() map[neon.NodeID]scheduler.Load
	commit     func([]fsm.Intent) (refused []neon.ShardID)
	wake       wait.Signal // arrived has grown, or a node is not what it was
	running    map[neon.NodeID]*operation
	crowd      crowd
	began      time.Time // when this leader began with them

	mu      sync.Mutex                             // guards what others ask for
	status  map[neon.NodeID]decide.OperationStatus // what hinders them
	awaited map[neon.ShardID]struct{}              // what they move
	arrived []neon.ShardID                         // of those: as their records say, or nearly
}

// troubled knows of which tenants compute cannot be told.
type troubled interface {
	Trouble(id neon.TenantID) outbox.Trouble
}

// operation is one operation under way.
type operation struct {
	fsm.Operation
	node      neon.NodeID
	plan      []neon.ShardID               // not looked at yet
	later     []neon.ShardID               // could not be begun, to be looked at with the clock
	moving    map[neon.ShardID]move        // on their way
	to        map[neon.ShardID]neon.NodeID // where those of a drain were to move
	looked    map[neon.ShardID]struct{}    // by a drain: all that were ever planned
	obstacles map[neon.ShardID]obstacle    // what some of both cannot get over now
	left      map[neon.ShardID]string      // settled: they stay where they are, and why
	moved     int                          // shards that have come or gone, under this leader
	notBefore time.Time                    // until when there is nothing to plan
	overdue   string                       // why nothing is waited for any more, or ""
	headway
}

func newOperation(n *fsm.Node) *operation {
	return &operation{
		Operation: n.Operation, node: n.ID, headway: headwayOf(n.Operation),
		moving: make(map[neon.ShardID]move), to: make(map[neon.ShardID]neon.NodeID),
		looked: make(map[neon.ShardID]struct{}), obstacles: make(map[neon.ShardID]obstacle),
		left: make(map[neon.ShardID]string),
	}
}

// verdict is what is to be done about one shard of an operation.
type verdict uint8

const (
	finished verdict = iota // nothing any more
	waiting                 // it is on its way, or will be able to go
	later                   // it has to be looked at anew after a while
	act                     // commit an intent
	stays                   // nothing any more, though it is not where it should be
)

// opinion is a verdict with what belongs to it.
type opinion struct {
	verdict
	intent   fsm.Intent    // to act
	why      string        // it stays, or does not get on now; "" when it does
	patience time.Duration // how long it may not get on for that; 0: it is known otherwise
}

// run works on all operations until the term ends. It begins when the nodes were
// listed, so that it knows what is on them.
func (o *operations) run() {
	select {
	case <-o.scenes.surveyed:
	case <-o.ctx.Done():
		return
	}
	o.began = time.Now()
	tick := time.NewTicker(o.opts.OperationInterval)
	defer tick.Stop()
	for whole, ticks := true, true; ; {
		o.round(whole)
		// Without an operation there is nothing that a clock has to look after: what begins
		// one is a change of a node, which wakes.
		if some := len(o.running) > 0; some != ticks {
			if ticks = some; some {
				tick.Reset(o.opts.OperationInterval)
			} else {
				tick.Stop()
				o.await()
			}
		}
		select {
		case <-tick.C:
			whole = true
		case <-o.wake:
			// A move that ends makes room for another. What ends together is looked at
			// together.
			if whole = false; wait.Sleep(o.ctx, o.opts.OperationPause) != nil {
				return
			}
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

// round makes every operation do what it can do now. A whole one looks at all that is under
// way, another one at what has arrived.
func (o *operations) round(whole bool) {
	arrived := o.takeArrived()
	st := o.log.State()
	o.follow(st)
	if whole {
		defer o.await()
	}
	if len(o.running) == 0 {
		return
	}
	o.crowd.count(o.running)
	for _, id := range slices.Sorted(maps.Keys(o.running)) {
		op := o.running[id]
		switch {
		case op.Interrupted:
			o.end(op, fsm.Abandoned, op.left)
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
		o.advance(st, op, op.due(whole, arrived))
		o.noteProgress(op)
		o.publish(op)
		if len(op.plan)+len(op.later)+len(op.moving) == 0 {
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
		op := newOperation(n)
		op.handedOn = op.At != 0 && time.UnixMilli(op.At).Before(o.began)
		o.begin(st, op)
		o.running[n.ID] = op
		o.logger.Info(title(op.Kind)+" background operation starting", "node", n.ID,
			"shards", len(op.plan))
	}
	for id, op := range o.running {
		if !alive[id] {
			o.drop(op)
			o.logger.Info(title(op.Kind)+" background operation was cancelled", "node", id)
		}
	}
}

// begin plans an operation: which shards it has to look at. Those whose destination
// was chosen before, and those that were seen on the node though they are meant to
// be elsewhere, are on their way. What was settled is not planned again.
func (o *operations) begin(st *fsm.State, op *operation) {
	now := time.Now()
	if op.Kind == fsm.OperationFill {
		op.plan = scheduler.New(st, o.loads()).Fill(op.node)
		for sh := range st.SecondaryOn(op.node, neon.ShardID{}) {
			if sh.PreferredNode == op.node {
				op.moving[sh.ID] = move{now, []neon.NodeID{sh.Attached, op.node}}
			}
		}
		o.expect(slices.Collect(maps.Keys(op.moving))...)
		return
	}
	for sh := range st.NodeShards(op.node) {
		_, settled := op.left[sh.ID]
		switch {
		case settled:
		case sh.Attached == op.node && sh.PreferredNode != 0:
			op.moving[sh.ID] = move{now, []neon.NodeID{op.node, sh.PreferredNode}}
			op.to[sh.ID] = sh.PreferredNode
		case op.Kind == fsm.OperationDelete, sh.Attached == op.node, sh.GenNode == op.node:
			op.plan = append(op.plan, sh.ID)
			op.looked[sh.ID] = struct{}{}
		}
	}
	if op.Kind == fsm.OperationDelete {
		op.planRemovals(st)
	}
	found := o.seen.AttachedOn
	if op.Kind == fsm.OperationDelete { // a secondary has to go too
		found = o.seen.AnyOn
	}
	for _, id := range found(op.node) {
		_, settled := op.left[id]
		sh, ok := st.Shard(id)
		meant := sh.Attached == op.node ||
			op.Kind == fsm.OperationDelete && sh.HasSecondary(op.node)
		if ok && !meant && !settled {
			op.moving[id] = move{now, []neon.NodeID{op.node, sh.Attached}}
		}
	}
	o.expect(slices.Collect(maps.Keys(op.moving))...)
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

// look is one look at one shard of an operation.
type look struct {
	st    *fsm.State
	sched *scheduler.Scheduler
	op    *operation
	id    neon.ShardID
	begun bool // its move was begun before
}

func (o *operations) next(l *look) opinion {
	sh, ok := l.st.Shard(l.id)
	tenant, ok2 := l.st.Tenant(l.id.Tenant)
	if !ok || !ok2 {
		return opinion{}
	}
	if tenant.Deleting {
		return nextRemoval(l, &tenant)
	}
	if l.st.Splitting(tenant.ID) {
		return opinion{verdict: later, why: beingSplit, patience: splitPatience}
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
func (o *operations) abandonMove(l *look, sh fsm.Shard) opinion {
	if (sh.Attached == l.op.node) == (l.op.Kind == fsm.OperationFill) {
		return opinion{}
	}
	return opinion{verdict: stays, why: fmt.Sprintf("node %d is not available", l.op.node)}
}

// nextDrain moves what is attached. Pinned tenants stay, and so do shards that
// have nowhere to go or whose destination does not become warm. One whose destination
// takes nothing any more gets another one.
func (o *operations) nextDrain(l *look, tenant fsm.Tenant, sh fsm.Shard) opinion {
	switch {
	case sh.Attached != l.op.node:
		return o.inPlace(l, sh)
	case tenant.Pinned():
		return opinion{verdict: stays, why: pinnedBy(tenant)}
	case l.sched.UnderWay(sh):
		return o.onItsWay(sh)
	case l.begun && sh.PreferredNode == 0 && l.sched.Takes(l.op.to[l.id]):
		return opinion{verdict: stays, why: gaveUp}
	}
	if v, yes := o.hindered(sh); yes {
		return v
	}
	if in, ok := l.sched.Leave(sh); ok {
		return opinion{verdict: act, intent: in}
	}
	return opinion{verdict: stays, why: noOtherNode}
}

// nextFill brings a shard to the node that is filled.
func (o *operations) nextFill(l *look, tenant fsm.Tenant, sh fsm.Shard) opinion {
	n, _ := l.st.Node(l.op.node)
	switch {
	case sh.Attached == l.op.node:
		return o.inPlace(l, sh)
	case sh.Attached == 0:
		return opinion{}
	case tenant.Pinned():
		return opinion{verdict: stays, why: pinnedBy(tenant)}
	case !n.Schedulable():
		return opinion{verdict: stays, why: fmt.Sprintf("node %d takes nothing", n.ID)}
	case sh.PreferredNode == l.op.node:
		return o.onItsWay(sh)
	case l.begun:
		return opinion{verdict: stays, why: gaveUp}
	case sh.PreferredNode != 0:
		return opinion{}
	}
	if v, yes := o.hindered(sh); yes {
		return v
	}
	in, err := l.sched.Prewarm(sh, l.op.node, scheduler.OverrideScheduler)
	if err != nil {
		return opinion{verdict: stays, why: err.Error()}
	}
	return opinion{verdict: act, intent: in}
}

// nextDelete moves everything, cold or not. Only stopped tenants are not touched;
// what they have on the node ends with it.
func (o *operations) nextDelete(l *look, tenant fsm.Tenant, sh fsm.Shard) opinion {
	switch {
	case tenant.Scheduling == neon.ShardStop:
		return opinion{}
	case sh.Attached == l.op.node && l.sched.UnderWay(sh):
		return o.onItsWay(sh)
	case sh.Attached == l.op.node:
		if v, yes := o.hindered(sh); yes {
			return v
		}
		if in, ok := l.sched.Leave(sh); ok {
			return opinion{verdict: act, intent: in}
		}
		return opinion{verdict: waiting, why: noOtherNode, patience: o.opts.Stalled}
	case sh.HasSecondary(l.op.node):
		if in, ok := l.sched.LeaveSecondary(sh, l.op.node); ok {
			return opinion{verdict: act, intent: in}
		}
		return opinion{verdict: waiting, why: noOtherNode, patience: o.opts.Stalled}
	}
	if n, _ := l.st.Node(l.op.node); !n.Available() {
		return opinion{} // nothing can be taken from it
	}
	return o.inPlace(l, sh)
}

// finish ends an operation that has nothing under way. A drain and a deletion look
// once more whether anything came to the node meanwhile. A deletion that leaves
// something behind has failed.
func (o *operations) finish(op *operation) {
	if time.Now().Before(op.notBefore) {
		return
	}
	if op.Kind == fsm.OperationDrain {
		if op.plan = o.newcomers(op); len(op.plan) > 0 {
			return
		}
	}
	o.lookAgain(op)
	if op.Kind != fsm.OperationDelete {
		o.end(op, fsm.Finished, op.left)
		return
	}
	st := o.log.State()
	o.begin(st, op)
	o.skipFinished(st, op)
	switch {
	case len(op.plan) > 0:
		op.notBefore = time.Now().Add(o.opts.RetryMin)
	case len(op.moving) > 0: // the log has decided; they have to go from the node itself
	case len(op.left) > 0:
		o.end(op, fsm.GaveUp, op.left)
	case o.beforeDelete():
		o.end(op, fsm.Finished, o.remains(op))
	}
}

// skipFinished takes what there is nothing to do about from what was planned anew.
func (o *operations) skipFinished(st *fsm.State, op *operation) {
	sched := scheduler.New(st, o.loads())
	finished := func(id neon.ShardID) bool {
		return o.next(&look{st: st, sched: sched, op: op, id: id}).verdict == finished
	}
	op.plan = slices.DeleteFunc(op.plan, finished)
	maps.DeleteFunc(op.moving, func(id neon.ShardID, _ move) bool { return finished(id) })
}

// drop forgets an operation that is over.
func (o *operations) drop(op *operation) {
	delete(o.running, op.node)
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.status, op.node)
}

// publish tells others what hinders an operation.
func (o *operations) publish(op *operation) {
	s := op.status()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status[op.node] = s
}

// of is what hinders the operation on a node.
func (o *operations) of(n neon.NodeID) decide.OperationStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status[n]
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
		intents := o.forced(st, op)
		refused := o.commit(intents)
		for _, id := range refused {
			op.refused(id, o.opts.Stalled)
		}
		switch {
		case len(intents) == 0:
			if o.beforeDelete() {
				o.end(op, fsm.Finished, o.remains(op))
			}
			return
		case len(refused) == len(intents):
			return // the next round tries again
		}
	}
}

// forced is one batch. What was refused for long is not in it.
func (o *operations) forced(st *fsm.State, op *operation) (intents []fsm.Intent) {
	sched := scheduler.New(st, o.loads())
	for sh := range st.NodeShards(op.node) {
		tenant, _ := st.Tenant(sh.ID.Tenant)
		if x, ok := op.obstacles[sh.ID]; tenant.Scheduling == neon.ShardStop ||
			ok && op.settles(x, o.opts.Stalled) {
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
	return intents
}
