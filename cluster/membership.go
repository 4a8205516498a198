package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// caughtUp is how many entries a newcomer may lack when it gets its vote.
const caughtUp = 64

// MemberStatus is what this server knows of a member.
type MemberStatus struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
	HTTPAddr string `json:"http_addr,omitempty"`
	Voter    bool   `json:"voter"`
	Leader   bool   `json:"leader"`
	Self     bool   `json:"self"`
	// Connected: the standing connection to it is up.
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
	invite   func(ctx context.Context, m Member) error
	reporter reporter
	log      *slog.Logger
}

// catchUpPause is the pause between two questions to a server that catches up.
const catchUpPause = 20 * time.Millisecond

// add is AddMember.
func (m *membership) add(ctx context.Context, member Member) error {
	if err := m.reads.verifyLead(ctx); err != nil {
		return err
	}
	id, addr := raft.ServerID(member.ID), raft.ServerAddress(member.RaftAddr)
	if n := len(m.node.servers()); n >= maxServers {
		return fmt.Errorf("cluster: already %d members", n)
	}
	m.peers.learn(greeting{ID: member.ID, Raft: member.RaftAddr})
	have, known := m.node.find(member.ID)
	votes := known && have.Suffrage == raft.Voter
	if votes && have.Address == addr {
		return nil
	}
	limit := m.node.timeouts.Election
	if !known {
		if err := m.invite(ctx, member); err != nil {
			return fmt.Errorf("%s at %s cannot join: %w", member.ID, member.RaftAddr, err)
		}
		if err := m.change(m.node.raft().AddNonvoter(id, addr, 0, limit)); err != nil {
			return fmt.Errorf("add %s: %w", member.ID, err)
		}
		m.log.Info("added a server, without a vote yet", "member", member.ID,
			"addr", member.RaftAddr)
	}
	m.peers.wake.Set()
	if !votes {
		if err := m.awaitCaughtUp(ctx, member.ID); err != nil {
			return fmt.Errorf("%s has no vote yet: %w", member.ID, err)
		}
	}
	if !votes {
		if err := m.checkMajority(append(m.voters(), member.ID)); err != nil {
			return fmt.Errorf("give %s a vote: %w", member.ID, err)
		}
	}
	if err := m.change(m.node.raft().AddVoter(id, addr, 0, limit)); err != nil {
		return fmt.Errorf("give %s a vote: %w", member.ID, err)
	}
	m.log.Info("member has a vote", "member", member.ID)
	return nil
}

// remove is RemoveMember.
func (m *membership) remove(ctx context.Context, id string) error {
	if err := m.reads.verifyLead(ctx); err != nil {
		return err
	}
	if id == m.node.id {
		if err := m.transfer.handOver(ctx, ""); err != nil {
			return err
		}
		return ErrNotLeader
	}
	if !m.node.isMember(id) {
		return fmt.Errorf("%w: %s", ErrUnknownMember, id)
	}
	left := slices.DeleteFunc(m.voters(), func(v string) bool { return v == id })
	if err := m.checkMajority(left); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	if err := m.change(m.node.raft().RemoveServer(raft.ServerID(id), 0,
		m.node.timeouts.Election)); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	m.log.Info("removed a member", "member", id)
	return nil
}

// voters returns the ids of the voters.
func (m *membership) voters() (out []string) {
	for _, s := range m.node.servers() {
		if s.Suffrage == raft.Voter {
			out = append(out, string(s.ID))
		}
	}
	return out
}

// checkMajority refuses voters of whom no majority answers: the change to them would
// be the last thing that the cluster does.
func (m *membership) checkMajority(voters []string) error {
	var silent []string
	for _, id := range voters {
		if l := m.peers.link(id); id != m.node.id && (l == nil || !l.up()) {
			silent = append(silent, id)
		}
	}
	if live := len(voters) - len(silent); live > len(voters)/2 {
		return nil
	}
	return fmt.Errorf("%w: of the %d voters after it, %s would not answer; "+
		"start them, or remove those first that are gone for good",
		ErrNoMajority, len(voters), strings.Join(silent, ", "))
}

// change waits for the end of a change of the membership.
func (m *membership) change(f raft.Future) error {
	err := m.node.await(f)
	if err == nil {
		m.peers.wake.Set()
		return nil
	}
	if errors.Is(err, raft.ErrEnqueueTimeout) {
		return fmt.Errorf("another change is under way: %w", err)
	}
	return submitError(err)
}

// awaitCaughtUp asks the server for its state until its log is near ours. Only the
// server itself knows how far it is, so it has to be asked again and again.
func (m *membership) awaitCaughtUp(ctx context.Context, id string) error {
	for {
		if l := m.peers.link(id); l != nil {
			r, err := l.askReport(ctx)
			if err == nil && r.AppliedIndex+caughtUp >= m.node.raft().CommitIndex() && !r.Empty {
				return nil
			}
		}
		if !m.node.leads() {
			return ErrNotLeader
		}
		select {
		case <-time.After(catchUpPause):
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ctx.Done():
			return ErrClosed
		}
	}
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
			st.LastContact, st.Level = 0, m.self.level
			st.EqualAt = st.AppliedIndex
		} else if l := m.peers.link(id); l != nil {
			if st.Connected = l.up(); st.Connected {
				st.Level = m.peers.greeting(id).Level
			}
			if seen := l.seen.Load(); seen != 0 {
				st.LastContact = time.Since(time.Unix(0, seen))
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
		return "" // whoever else claims to lead
	}
	return m.peers.greeting(id).HTTP
}
