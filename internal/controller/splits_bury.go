package controller

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// inventory is what a parent had when its split began.
type inventory struct {
	began     uint64
	timelines map[neon.TimelineID]bool
}

// takeInventory notes the timelines of a parent. The tenant is frozen, so that
// whatever is created from here on is not acknowledged.
func (p *Splits) takeInventory(
	ctx context.Context, sp fsm.Split, parent fsm.SplitParent, node *fsm.Node,
) error {
	list, err := p.Calls.TimelineIDs(ctx, node, parent.Shard)
	if err != nil {
		return err
	}
	inv := inventory{began: sp.Began, timelines: make(map[neon.TimelineID]bool, len(list))}
	for _, id := range list {
		inv.timelines[id] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.had[parent.Shard] = inv
	return nil
}

// forgetInventory is for a split that is over.
func (p *Splits) forgetInventory(parents []fsm.SplitParent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, parent := range parents {
		delete(p.had, parent.Shard)
	}
}

// bury deletes from the children of one parent every timeline that the parent did
// not have. A split that was aborted leaves the timelines of its time in remote
// storage under the names of its children; those that were deleted since would come
// back with the children of the next split.
func (p *Splits) bury(
	ctx context.Context, sp fsm.Split, parent fsm.SplitParent, node *fsm.Node,
) error {
	p.mu.Lock()
	inv, ok := p.had[parent.Shard]
	p.mu.Unlock()
	if !ok || inv.began != sp.Began {
		return neon.Errorf(neon.Conflict, "Failed to split %s: nobody knows what it had",
			parent.Shard)
	}
	deadline := time.Now().Add(busyTime)
	for {
		left, err := p.buryOnce(ctx, sp.Children(parent.Shard), node, inv)
		switch {
		case err == nil && left == 0:
			return nil
		case err == nil:
			err = neon.Errorf(neon.Timeout, "%d timelines of an earlier split are still there",
				left)
		}
		if time.Now().After(deadline) || !nap(ctx, lookPause) {
			return splitFailed(ctx, parent.Shard, err)
		}
	}
}

// buryOnce goes once over some children and counts what they have and should not.
func (p *Splits) buryOnce(
	ctx context.Context, children []neon.ShardID, node *fsm.Node, inv inventory,
) (left int, failed error) {
	for _, child := range children {
		list, err := p.Calls.TimelineIDs(ctx, node, child)
		if err != nil {
			return left, err
		}
		for _, id := range list {
			if inv.timelines[id] {
				continue
			}
			left++
			// One that has branches goes when those are gone.
			if _, err := p.Calls.TimelineDelete(ctx, node, child, id); err != nil {
				p.Logger.Info("A deleted timeline is back after a split", "shard", child.String(),
					"timeline", id.String(), "err", err)
			}
		}
	}
	return left, nil
}
