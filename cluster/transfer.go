package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// TransferLeadership hands leadership to the member toID, or to the most up to
// date healthy voter if toID is empty. From its start on, contexts of
// RunWhileLeader are cancelled and new proposals get ErrNotLeader; those already
// submitted are committed first. If it fails, this server goes on leading.
func (c *Cluster) TransferLeadership(ctx context.Context, toID string) error {
	if c.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	target, err := c.transferTarget(ctx, toID)
	if err != nil {
		return err
	}
	resume := c.leadership.pause()
	defer resume()
	c.drainProposals(ctx)
	future := c.raft.LeadershipTransferToServer(target.ID, target.Address)
	// Raft gives up by itself after an election timeout.
	if err := c.await(future); err != nil {
		if errors.Is(err, raft.ErrNotLeader) {
			return ErrNotLeader
		}
		return fmt.Errorf("cluster: hand leadership to %s: %w", target.ID, err)
	}
	return nil
}

// drainProposals waits, for at most half an election timeout, until what was
// submitted has its result.
func (c *Cluster) drainProposals(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Election/2)
	defer cancel()
	for c.proposer.inFlight.Load() > 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// transferTarget picks the voter with the best log among those that answer and
// are healthy.
func (c *Cluster) transferTarget(ctx context.Context, toID string) (raft.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Election/2)
	defer cancel()
	type answer struct {
		server raft.Server
		report peerReport
		err    error
	}
	answers := make(chan answer, maxServers)
	asked := 0
	for _, s := range c.servers() {
		if string(s.ID) == c.id || s.Suffrage != raft.Voter ||
			(toID != "" && string(s.ID) != toID) {
			continue
		}
		l := c.peers.link(string(s.ID))
		if l == nil || asked == cap(answers) {
			continue
		}
		if c.background.Go(func() {
			r, err := c.peers.ask(ctx, l)
			answers <- answer{s, r, err}
		}) {
			asked++
		}
	}
	var best *answer
	for ; asked > 0; asked-- {
		a := <-answers // ask ends with ctx at the latest
		if a.err == nil && !a.report.Sick && a.report.Diverged == "" &&
			(best == nil || betterLog(a.report, best.report)) {
			best = &a
		}
	}
	if best == nil {
		if toID != "" {
			return raft.Server{}, fmt.Errorf("%w: %s is no healthy voter within reach",
				ErrUnknownMember, toID)
		}
		return raft.Server{}, fmt.Errorf("%w: no healthy voter to hand over to", ErrPeerUnreachable)
	}
	return best.server, nil
}

func betterLog(a, b peerReport) bool {
	if a.LastTerm != b.LastTerm {
		return a.LastTerm > b.LastTerm
	}
	return a.LastIndex > b.LastIndex
}
