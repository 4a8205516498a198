package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// transfer hands leadership over, when asked to and when the disk fails.
type transfer struct {
	ctx        context.Context
	background *group
	node       *raftNode
	peers      *peers
	leadership *leadership
	health     *store.Health
	log        *slog.Logger
	// drain waits, for a while, until what was submitted has its result.
	drain func(ctx context.Context)

	yielding atomic.Bool // a search for another leader is under way
}

const (
	// yieldTries is how often a server whose disk fails asks others to lead.
	yieldTries = 10

	// handOverTries is how often a server tries to hand leadership over. Raft gives a try
	// up after an election timeout, which a member that has just been added, or a busy
	// machine, may miss. Writes go on between two tries.
	handOverTries = 3
)

// handOver is TransferLeadership.
func (t *transfer) handOver(ctx context.Context, toID string) (err error) {
	for range handOverTries {
		if !t.node.leads() {
			return ErrNotLeader
		}
		var target raft.Server
		if target, err = t.target(ctx, toID); err != nil {
			return err
		}
		if err = t.handTo(ctx, target); err == nil || errors.Is(err, ErrNotLeader) {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// handTo tries once to hand leadership to a server.
func (t *transfer) handTo(ctx context.Context, target raft.Server) error {
	resume := t.leadership.pause()
	defer resume()
	t.drain(ctx)
	future := t.node.raft().LeadershipTransferToServer(target.ID, target.Address)
	// Raft gives up by itself after an election timeout.
	if err := t.node.await(future); err != nil {
		if errors.Is(err, raft.ErrNotLeader) {
			return ErrNotLeader
		}
		return fmt.Errorf("cluster: hand leadership to %s: %w", target.ID, err)
	}
	return nil
}

// target picks the voter with the best log among those that answer and are healthy.
func (t *transfer) target(ctx context.Context, toID string) (raft.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, t.node.timeouts.Election/2)
	defer cancel()
	type answer struct {
		server raft.Server
		report peerReport
		err    error
	}
	answers := make(chan answer, maxServers)
	asked := 0
	voters, _ := t.node.otherVoters()
	for _, s := range voters {
		l := t.peers.link(string(s.ID))
		if l == nil || asked == cap(answers) || (toID != "" && string(s.ID) != toID) {
			continue
		}
		if t.background.Go(func() {
			r, err := l.askReport(ctx)
			answers <- answer{s, r, err}
		}) {
			asked++
		}
	}
	var best *answer
	for ; asked > 0; asked-- {
		a := <-answers // askReport ends with ctx at the latest
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

// yieldIfDiskFails begins a search for another leader if the disk does not work. It
// may be called on raft's own goroutines, so it only starts things.
func (t *transfer) yieldIfDiskFails() {
	if t.health.Works() || !t.yielding.CompareAndSwap(false, true) {
		return
	}
	if !t.background.Go(func() {
		defer t.yielding.Store(false)
		t.yield()
	}) {
		t.yielding.Store(false)
	}
}

// yield asks the healthy voter with the best log to stand for election. Raft's own
// hand-over needs raft's main loop, and that may be what hangs. The election rules
// still decide, so asking is always safe.
func (t *transfer) yield() {
	if !t.node.leads() && !t.leadership.lostRecently() {
		return
	}
	for range yieldTries {
		target, err := t.target(t.ctx, "")
		if err == nil {
			req := &raft.TimeoutNowRequest{RPCHeader: t.node.header()}
			err = t.node.transport.TimeoutNow(target.ID, target.Address, req,
				&raft.TimeoutNowResponse{})
		}
		if err == nil {
			t.log.Info("asked another server to lead, since the disk is unhealthy",
				"target", target.ID, "reason", t.health.Report().Reason)
		}
		ctx, cancel := context.WithTimeout(t.ctx, t.node.timeouts.Election/2)
		taken := t.leadership.awaitOther(ctx)
		cancel()
		if taken || t.ctx.Err() != nil || t.health.Works() {
			return
		}
	}
}
