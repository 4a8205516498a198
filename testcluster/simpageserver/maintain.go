package simpageserver

import (
	"context"
	"fmt"
	"time"

	"quorate/api/neon"
)

// validateBatch is how many entries one validate upcall carries.
const validateBatch = 128

// Tick does one round of a running node's background work: uploads, compaction
// and heatmaps of the shards that have timelines, then the deletion queue. The
// error is that of a validate upcall; the lists are kept for the next round.
func (n *Node) Tick(ctx context.Context) error {
	p := n.process()
	if p == nil || !p.work.enter() {
		return fmt.Errorf("tick node %s: %w", n.opt.ID, ErrNotRunning)
	}
	defer p.work.leave()
	return p.tick(ctx)
}

func (p *process) tick(ctx context.Context) error {
	p.with(func(now time.Duration, c *core) {
		for shard, s := range c.slots {
			c.maintain(now, shard, s)
			p.autoOffload(c, shard, s)
		}
	})
	return p.deletions(ctx)
}

// deletions validates and executes the deletion queue.
func (p *process) deletions(ctx context.Context) error {
	for {
		var lists []deletionList
		if !p.with(func(_ time.Duration, c *core) { lists = c.deletions.take(validateBatch) }) ||
			len(lists) == 0 {
			return nil
		}
		items, err := p.validate(ctx, lists)
		if err != nil {
			p.with(func(_ time.Duration, c *core) { c.deletions.putBack(lists) })
			return fmt.Errorf("deletion queue of node %s: %w", p.node.opt.ID, err)
		}
		p.with(func(_ time.Duration, c *core) {
			for i, d := range lists {
				if items[i].valid {
					p.execute(c, d)
				}
			}
		})
	}
}

// execute deletes the layers of one validated list, and is I14.
func (p *process) execute(c *core, d deletionList) {
	oracle := p.node.fleet.opt.Oracle
	newest, known := oracle.newest(d.shard)
	if !known {
		newest = d.gen
	}
	for _, u := range d.layers {
		id := remoteID{d.shard, u.timeline}
		if index, bad := c.store.deleteLayer(id, u.layer, newest, oracle.reader); bad {
			oracle.lost(p.index, id, u.layer, index)
		}
	}
}

// act runs f on an attached shard of a running node.
func (n *Node) act(shard neon.ShardID, f func(now time.Duration, c *core, s *slot)) error {
	p := n.process()
	if p == nil {
		return fmt.Errorf("node %s: %w", n.opt.ID, ErrNotRunning)
	}
	var err error
	if !p.with(func(now time.Duration, c *core) {
		s := c.slots[shard]
		if s == nil || s.busy || !s.mode.attached() {
			err = fmt.Errorf("node %s: shard %s is not attached", n.opt.ID, shard)
			return
		}
		f(now, c, s)
	}) {
		return fmt.Errorf("node %s: %w", n.opt.ID, ErrNotRunning)
	}
	return err
}

// Upload uploads what the shard's timelines received since their last upload.
func (n *Node) Upload(shard neon.ShardID) error {
	return n.act(shard,
		func(now time.Duration, c *core, s *slot) { c.timelines.uploadAll(now, shard, s) })
}

// Compact merges the layers of each timeline of the shard into one and hands the
// old ones to the deletion queue, which FlushDeletions executes.
func (n *Node) Compact(shard neon.ShardID) error {
	return n.act(shard, func(now time.Duration, c *core, s *slot) {
		for _, tl := range c.timelines.remaining(now, shard, s) {
			c.timelines.compact(shard, s, tl)
		}
		c.deletions.enqueue(shard, s)
	})
}

// FlushDeletions validates the deletion queue and executes what is valid.
func (n *Node) FlushDeletions(ctx context.Context) error {
	p := n.process()
	if p == nil || !p.work.enter() {
		return fmt.Errorf("flush deletions of node %s: %w", n.opt.ID, ErrNotRunning)
	}
	defer p.work.leave()
	return p.deletions(ctx)
}
