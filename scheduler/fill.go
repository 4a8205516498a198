package scheduler

import (
	"math"

	"quorate/api/neon"
	"quorate/fsm"
)

// fill makes the plan for a node. It is a balance in which only that node takes, and the
// others give what they have beyond their fair shares.
func fill(r *round, node neon.NodeID) (plan []neon.ShardID) {
	if n := r.node(node); n == nil || n.class != schedulable {
		return nil
	}
	b := newBalance(r, Balancing{Moves: math.MaxInt, PerNode: math.MaxInt})
	b.census()
	b.filled = b.holder(node)
	b.homeward()
	for i := range b.holders {
		h := &b.holders[i]
		h.closed, h.least, h.most = true, h.fair[byNumber], math.Inf(+1)
	}
	to := b.filled
	to.closed, to.least = false, math.Floor(to.fair[byNumber]+1e-6)
	for b.level() {
		continue
	}
	for _, in := range b.intents {
		plan = append(plan, in.Shard)
	}
	return plan
}

// homeward plans what is at home in the node's zone, is attached outside it, and has a
// secondary on the node.
func (b *balance) homeward() {
	to := b.filled
	for sh := range b.state.SecondaryOn(to.id, neon.ShardID{}) {
		b.enter(sh.ID.Tenant)
		from := b.node(sh.Attached)
		if from == nil || from.az == to.az || sh.PreferredAZ != to.az || to.az.IsZero() ||
			!b.mayLeave(&sh) {
			continue
		}
		h := b.holder(sh.Attached)
		b.move(&sh, h, to)
		b.parts[to.zone+1].bound[byNumber]++
		if h != nil {
			b.parts[h.zone+1].bound[byNumber]--
		}
	}
	b.share()
}

// mayLeave reports whether a shard of the tenant under decision may be moved. A node that
// is filled gets back what a drain has taken away, also what is not optimised.
func (b *balance) mayLeave(sh *fsm.Shard) bool {
	if b.tenant.Policy.Kind != neon.PlaceAttached || sh.Exhausted() {
		return false
	}
	if b.filled == nil {
		return b.settled(sh)
	}
	return !b.held() && !b.tenant.Pinned() && !sh.Unmanaged && sh.PreferredNode == 0
}
