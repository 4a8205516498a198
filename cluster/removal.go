package cluster

import (
	"log/slog"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// removal finds out that this server was removed from the cluster. The others send
// nothing to a server that they have removed, so it does not learn that from its log. It
// asks its former peers for their reports, and the leader's has the membership.
type removal struct {
	id      string
	members func() (at uint64, ids []string) // the newest that this server knows
	log     *slog.Logger
	changed func(removed bool) // called when the answer has changed

	mu      sync.Mutex
	with    uint64 // the newest committed membership with this server
	without uint64 // and the newest without it
	by      string // the leader that has told of that
	removed bool
}

// hear looks at what the member at the other end of a link has just reported.
func (r *removal) hear(report peerReport) {
	if report.State != raft.Leader.String() || report.MembersAt == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(report.Members, r.id) {
		r.with = max(r.with, report.MembersAt)
	} else {
		r.without, r.by = max(r.without, report.MembersAt), report.ID
	}
	r.judge()
}

// look compares what the leaders have said with a membership that was just applied here.
func (r *removal) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.judge()
}

// judge finds out whether this server was removed. The caller holds the lock.
func (r *removal) judge() {
	newest := r.with
	if at, members := r.members(); slices.Contains(members, r.id) {
		newest = max(newest, at)
	}
	was := r.removed
	r.removed = r.without > newest
	switch {
	case r.removed && !was:
		r.log.Warn("this server was removed from the cluster and does nothing more; stop it. "+
			"To have it back, start it with an empty data directory and another --server-id, "+
			"with --join, and add it", "by", r.by)
	case was && !r.removed:
		r.log.Info("this server is a member of the cluster again")
	}
	if r.removed != was {
		r.changed(r.removed)
	}
}

// reason says that this server was removed; "" when it was not.
func (r *removal) reason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed {
		return "it was removed from the cluster"
	}
	return ""
}

// committedMembers is the newest membership that is committed, as far as this server has
// applied it. Raft tells the newest one only, and not its index.
type committedMembers struct {
	kept raft.SnapshotStore

	mu  sync.Mutex
	at  uint64
	ids []string
}

// note keeps the membership that an applied entry has, if it has one.
func (c *committedMembers) note(l *raft.Log) {
	if l.Type == raft.LogConfiguration {
		c.set(l.Index, raft.DecodeConfiguration(l.Data))
	}
}

func (c *committedMembers) set(at uint64, members raft.Configuration) {
	ids := make([]string, 0, len(members.Servers))
	for _, s := range members.Servers {
		ids = append(ids, string(s.ID))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at >= c.at {
		c.at, c.ids = at, ids
	}
}

// now returns the membership and its index, which is 0 while none is known.
func (c *committedMembers) now() (at uint64, ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, c.ids
}

// load takes the membership of the newest snapshot. What is in the log comes with the
// entries.
func (c *committedMembers) load() {
	if c.kept == nil {
		return
	}
	if list, err := c.kept.List(); err == nil && len(list) > 0 {
		c.set(list[0].ConfigurationIndex, list[0].Configuration)
	}
}
