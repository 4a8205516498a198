package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// caughtUp is how many entries a newcomer may lack when it gets its vote.
const caughtUp = 64

// AddMember adds a server, first without a vote; it gets one when it has caught
// up. It can be repeated: for a member it does what is missing, and records a
// new address. Only the leader can. Ending ctx leaves the server without a vote.
func (c *Cluster) AddMember(ctx context.Context, m Member) error {
	if err := c.VerifyLeader(ctx); err != nil {
		return err
	}
	id, addr := raft.ServerID(m.ID), raft.ServerAddress(m.RaftAddr)
	servers := c.servers()
	if len(servers) >= maxServers {
		return fmt.Errorf("cluster: already %d members", len(servers))
	}
	c.peers.learn(greeting{ID: m.ID, Raft: m.RaftAddr})
	var have *raft.Server
	for _, s := range servers {
		if s.ID == id {
			have = &s
		}
	}
	if have != nil && have.Suffrage == raft.Voter && have.Address == addr {
		return nil
	}
	if have == nil {
		if err := c.changeConfiguration(c.raft.AddNonvoter(id, addr, 0,
			c.timeouts.Election)); err != nil {
			return fmt.Errorf("add %s: %w", m.ID, err)
		}
		c.log.Info("added a server, without a vote yet", "member", m.ID, "addr", m.RaftAddr)
	}
	c.peers.poke()
	if have == nil || have.Suffrage != raft.Voter {
		if err := c.awaitCaughtUp(ctx, m.ID); err != nil {
			return fmt.Errorf("%s has no vote yet: %w", m.ID, err)
		}
	}
	if err := c.changeConfiguration(c.raft.AddVoter(id, addr, 0, c.timeouts.Election)); err != nil {
		return fmt.Errorf("give %s a vote: %w", m.ID, err)
	}
	c.log.Info("member has a vote", "member", m.ID)
	return nil
}

// RemoveMember removes a server from the membership. The leader does not remove
// itself: it hands over and answers ErrNotLeader, for the caller to try again.
func (c *Cluster) RemoveMember(ctx context.Context, id string) error {
	if err := c.VerifyLeader(ctx); err != nil {
		return err
	}
	if id == c.id {
		if err := c.TransferLeadership(ctx, ""); err != nil {
			return err
		}
		return ErrNotLeader
	}
	if c.peers.configured(id) == "" {
		return fmt.Errorf("%w: %s", ErrUnknownMember, id)
	}
	if err := c.changeConfiguration(c.raft.RemoveServer(raft.ServerID(id), 0,
		c.timeouts.Election)); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	c.log.Info("removed a member", "member", id)
	return nil
}

func (c *Cluster) changeConfiguration(f raft.Future) error {
	err := c.await(f)
	if err == nil {
		c.peers.poke()
		return nil
	}
	if errors.Is(err, raft.ErrEnqueueTimeout) {
		return fmt.Errorf("another change is under way: %w", err)
	}
	return submitError(err)
}

// awaitCaughtUp asks the server for its state until its log is near ours.
func (c *Cluster) awaitCaughtUp(ctx context.Context, id string) error {
	for {
		if l := c.peers.link(id); l != nil {
			r, err := c.peers.ask(ctx, l)
			if err == nil && r.AppliedIndex+caughtUp >= c.raft.CommitIndex() && !r.Empty {
				return nil
			}
		}
		if c.raft.State() != raft.Leader {
			return ErrNotLeader
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}

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
	Sick         bool   `json:"sick"`
	// EqualAt is the newest index at which its state was found equal to that of this
	// server; 0 when it was not, or is not known. Diverged says why it is out of service.
	EqualAt  uint64 `json:"equal_at"`
	Diverged string `json:"diverged,omitempty"`
	// Level is its Config.Level as it was when the standing connection was made; 0
	// while it is not connected.
	Level uint64 `json:"level"`
}

// Members returns the membership.
func (c *Cluster) Members() []MemberStatus {
	_, leader := c.raft.LeaderWithID()
	commit := c.raft.CommitIndex()
	var out []MemberStatus
	for _, s := range c.servers() {
		id := string(s.ID)
		m := MemberStatus{
			ID: id, RaftAddr: string(c.peers.address(s.ID, s.Address)), HTTPAddr: c.httpAddr(id),
			Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader, Self: id == c.id,
			LastContact: -1,
		}
		if m.Self {
			m.fill(c.report(), commit)
			m.RaftAddr, m.Connected, m.LastContact, m.Level = c.cfg.Advertise, true, 0, c.cfg.Level
			m.EqualAt = m.AppliedIndex
		} else if l := c.peers.link(id); l != nil {
			if m.Connected = l.up(); m.Connected {
				m.Level = c.peers.level(id)
			}
			if seen := l.seen.Load(); seen != 0 {
				m.LastContact = time.Since(time.Unix(0, seen))
			}
			if r := l.report.Load(); r != nil {
				m.fill(*r, commit)
			}
			if x := l.compared.Load(); x != nil && x.equal {
				m.EqualAt = x.at
			}
		}
		out = append(out, m)
	}
	return out
}

func (m *MemberStatus) fill(r peerReport, commit uint64) {
	m.AppliedIndex, m.Term, m.State, m.Sick = r.AppliedIndex, r.Term, r.State, r.Sick
	m.Diverged = r.Diverged
	if commit > r.AppliedIndex {
		m.Lag = commit - r.AppliedIndex
	}
}
