package reconciler

import (
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// end commits the end of an operation, with what is left of it.
func (o *operations) end(op *operation, e fsm.Ending, why map[neon.ShardID]string) {
	left := hindered(why)
	if _, err := o.log.Propose(o.ctx, fsm.RequestID{}, o.ending(op, e, left)); err != nil {
		if o.ctx.Err() == nil {
			o.logger.Info("the end of an operation was not committed", "node", op.node, "err", err)
		}
		return
	}
	o.drop(op)
	o.logger.Info(title(op.Kind)+" background operation "+op.outcome(e), "node", op.node,
		"moved", op.moved, "left", left.Count, "named", left.Named)
}

// ending is the command that ends an operation. A log of the first level has no place for
// the outcome.
func (o *operations) ending(op *operation, e fsm.Ending, left decide.Hindered) fsm.Command {
	var at int64
	var kept fsm.Left
	if o.log.State().KeepsOutcomes() {
		at, kept.Count = time.Now().UnixMilli(), left.Count
		for _, x := range left.Named {
			kept.Named = append(kept.Named, fsm.LeftShard{Shard: x.Shard, Why: x.Why})
		}
	} else if e == fsm.GaveUp {
		e = fsm.Cancelled
	}
	if op.Kind == fsm.OperationDelete && e == fsm.Finished {
		return fsm.DeleteNode{Node: op.node, Begun: op.Begun, At: at, Left: kept}
	}
	return fsm.EndNodeOperation{Node: op.node, Begun: op.Begun, Ending: e, At: at, Left: kept}
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

// outcome is how an operation has ended, in the words that clients know where they
// know any.
func (op *operation) outcome(e fsm.Ending) string {
	switch e {
	case fsm.Abandoned:
		return "was interrupted by a restart of the node"
	case fsm.GaveUp:
		return "failed: not everything can leave the node"
	}
	return "completed successfully"
}

// remains is what loses its place with a node that is about to be deleted, and why.
func (o *operations) remains(op *operation) map[neon.ShardID]string {
	left := make(map[neon.ShardID]string)
	st := o.log.State()
	for sh := range st.NodeShards(op.node) {
		tenant, _ := st.Tenant(sh.ID.Tenant)
		if !sh.Intends(op.node) || tenant.Deleting {
			continue
		}
		why := noOtherNode
		if x, ok := op.obstacles[sh.ID]; ok {
			why = x.why
		} else if tenant.Scheduling == neon.ShardStop {
			why = pinnedBy(tenant)
		}
		left[sh.ID] = why
	}
	return left
}

// planRemovals has a deletion wait for the tenants whose remote data its node may be
// removing. The first shard stands for the tenant.
func (op *operation) planRemovals(st *fsm.State) {
	for tenant := range st.RemovedBy(op.node) {
		first := tenant.Shards()[0]
		if _, settled := op.left[first]; !settled && !slices.Contains(op.plan, first) {
			op.plan = append(op.plan, first)
		}
	}
}

// nextRemoval waits for a node to be done with the remote data of a tenant before the node
// is deleted: a process that is not known any more would go on, and nobody could learn
// when it ends.
func nextRemoval(l *look, tenant *fsm.Tenant) opinion {
	n, removing := l.st.Removing(tenant)
	if l.op.Kind != fsm.OperationDelete || !removing || n.ID != l.op.node ||
		l.id != tenant.Shards()[0] {
		return opinion{}
	}
	return opinion{verdict: later, why: removesData, patience: removalPatience}
}
