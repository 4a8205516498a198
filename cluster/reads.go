package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rounds lets many callers share one round of questions. A caller only ever
// joins a round that starts after it came: the answers of a round under way may
// be older than the caller.
type rounds struct {
	ask func(ctx context.Context) (index, term uint64, err error)
	ctx context.Context
	wg  *group

	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done        chan struct{}
	index, term uint64
	err         error
}

// join returns what the next round finds.
func (r *rounds) join(ctx context.Context) (index, term uint64, err error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = r.wg.Go(r.run)
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.term, mine.err
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-r.ctx.Done():
		return 0, 0, ErrClosed
	}
}

func (r *rounds) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.running = now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		now.index, now.term, now.err = r.ask(r.ctx)
		close(now.done)
	}
}

// confirmLead proves that this server led at some moment after the call began,
// and returns the index a read must wait for.
//
// It does not use raft's VerifyLeader, which also counts heartbeat answers that
// were under way before the question. A voter that still is in our term now has
// not voted in a later one; a majority of them means that no later leader can
// have acknowledged anything before the call.
func (c *Cluster) confirmLead(ctx context.Context) (index, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Election)
	defer cancel()
	lead := c.currentLead()
	if lead == nil {
		return 0, 0, ErrNotLeader
	}
	select {
	case <-lead.ready:
	case <-lead.ctx.Done():
		return 0, 0, ErrNotLeader
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("%w: still opening its term", ErrNotLeader)
	}
	index = c.raft.CommitIndex()
	if err := c.majorityIn(ctx, lead.term); err != nil {
		return 0, 0, err
	}
	if c.raft.State() != raft.Leader || c.raft.CurrentTerm() != lead.term {
		return 0, 0, ErrNotLeader
	}
	return index, lead.term, nil
}

// majorityIn returns nil if a majority of the voters, with us, is in the term.
func (c *Cluster) majorityIn(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	voters, asked := 0, 0
	same := make(chan bool, maxServers)
	for _, s := range c.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		l := c.peers.link(string(s.ID))
		if l == nil || asked == cap(same) {
			continue
		}
		asked++
		c.background.Go(func() {
			body, err := l.call(ctx, callTerm, nil)
			theirs, bad := oneUint64(body)
			same <- err == nil && bad == nil && theirs == term
		})
	}
	need := voters/2 + 1 - 1 // we count for ourselves
	for ; need > 0 && asked >= need; asked-- {
		select {
		case ok := <-same:
			if ok {
				need--
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: no majority answered", ErrNotLeader)
		}
	}
	if need > 0 {
		return fmt.Errorf("%w: no majority answered", ErrNotLeader)
	}
	return nil
}

// VerifyLeader returns nil if this server led its term at some moment after the
// call began, else ErrNotLeader. Concurrent calls share a round of questions.
func (c *Cluster) VerifyLeader(ctx context.Context) error {
	_, _, err := c.leaderReads.join(ctx)
	return c.closedOr(err)
}

// ReadBarrier returns nil once the local Machine has applied everything that
// was acknowledged, by any server, before the call. It works on every replica:
// a follower asks the leader how far to wait. While there is no leader it goes
// on trying until ctx ends; the error then wraps ErrNotLeader and the context's. It is
// ErrDiverged on a replica that is out of service.
func (c *Cluster) ReadBarrier(ctx context.Context) error {
	delay := 2 * time.Millisecond
	for {
		err := c.readOnce(ctx)
		if !c.equality.sound() {
			return fmt.Errorf("%w: %s", ErrDiverged, c.equality.diverged())
		}
		if err == nil {
			return nil
		}
		if c.ctx.Err() != nil {
			return ErrClosed
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, 50*time.Millisecond)
		case <-ctx.Done():
			if errors.Is(err, ErrNotLeader) {
				return fmt.Errorf("%w: %w", err, ctx.Err())
			}
			return fmt.Errorf("%w: %w", ErrNotLeader, ctx.Err())
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}

func (c *Cluster) readOnce(ctx context.Context) error {
	reads := c.followerReads
	if c.currentLead() != nil {
		reads = c.leaderReads
	}
	index, term, err := reads.join(ctx)
	if err != nil {
		return err
	}
	return c.waitApplied(ctx, index, term)
}

// askLeader fetches a read index over the link to the leader.
func (c *Cluster) askLeader(ctx context.Context) (index, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Election)
	defer cancel()
	_, id := c.raft.LeaderWithID()
	l := c.peers.link(string(id))
	if l == nil {
		return 0, 0, fmt.Errorf("%w: no leader known", ErrNotLeader)
	}
	body, err := l.call(ctx, callReadIndex, nil)
	if err != nil {
		return 0, 0, err
	}
	return twoUint64(body)
}

// waitApplied waits until the machine is at index, which the leader of term said
// is committed. A follower would hear of the commit with the next append or after
// CommitTimeout; since it knows already, it tells its own raft.
func (c *Cluster) waitApplied(ctx context.Context, index, term uint64) error {
	delay := time.Millisecond
	for c.fsm.applied.index() < index {
		if c.raft.State() == raft.Follower && c.raft.CommitIndex() < index &&
			c.raft.LastIndex() >= index {
			c.commitKnown(index, term)
		}
		step, cancel := context.WithTimeout(ctx, delay)
		_ = c.fsm.applied.wait(step, index)
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.ctx.Err() != nil {
			return ErrClosed
		}
		delay = min(2*delay, 20*time.Millisecond)
	}
	return nil
}

// commitKnown delivers to our raft the empty append that the leader of term
// would send. All of it is true: the leader's entry at index is of its own term,
// since a leader answers reads only after an entry of its term is committed.
func (c *Cluster) commitKnown(index, term uint64) {
	addr, id := c.raft.LeaderWithID()
	if id == "" || c.raft.CurrentTerm() != term {
		return
	}
	c.transport.call(&raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(addr),
		},
		Term:              term,
		PrevLogEntry:      index,
		PrevLogTerm:       term,
		LeaderCommitIndex: index,
	}, 100*time.Millisecond)
}
