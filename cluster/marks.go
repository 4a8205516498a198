package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

const (
	// markPause is the pause between two marks of a server that takes entries, and
	// progressPause that between two writes of how far the others are.
	markPause     = 5 * time.Second
	progressPause = 30 * time.Second
	// markLimit bounds a write of either. A disk that hangs is not waited for.
	markLimit = time.Second
)

// marks notes on this server's disk how far the disk has come, and how far those of the
// others have. Both only say that something was there, so that a note that is old or
// missing raises no alarm.
type marks struct {
	node  *raftNode
	disks *datadir.KnownDisks
	log   *slog.Logger

	mu      sync.Mutex // one mark at a time
	written store.Mark
}

// newMarks remembers the last leader of the process before.
func newMarks(c *Cluster) *marks {
	m := &marks{node: c.node, disks: c.self.disks, log: c.log}
	if c.cfg.DataDir == "" {
		return m
	}
	if last, err := store.ReadMark(c.cfg.DataDir); err == nil {
		m.written.Leader = last.Leader
	}
	return m
}

func (m *marks) run(ctx context.Context) {
	mark, progress := time.NewTicker(markPause), time.NewTicker(progressPause)
	defer mark.Stop()
	defer progress.Stop()
	for {
		select {
		case <-mark.C:
			m.mark(ctx)
		case <-progress.C:
			m.progress(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// mark notes how far this server is, if it has come further.
func (m *marks) mark(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.node.raft()
	now := store.Mark{
		Term: r.CurrentTerm(), Index: m.node.appliedOnDisk(), Leader: m.node.leader(),
		Contact: r.LastContact().UTC(),
	}
	if m.node.leads() {
		now.Contact = time.Now().UTC()
	}
	now, changed := succeeds(now, m.written)
	if !changed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, markLimit)
	defer cancel()
	if err := m.node.store.SetMark(ctx, now); err != nil {
		m.log.Debug("the position is not noted", "err", err)
		return
	}
	m.written = now
}

// succeeds is the mark that is written after another, and whether there is something to
// write. The last leader stays known: who is stopped while nobody leads must not look like
// one that led itself.
func succeeds(now, written store.Mark) (store.Mark, bool) {
	if now.Leader == "" {
		now.Leader = written.Leader
	}
	return now, now.Term != written.Term || now.Index != written.Index ||
		now.Leader != written.Leader
}

func (m *marks) progress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, markLimit)
	defer cancel()
	if err := m.node.store.Write(ctx, m.disks.SaveProgress); err != nil {
		m.log.Debug("the progress of the others is not noted", "err", err)
	}
}

// last notes both before the end.
func (m *marks) last() {
	m.progress(context.Background())
	m.mark(context.Background())
}
