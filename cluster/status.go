package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Status is this server's view of itself, for metrics and debugging.
type Status struct {
	ID           string `json:"id"`
	ClusterID    string `json:"cluster_id"`
	State        string `json:"state"` // Follower, Candidate, Leader or Shutdown
	Leader       string `json:"leader"`
	Term         uint64 `json:"term"`
	LastIndex    uint64 `json:"last_index"`
	CommitIndex  uint64 `json:"commit_index"`
	AppliedIndex uint64 `json:"applied_index"`

	// Sick: the disk is, or was until a moment ago, unhealthy; SickReason says how.
	Sick       bool   `json:"sick"`
	SickReason string `json:"sick_reason,omitempty"`
	// Diverged says why this server is out of service, since its state is not that of
	// the others; "" when it is not. Mended counts how often it got theirs.
	Diverged string `json:"diverged,omitempty"`
	Mended   uint64 `json:"mended"`
	// LastWrite and SlowestWrite are durations of writes, fsync included.
	LastWrite    time.Duration `json:"last_write_ns"`
	SlowestWrite time.Duration `json:"slowest_write_ns"`

	// TermsLed counts leads this server began, CrashElections those that the
	// crash detector called for.
	TermsLed       uint64    `json:"terms_led"`
	CrashElections uint64    `json:"crash_elections"`
	LeaderChanged  time.Time `json:"leader_changed"` // when the known leader last changed
	InFlight       int       `json:"in_flight"`      // proposals without a result
	// Laggards are members that are connected but have not come closer to the
	// commit index for half a minute. Only the leader looks.
	Laggards []string `json:"laggards,omitempty"`
}

// Status returns the current values.
func (c *Cluster) Status() Status {
	_, leader := c.raft.LeaderWithID()
	s := Status{
		ID: c.id, ClusterID: c.ClusterID(), State: c.raft.State().String(), Leader: string(leader),
		Term: c.raft.CurrentTerm(), LastIndex: c.raft.LastIndex(),
		CommitIndex:  c.raft.CommitIndex(),
		AppliedIndex: c.fsm.applied.index(), Sick: !c.health.fit(), InFlight: len(c.proposer.slots),
	}
	s.Diverged, s.Mended = c.equality.diverged(), c.equality.mended.Load()
	h := c.health
	h.mu.Lock()
	if s.Sick && h.cause != nil {
		s.SickReason = h.cause.Error()
	}
	s.LastWrite, s.SlowestWrite = h.last, h.slowest
	h.mu.Unlock()
	l := c.leadership
	l.mu.Lock()
	s.TermsLed, s.LeaderChanged = l.wins, l.since
	l.mu.Unlock()
	c.crash.mu.Lock()
	s.CrashElections = c.crash.fires
	c.crash.mu.Unlock()
	c.lag.mu.Lock()
	defer c.lag.mu.Unlock()
	for id, f := range c.lag.followers {
		if f.stuck {
			s.Laggards = append(s.Laggards, id)
		}
	}
	return s
}

// lagLimit is how long a follower may be connected, behind, and come no closer.
// The library has two bugs that starve a follower for ever; only a restart of
// the leader, or a new log for the follower, cures them.
const lagLimit = 30 * time.Second

// lagWatch notices followers that starve.
type lagWatch struct {
	c         *Cluster
	mu        sync.Mutex
	followers map[string]*lagging
}

type lagging struct {
	applied uint64
	since   time.Time // when applied last moved, or the follower was level
	stuck   bool
}

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
	if w.c.raft.State() == raft.Leader {
		members = w.c.Members()
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
			w.c.log.Warn("a member gets no new entries; restart it, then the leader",
				"member", m.ID, "lag", m.Lag)
		}
		w.followers[m.ID] = f
	}
}
