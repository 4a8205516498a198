package cluster

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

const (
	// defaultLogBytes bounds the log by its size. Raft bounds it by the number of its
	// entries only, of which each may have 1 MB.
	defaultLogBytes = 256 << 20

	// tailShare is the part of the bound that is kept behind a snapshot, for followers
	// that lag.
	tailShare = 4

	// compactionRetry is the pause after a snapshot that could not be taken.
	compactionRetry = 10 * time.Second
)

// compaction takes a snapshot when the log has become too large, and shortens the log.
type compaction struct {
	node  *raftNode
	limit int64 // bytes
	log   *slog.Logger
	grown wait.Signal
}

// appended is called after each write of the log.
func (c *compaction) appended() {
	if c.node.store.LogBytes() > c.limit {
		c.grown.Set()
	}
}

// run shortens the log whenever it has grown too large, until ctx ends.
func (c *compaction) run(ctx context.Context) {
	for {
		select {
		case <-c.grown:
		case <-ctx.Done():
			return
		}
		bytes := c.node.store.LogBytes()
		if bytes <= c.limit {
			continue
		}
		err := c.shorten()
		if err == nil {
			c.log.Info("shortened the log, which was too large", "bytes", bytes,
				"now", c.node.store.LogBytes())
			continue
		}
		// Without a new entry there is nothing to take; the next one tries again.
		if !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			c.log.Info("the log is too large and cannot be shortened yet", "bytes", bytes,
				"err", err)
		}
		if wait.Sleep(ctx, compactionRetry) != nil {
			return
		}
	}
}

// shorten takes a snapshot and keeps less of the log behind it than usual.
func (c *compaction) shorten() error {
	r := c.node.raft()
	usual := r.ReloadableConfig()
	less := usual
	less.TrailingLogs = min(usual.TrailingLogs, c.node.store.NewestWithin(c.limit/tailShare))
	if err := r.ReloadConfig(less); err != nil {
		return err
	}
	err := c.node.await(r.Snapshot())
	return errors.Join(err, r.ReloadConfig(usual))
}
