package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// silentAfter is how long a member may give no answer and still count as connected. It is
// asked each reportInterval.
const silentAfter = 3 * reportInterval

// MemberStatus is what this server knows of a member.
type MemberStatus struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
	HTTPAddr string `json:"http_addr,omitempty"`
	Voter    bool   `json:"voter"`
	Leader   bool   `json:"leader"`
	Self     bool   `json:"self"`
	// Connected: the standing connection to it is up, and it has answered within the last
	// three seconds. A frozen process, and one behind a cut link, keep their connections.
	Connected bool `json:"connected"`
	// LastContact is the time since it last answered; negative: never.
	LastContact time.Duration `json:"last_contact_ns"`
	// AppliedIndex as it last reported it, at most a second ago if Connected;
	// Lag is how far that is behind the commit index here.
	AppliedIndex uint64 `json:"applied_index"`
	Lag          uint64 `json:"lag"`
	Term         uint64 `json:"term"`
	State        string `json:"state"`
	// Sick: its disk keeps it from leading. SickReason says how.
	Sick       bool   `json:"sick"`
	SickReason string `json:"sick_reason,omitempty"`
	// EqualAt is the newest index at which its state was found equal to that of this
	// server; 0 when it was not, or is not known. Diverged says why it is out of service.
	EqualAt  uint64 `json:"equal_at"`
	Diverged string `json:"diverged,omitempty"`
	// Level is its Config.Level as it was when the standing connection was made; 0
	// while it is not connected.
	Level uint64 `json:"level"`
	// Version is its Config.Version, "" while it was never connected. Uptime is how long
	// its process runs, as it last reported it.
	Version string        `json:"version"`
	Uptime  time.Duration `json:"uptime_ns"`
}

// Equality says whether the member's state is that of this server, as it was last
// compared: equal, diverged, or unknown while they were not compared.
func (s MemberStatus) Equality() string {
	switch {
	case s.Diverged != "":
		return "diverged"
	case s.Connected && s.EqualAt > 0:
		return "equal"
	}
	return "unknown"
}

// LeaderInfo says where the leader is. HTTPAddr is empty until this server has talked
// to the leader once.
type LeaderInfo struct {
	ID, RaftAddr, HTTPAddr string
}

// membership changes and describes who is in the cluster.
type membership struct {
	ctx      context.Context // ends when the cluster is closed
	node     *raftNode
	self     *identity
	peers    *peers
	reads    *reads
	transfer *transfer
	founding *founding
	changing chan struct{} // holds one token while the membership is being changed
	reporter reporter
	log      *slog.Logger
}

// list is Members.
func (m *membership) list() []MemberStatus {
	leader := m.node.leader()
	commit := m.node.raft().CommitIndex()
	var out []MemberStatus
	for _, s := range m.node.servers() {
		id := string(s.ID)
		st := MemberStatus{
			ID: id, RaftAddr: string(m.peers.address(s.ID, s.Address)), HTTPAddr: m.httpAddr(id),
			Voter: s.Suffrage == raft.Voter, Leader: id == leader, Self: id == m.node.id,
			LastContact: -1,
		}
		if st.Self {
			st.fill(m.reporter.report(), commit)
			st.RaftAddr, st.Connected = m.self.advertise, true
			st.LastContact, st.Level, st.Version = 0, m.self.level, m.self.version
			st.EqualAt = st.AppliedIndex
		} else if l := m.peers.link(id); l != nil {
			if seen := l.seen.Load(); seen != 0 {
				st.LastContact = time.Since(time.Unix(0, seen))
			}
			st.Connected = l.answers()
			who := m.peers.greeting(id)
			if st.Version = who.Version; st.Connected {
				st.Level = who.Level
			}
			if r := l.report.Load(); r != nil {
				st.fill(*r, commit)
			}
			if x := l.compared.Load(); x != nil && x.equal {
				st.EqualAt = x.at
			}
		}
		out = append(out, st)
	}
	return out
}

func (s *MemberStatus) fill(r peerReport, commit uint64) {
	s.AppliedIndex, s.Term, s.State = r.AppliedIndex, r.Term, r.State
	s.Sick, s.SickReason, s.Diverged = r.Sick, r.SickReason, r.Diverged
	s.Uptime = time.Duration(r.Uptime) * time.Second
	if commit > r.AppliedIndex {
		s.Lag = commit - r.AppliedIndex
	}
}

// leader is Leader.
func (m *membership) leader() (LeaderInfo, bool) {
	addr, id := m.node.raft().LeaderWithID()
	if id == "" {
		return LeaderInfo{}, false
	}
	return LeaderInfo{
		ID: string(id), RaftAddr: string(addr), HTTPAddr: m.httpAddr(string(id)),
	}, true
}

func (m *membership) httpAddr(id string) string {
	if id == m.node.id {
		return m.self.httpAddr
	}
	if !m.node.isMember(id) {
		return "" // another server claims to lead
	}
	return m.peers.greeting(id).HTTP
}
