package simpageserver

import (
	"context"
	"fmt"
	"time"

	"quorate/api/neon"
)

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

// Upload uploads what the shard's timelines received since their last upload.
func (n *Node) Upload(shard neon.ShardID) error {
	return n.host.act(shard,
		func(now time.Duration, c *core, s *slot) { c.timelines.uploadAll(now, shard, s) })
}

// Compact merges the layers of each timeline of the shard into one and hands the
// old ones to the deletion queue, which FlushDeletions executes.
func (n *Node) Compact(shard neon.ShardID) error {
	return n.host.act(shard, func(now time.Duration, c *core, s *slot) {
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
	return p.deletions.validateAndExecute(ctx)
}
