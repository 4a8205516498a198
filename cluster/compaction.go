package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
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

	// replayBytes is how much of the log a server that starts applies again at most, unless
	// its newest snapshot is larger than that. So the time of a start is bounded by what the
	// state needs anyhow, and snapshots cost no more than the log does.
	replayBytes = 256 << 10

	// applyRate is how many bytes of a snapshot are read in the time that applying has taken.
	// An entry may be short and change many records, and what a start has to apply again is
	// that work. A snapshot of 100,000 shards is read at 60 MB/s and more.
	applyRate = 50 << 20 // bytes a second

	// replayPause is the least pause between two snapshots for that reason while the log is
	// written, and replayRest how long it has to be at rest for a snapshot that comes sooner.
	// The files of a snapshot make the journal of a file system write what others have left
	// there, and a write of the log may have to wait for that.
	replayPause = 30 * time.Second
	replayRest  = 2 * time.Second

	// compactionRetry is the pause after a snapshot that could not be taken.
	compactionRetry = 10 * time.Second
)

// compaction takes a snapshot when the log has become too large, and shortens the log; and
// when too much of the log is behind the newest snapshot.
type compaction struct {
	node  *raftNode
	limit int64 // bytes
	log   *slog.Logger
	grown wait.Signal

	snapshotBytes func() int64 // of the newest snapshot

	// unsaved is what is behind the newest snapshot: the bytes of the entries, and those of
	// a snapshot that could have been read in the time that it took to apply them
	unsaved atomic.Int64
	pausing atomic.Bool  // the next snapshot because of them is set already
	written atomic.Int64 // when the log was last written, in Unix nanoseconds
	saved   time.Time    // when the last one was tried; only run uses it
}

// appended is called after each write of the log.
func (c *compaction) appended(bytes int) {
	c.written.Store(time.Now().UnixNano())
	c.add(int64(bytes), c.node.store.LogBytes() > c.limit)
}

// applied is called after entries were applied.
func (c *compaction) applied(took time.Duration) {
	c.add(int64(took.Seconds()*applyRate), false)
}

func (c *compaction) add(unsaved int64, full bool) {
	unsaved = c.unsaved.Add(unsaved)
	if full || unsaved > c.replayed() && !c.pausing.Load() {
		c.grown.Set()
	}
}

// took notes the index of the newest snapshot.
func (c *compaction) took(index uint64) { c.unsaved.Store(c.node.store.BytesAfter(index)) }

// replayed is how much may be behind the newest snapshot, in bytes.
func (c *compaction) replayed() int64 { return max(replayBytes, c.snapshotBytes()) }

// run takes snapshots until ctx ends.
func (c *compaction) run(ctx context.Context) {
	var due <-chan time.Time
	for {
		select {
		case <-c.grown:
		case <-due:
			due = nil
			c.pausing.Store(false)
		case <-ctx.Done():
			return
		}
		rests := time.Since(time.Unix(0, c.written.Load())) >= replayRest
		switch early := !rests && time.Since(c.saved) < replayPause; {
		case c.node.store.LogBytes() > c.limit:
			if c.bound(ctx) != nil {
				return
			}
		case due != nil || c.unsaved.Load() <= c.replayed():
		case early:
			due = time.After(replayRest)
			c.pausing.Store(true)
		default:
			if c.save() != nil && wait.Sleep(ctx, compactionRetry) != nil {
				return
			}
		}
	}
}

// bound shortens the log. The error is that of ctx.
func (c *compaction) bound(ctx context.Context) error {
	bytes := c.node.store.LogBytes()
	err := c.shorten()
	if err == nil {
		c.log.Info("shortened the log, which was too large", "bytes", bytes,
			"now", c.node.store.LogBytes())
		return nil
	}
	// Without a new entry there is nothing to take; the next one tries again.
	if !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		c.log.Info("the log is too large and cannot be shortened yet", "bytes", bytes,
			"err", err)
	}
	return wait.Sleep(ctx, compactionRetry)
}

// save takes a snapshot. One that cannot be taken now is tried again after a pause.
func (c *compaction) save() error {
	err := c.node.await(c.node.raft().Snapshot())
	c.saved = time.Now()
	switch {
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		c.unsaved.Store(0)
		return nil
	case err != nil:
		c.log.Debug("no snapshot yet", "err", err)
		c.grown.Set()
	}
	return err
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
