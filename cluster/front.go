package cluster

import (
	"context"
	"io"
	"time"
)

// Propose replicates one command and returns what the local Machine answered when it
// applied the command. Only the leader can propose. See the error variables: after
// ErrOutcomeUnknown the command may take effect, after any other nothing happened. A
// command is never submitted twice.
func (c *Cluster) Propose(ctx context.Context, data []byte) (result any, err error) {
	return c.proposer.propose(ctx, data)
}

// ReadBarrier returns nil once the local Machine has applied everything that was
// acknowledged, by any server, before the call. It works on every replica: a follower
// asks the leader how far to wait. While there is no leader it goes on trying until ctx
// ends. The error then wraps ErrNotLeader and the context's. It is ErrDiverged on a
// replica that is out of service.
func (c *Cluster) ReadBarrier(ctx context.Context) error { return c.reads.barrier(ctx) }

// ReadNow is one try of ReadBarrier. It waits for no leader, nor longer than an answer may
// take, and needs no timer as a rule.
func (c *Cluster) ReadNow(ctx context.Context) error { return c.reads.now(ctx) }

// AskLeader has the leader answer a question of at most 256 bytes, from a state that holds
// everything that was acknowledged, by any server, before the call. The answer is empty
// where the leader has none, or where it is too long: then the question is to be asked in
// another way, as after any error. It does not wait for a leader. Concurrent calls share
// messages.
func (c *Cluster) AskLeader(ctx context.Context, question []byte) ([]byte, error) {
	return c.questions.ask(ctx, question)
}

// RunWhileLeader runs f once for each term in which this server leads. It calls f after
// everything of earlier terms is applied. The context of f is cancelled, with the cause
// ErrLeadershipLost, the moment leadership is lost, is being handed over, or the disk is
// found unhealthy. RunWhileLeader joins f before it looks at the next term. After a
// hand-over that failed, f runs again with the same term. RunWhileLeader returns when
// ctx ends, or with the error of f when f failed while it still led.
func (c *Cluster) RunWhileLeader(
	ctx context.Context, f func(ctx context.Context, term uint64) error,
) error {
	return c.leadership.run(ctx, f)
}

// TransferLeadership hands leadership to the member toID, or to the most up to date
// healthy voter if toID is empty. From its start on, contexts of RunWhileLeader are
// cancelled and new proposals get ErrNotLeader. Those already submitted are committed
// first. If it fails, this server goes on leading.
func (c *Cluster) TransferLeadership(ctx context.Context, toID string) error {
	return c.transfer.handOver(ctx, toID)
}

// Leader returns the leader as far as this server knows.
func (c *Cluster) Leader() (LeaderInfo, bool) { return c.membership.leader() }

// IsLeader reports whether this server leads, as far as it knows. For anything that must
// be true use ReadBarrier or AskLeader.
func (c *Cluster) IsLeader() bool { return c.leadership.leads() }

// LeaderChanged returns a channel that is closed when the answer of Leader or of IsLeader
// may have changed. To miss nothing, take it before asking them.
func (c *Cluster) LeaderChanged() <-chan struct{} { return c.leadership.changed.Changed() }

// AddMember adds a server, first without a vote. The server gets a vote when it has
// caught up. Only the leader can. AddMember can be repeated: for a member it does what
// is missing, and records a new address.
//
// A server that is not a member yet must answer under its id and be empty; otherwise the
// error comes within seconds, and nothing has changed. If it goes away before it has caught
// up, its addition is taken back. If ctx ends while it catches up, it stays without a vote.
func (c *Cluster) AddMember(ctx context.Context, m Member) error {
	return c.membership.add(ctx, m)
}

// AddStandby adds a server that gets no vote. It has the state of the others all the same,
// and takes the place of a voter sooner.
func (c *Cluster) AddStandby(ctx context.Context, m Member) error {
	_, err := c.membership.addStandby(ctx, m)
	return err
}

// RemoveMember removes a server from the membership. The leader does not remove itself:
// it hands over and answers ErrNotLeader, for the caller to try again elsewhere. A server
// that is known to have been a member once is removed again without an error.
func (c *Cluster) RemoveMember(ctx context.Context, id string) error {
	return c.membership.remove(ctx, id)
}

// ReplaceMember adds a server, and once that has a vote removes another one. If the other
// one has no vote, the server gets none either. Like AddMember and RemoveMember, it can be
// repeated, by whichever leader.
func (c *Cluster) ReplaceMember(ctx context.Context, old string, by Member) error {
	return c.membership.replace(ctx, old, by)
}

// Applicants returns the servers that wait for an AddMember and have said so to this one
// within the last seconds. What they say has not been verified.
func (c *Cluster) Applicants() []Applicant { return c.waiting.list() }

// Members returns the membership.
func (c *Cluster) Members() []MemberStatus { return c.membership.list() }

// OpenSnapshot takes a snapshot of this server's state, to be written and closed. It waits a
// few seconds until what is on the disk is applied. A server without a leader does not know
// what was committed: then, and whenever entries would be missing, the error is ErrStale,
// unless the mode allows that.
func (c *Cluster) OpenSnapshot(ctx context.Context, mode SaveMode) (*SavedState, error) {
	return c.snapshots.open(ctx, mode)
}

// SnapshotTo takes a snapshot of this server's newest state and saves it to w.
func (c *Cluster) SnapshotTo(ctx context.Context, w io.Writer) error {
	return c.snapshots.saveTo(ctx, w)
}

// SetClusterID tells this server which cluster it is in, once the state machine knows.
// The id is kept in the data directory and compared with that of every peer.
// SetClusterID fails with ErrClusterMismatch if another id is known already.
func (c *Cluster) SetClusterID(id string) error { return c.self.setCluster(id) }

// ClusterID returns the cluster's id, or "" while it is not known.
func (c *Cluster) ClusterID() string { return c.self.cluster() }

// ID is this server's id.
func (c *Cluster) ID() string { return c.self.id }

// AppliedIndex is the index of the last entry that the Machine has applied.
func (c *Cluster) AppliedIndex() uint64 { return c.fsm.applied.index() }

// Leaderless says, while no leader is known, for how long that has been so, which voters
// are missing, and what to do; "" while one is known.
func (c *Cluster) Leaderless() string { return c.service.leaderless(0) }

// OutOfService says why this server must not be asked anything, although it runs: it was
// removed from the cluster, its state is not that of the others, its disk does not work,
// or no leader is known. It is "" while the server is in service.
func (c *Cluster) OutOfService() string { return c.service.reason() }

// CheckProgress returns an error that says what of this server has stood still since the
// last call, or stands still for limit: a call of the Machine, or raft. Then only a new
// process helps. No majority and a disk that hangs are no standstill.
func (c *Cluster) CheckProgress(limit time.Duration) error { return c.standstill.check(limit) }

// Fatal delivers at most one error. After it this server can do nothing more, and the
// process should exit. The disk refuses writes, or the cluster has ended.
func (c *Cluster) Fatal() <-chan error { return c.node.store.Health.Fatal() }

// Status returns the current values.
func (c *Cluster) Status() Status {
	r, disk := c.node.raft(), c.node.store.Health.Report()
	s := Status{
		ID: c.ID(), ClusterID: c.ClusterID(), State: r.State().String(), Leader: c.node.leader(),
		Term: r.CurrentTerm(), LastIndex: r.LastIndex(), CommitIndex: r.CommitIndex(),
		AppliedIndex: c.AppliedIndex(), InFlight: len(c.proposer.slots),
		Sick: !disk.Fit, SickReason: disk.Reason,
		LastWrite: disk.LastWrite, SlowestWrite: disk.SlowestWrite,
		Diverged: c.equality.diverged(), Mended: c.equality.mended.Load(),
		CrashElections: c.crash.count(), Laggards: c.lag.laggards(),
	}
	s.TermsLed, s.LeaderChanges, s.LeaderChanged = c.leadership.counts()
	s.LogBytes, s.SnapshotBytes = c.node.store.LogBytes(), c.fsm.snapshotBytes.Load()
	return s
}
