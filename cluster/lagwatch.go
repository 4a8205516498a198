package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// lagLimit is how long a follower may be connected, behind, and come no closer. Raft
// has two bugs that starve a follower for ever. Only a restart of the leader, or a new
// log for the follower, cures them.
const lagLimit = 30 * time.Second

// lagWatch notices followers that get no new entries.
type lagWatch struct {
	leads   func() bool
	members func() []MemberStatus
	log     *slog.Logger

	mu        sync.Mutex
	followers map[string]*lagging
}

type lagging struct {
	applied uint64
	since   time.Time // when applied last moved, or the follower was level
	stuck   bool
}

// run looks until ctx ends.
func (w *lagWatch) run(ctx context.Context) {
	tick := time.NewTicker(2 * reportInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.look()
		case <-ctx.Done():
			return
		}
	}
}

func (w *lagWatch) look() {
	var members []MemberStatus
	if w.leads() {
		members = w.members()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.followers
	w.followers = make(map[string]*lagging)
	for _, m := range members {
		if m.Self || !m.Connected {
			continue
		}
		f := old[m.ID]
		if f == nil || m.AppliedIndex != f.applied || m.Lag == 0 {
			f = &lagging{applied: m.AppliedIndex, since: time.Now()}
		}
		if !f.stuck && time.Since(f.since) > lagLimit {
			f.stuck = true
			w.log.Warn("a member gets no new entries; restart it, then the leader",
				"member", m.ID, "lag", m.Lag)
		}
		w.followers[m.ID] = f
	}
}

// laggards returns the members that are stuck.
func (w *lagWatch) laggards() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, f := range w.followers {
		if f.stuck {
			ids = append(ids, id)
		}
	}
	return ids
}
