package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// Changes of the membership. Each of them can be repeated, by this leader or the next
// one: it does what is missing. Each first asks whether the members after it have a live
// majority.

const (
	// caughtUp is how many entries a newcomer may lack when it gets its vote.
	caughtUp = 64

	// catchUpPause is the pause between two questions to a server that catches up.
	catchUpPause = 20 * time.Millisecond

	// longestSilence is how long a newcomer may give no answer while it catches up. Then
	// its addition is taken back.
	longestSilence = 5 * time.Second
)

// add is AddMember.
func (m *membership) add(ctx context.Context, member Member) error {
	added, err := m.addStandby(ctx, member)
	if err != nil || m.node.isVoter(member.ID) {
		return err
	}
	err = m.promote(ctx, member.ID)
	if added && errors.Is(err, ErrPeerUnreachable) && m.node.leads() {
		return errors.Join(err, m.takeBack(member.ID))
	}
	return err
}

// addStandby is AddStandby. It reports whether the server was no member before.
func (m *membership) addStandby(ctx context.Context, member Member) (added bool, err error) {
	if err := m.reads.verifyLead(ctx); err != nil {
		return false, err
	}
	have, known := m.node.find(member.ID)
	if known && string(have.Address) == member.RaftAddr {
		return false, m.whoAnswers(ctx, member)
	}
	if n := len(m.node.servers()); !known && n >= maxServers {
		return false, fmt.Errorf("%w: %d, and no more are possible; remove one first",
			ErrTooManyMembers, n)
	}
	if known { // at another address
		err = m.founding.find(ctx, member)
	} else {
		err = m.founding.invite(ctx, member)
	}
	if err == nil {
		err = m.ownAddress(member)
	}
	if err != nil {
		return false, fmt.Errorf("%s at %s cannot join: %w", member.ID, member.RaftAddr, err)
	}
	// Of a voter that is one already, this changes the address only.
	if err := m.change(m.node.raft().AddNonvoter(raft.ServerID(member.ID),
		raft.ServerAddress(member.RaftAddr), 0, m.node.timeouts.Election)); err != nil {
		return false, fmt.Errorf("add %s: %w", member.ID, err)
	}
	m.log.Info("added a server, without a vote yet", "member", member.ID,
		"addr", member.RaftAddr)
	return !known, nil
}

// ownAddress returns an error if the membership has another server at the address: each
// has one of its own. That one cannot be there any more.
func (m *membership) ownAddress(member Member) error {
	for _, s := range m.node.servers() {
		if id := string(s.ID); id != member.ID && string(s.Address) == member.RaftAddr {
			return fmt.Errorf("%w: that is the address of the member %s; replace %s by it "+
				"(storcon_cli cluster replace %s %s), or remove %s first", ErrRefused, id, id, id,
				member.ID, id)
		}
	}
	return nil
}

// whoAnswers returns an error if somebody else answers at the address of a member: one that
// has its id and another disk is never let in, so it must not be said to be a member.
func (m *membership) whoAnswers(ctx context.Context, member Member) error {
	if m.answers(member.ID) {
		return nil
	}
	err := m.founding.find(ctx, member)
	if err == nil || errors.Is(err, ErrPeerUnreachable) {
		return nil
	}
	return fmt.Errorf("%s at %s cannot join: %w", member.ID, member.RaftAddr, err)
}

// alone waits until no other change of the membership is between its check and its end:
// two that are both safe may not be safe together.
func (m *membership) alone(ctx context.Context) (done func(), err error) {
	select {
	case m.changing <- struct{}{}:
		return func() { <-m.changing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.ctx.Done():
		return nil, ErrClosed
	}
}

// promote gives a member its vote once it has caught up.
func (m *membership) promote(ctx context.Context, id string) error {
	if err := m.awaitCaughtUp(ctx, id); err != nil {
		return fmt.Errorf("%s has no vote yet: %w", id, err)
	}
	done, err := m.alone(ctx)
	if err != nil {
		return fmt.Errorf("give %s a vote: %w", id, err)
	}
	defer done()
	if m.node.isVoter(id) {
		return nil
	}
	if err := m.checkMajority(ctx, append(m.voters(), id)); err != nil {
		return fmt.Errorf("give %s a vote: %w", id, err)
	}
	have, known := m.node.find(id)
	if !known {
		return fmt.Errorf("give %s a vote: %w", id, ErrUnknownMember)
	}
	if err := m.change(m.node.raft().AddVoter(have.ID, have.Address, 0,
		m.node.timeouts.Election)); err != nil {
		return fmt.Errorf("give %s a vote: %w", id, err)
	}
	m.log.Info("member has a vote", "member", id)
	return nil
}

// takeBack removes a server that was added and went away before it had a vote.
func (m *membership) takeBack(id string) error {
	done, err := m.alone(m.ctx)
	if err != nil {
		return err
	}
	defer done()
	if m.node.isVoter(id) {
		return nil // another call has given it a vote meanwhile
	}
	if err := m.change(m.node.raft().RemoveServer(raft.ServerID(id), 0,
		m.node.timeouts.Election)); err != nil {
		return fmt.Errorf("take the addition of %s back: %w", id, err)
	}
	m.log.Warn("took the addition of a server back: it went away before it had caught up",
		"member", id)
	return fmt.Errorf("the addition of %s was taken back", id)
}

// remove is RemoveMember.
func (m *membership) remove(ctx context.Context, id string) error {
	if err := m.reads.verifyLead(ctx); err != nil {
		return err
	}
	done, err := m.alone(ctx)
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	defer done()
	if !m.node.isMember(id) {
		forgotten, err := m.self.predecessors.forget(id) // of the cluster that was rescued
		switch {
		case err != nil:
			return fmt.Errorf("forget %s, of the cluster that was rescued: %w", id, err)
		case forgotten:
			m.log.Info("its address is free: it was a member of the cluster that was rescued",
				"member", id)
			return nil
		case m.peers.left(id):
			return nil // it was removed before
		}
		return m.unknown(id)
	}
	left := slices.DeleteFunc(m.voters(), func(v string) bool { return v == id })
	if len(left) == 0 {
		return fmt.Errorf("%w: %s; the state would go with it. Add another member first; to end "+
			"the cluster, stop it", ErrLastVoter, id)
	}
	// One that takes no part is missing already: without it no more answers are needed.
	if err := m.checkMajority(ctx, left); err != nil && m.node.isVoter(id) && m.takesPart(id) {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	if id == m.node.id {
		if err := m.transfer.handOver(ctx, ""); err != nil {
			return fmt.Errorf("remove the leader %s: hand over first: %w", id, err)
		}
		return fmt.Errorf("%w any more: leadership was handed over, since the next leader "+
			"removes %s", ErrNotLeader, id)
	}
	if err := m.change(m.node.raft().RemoveServer(raft.ServerID(id), 0,
		m.node.timeouts.Election)); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	m.log.Info("removed a member", "member", id)
	if _, err := m.self.predecessors.forget(id); err != nil {
		return fmt.Errorf("%s is removed, but its address is not free: %w", id, err)
	}
	return nil
}

// replace is ReplaceMember.
func (m *membership) replace(ctx context.Context, old string, by Member) error {
	if err := m.reads.verifyLead(ctx); err != nil {
		return err
	}
	have, known := m.node.find(old)
	switch {
	case old == by.ID:
		return fmt.Errorf("%w: %s cannot replace itself; the newcomer needs another id",
			ErrRefused, old)
	case !known && !m.peers.left(old) && !m.node.isMember(by.ID):
		return m.unknown(old)
	case known && string(have.Address) == by.RaftAddr && !m.node.isMember(by.ID):
		return m.takePlace(ctx, have, by)
	case known && have.Suffrage != raft.Voter:
		if _, err := m.addStandby(ctx, by); err != nil {
			return err
		}
	default:
		if err := m.add(ctx, by); err != nil {
			return err
		}
	}
	if !known {
		return nil // an earlier try has removed it
	}
	return m.remove(ctx, old)
}

// takePlace replaces a member by a server at the same address. The member cannot be there
// any more, so it is removed first: raft has each address once.
func (m *membership) takePlace(ctx context.Context, old raft.Server, by Member) error {
	if err := m.founding.invite(ctx, by); err != nil {
		return fmt.Errorf("%s at %s cannot join: %w", by.ID, by.RaftAddr, err)
	}
	if err := m.remove(ctx, string(old.ID)); err != nil {
		return err
	}
	if old.Suffrage == raft.Voter {
		return m.add(ctx, by)
	}
	_, err := m.addStandby(ctx, by)
	return err
}

// unknown is the error about an id that no member has.
func (m *membership) unknown(id string) error {
	var known []string
	for _, s := range m.node.servers() {
		known = append(known, string(s.ID))
	}
	return fmt.Errorf("%w: %s; the members are %s", ErrUnknownMember, id,
		strings.Join(known, ", "))
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

// answers reports whether a member answers now.
func (m *membership) answers(id string) bool {
	l := m.peers.link(id)
	return id == m.node.id || l != nil && l.answers()
}

// takesPart reports whether a member answers, and can write what it is sent: a majority
// that counts one whose disk hangs commits nothing.
func (m *membership) takesPart(id string) bool {
	if id == m.node.id {
		return true
	}
	r := m.peers.report(id)
	return m.answers(id) && (r == nil || !r.Sick && r.Diverged == "" && !r.Empty)
}

// checkMajority refuses voters of whom no majority takes part: the change to them would
// be the last thing that the cluster does. What they have last said of themselves may be
// old, and a link be new: so they have time to say it once more.
func (m *membership) checkMajority(ctx context.Context, voters []string) error {
	for began := time.Now(); ; {
		silent := slices.DeleteFunc(slices.Clone(voters), m.takesPart)
		if live := len(voters) - len(silent); live > len(voters)/2 {
			return nil
		}
		if time.Since(began) > 2*reportInterval || wait.Sleep(ctx, catchUpPause) != nil {
			return fmt.Errorf("%w: of the %d voters after it, %s would not answer, or not write; "+
				"start or mend them, or remove those first that are gone for good",
				ErrNoMajority, len(voters), strings.Join(silent, ", "))
		}
	}
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
	heard := time.Now()
	for {
		if l := m.peers.link(id); l != nil {
			r, err := l.askReport(ctx)
			if err == nil && r.AppliedIndex+caughtUp >= m.node.raft().CommitIndex() && !r.Empty {
				return nil
			}
			if err == nil {
				heard = time.Now()
			}
		}
		if !m.node.leads() {
			return ErrNotLeader
		}
		if silence := time.Since(heard); silence > longestSilence {
			return fmt.Errorf("%w: it has not answered for %s; look at its log, or remove it",
				ErrPeerUnreachable, silence.Round(time.Second))
		}
		select {
		case <-time.After(catchUpPause):
		case <-ctx.Done():
			if time.Since(heard) > 2*reportInterval {
				return fmt.Errorf("%w: %w", ErrPeerUnreachable, ctx.Err())
			}
			return ctx.Err()
		case <-m.ctx.Done():
			return ErrClosed
		}
	}
}
