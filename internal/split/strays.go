package split

import (
	"context"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// inventories are the timelines that parents had when their split began.
type inventories struct {
	mu        sync.Mutex
	ofParents map[neon.ShardID]inventory
}

// inventory is what one parent had.
type inventory struct {
	began     uint64 // the split
	timelines map[neon.TimelineID]bool
}

func (v *inventories) put(parent neon.ShardID, inv inventory) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ofParents == nil {
		v.ofParents = make(map[neon.ShardID]inventory)
	}
	v.ofParents[parent] = inv
}

// of finds what a parent had when that split began.
func (v *inventories) of(parent neon.ShardID, sp fsm.Split) (inv inventory, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	inv, ok = v.ofParents[parent]
	return inv, ok && inv.began == sp.Began
}

// forget is for a split that is over.
func (v *inventories) forget(sp fsm.Split) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, parent := range sp.Parents {
		delete(v.ofParents, parent.Shard)
	}
}

// takeInventory notes the timelines of a parent. The tenant is frozen, so whatever
// is created from here on is not acknowledged.
func (p *Splitter) takeInventory(
	ctx context.Context, sp fsm.Split, parent fsm.SplitParent, node *fsm.Node,
) error {
	list, err := p.Pageservers.TimelineIDs(ctx, node, parent.Shard)
	if err != nil {
		return err
	}
	inv := inventory{began: sp.Began, timelines: make(map[neon.TimelineID]bool, len(list))}
	for _, id := range list {
		inv.timelines[id] = true
	}
	p.had.put(parent.Shard, inv)
	return nil
}

// deleteStrayTimelines deletes from the children of one parent every timeline that the parent did
// not have. A split that was aborted leaves the timelines of its time in remote
// storage, under the names of its children. Those that were deleted since would come
// back with the children of the next split.
func (p *Splitter) deleteStrayTimelines(
	ctx context.Context, sp fsm.Split, parent fsm.SplitParent, node *fsm.Node,
) error {
	inv, ok := p.had.of(parent.Shard, sp)
	if !ok {
		return neon.Errorf(neon.Conflict, "Failed to split %s: nobody knows what it had",
			parent.Shard)
	}
	deadline := time.Now().Add(busyTime)
	for {
		left, err := p.deleteStraysOnce(ctx, sp.Children(parent.Shard), node, inv)
		switch {
		case err == nil && left == 0:
			return nil
		case err == nil:
			err = neon.Errorf(neon.Timeout, "%d timelines of an earlier split are still there",
				left)
		}
		if time.Now().After(deadline) || wait.Sleep(ctx, lookPause) != nil {
			return splitFailed(ctx, parent.Shard, err)
		}
	}
}

// deleteStraysOnce goes once over some children and counts what they have and should not.
func (p *Splitter) deleteStraysOnce(
	ctx context.Context, children []neon.ShardID, node *fsm.Node, inv inventory,
) (left int, failed error) {
	for _, child := range children {
		list, err := p.Pageservers.TimelineIDs(ctx, node, child)
		if err != nil {
			return left, err
		}
		for _, id := range list {
			if inv.timelines[id] {
				continue
			}
			left++
			// One that has branches goes when those are gone.
			if _, err := p.Pageservers.TimelineDelete(ctx, node, child, id); err != nil {
				p.Logger.Info("A deleted timeline is back after a split", "shard", child.String(),
					"timeline", id.String(), "err", err)
			}
		}
	}
	return left, nil
}
