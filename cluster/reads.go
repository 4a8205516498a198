package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rounds lets many callers share one round of questions. A caller only joins a round
// that starts after it came: the answers of a round under way may be older than the
// caller.
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
		runtime.Gosched() // callers that are about to come share the round
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

// reads makes reads linearizable, on the leader and on every other replica.
type reads struct {
	ctx        context.Context // ends when the cluster is closed
	background *group
	node       *raftNode
	peers      *peers
	leadership *leadership
	applied    *progress
	refusal    func() error // why nothing is answered here, or nil

	ofLeader, ofFollower rounds

	first raft.ServerID // the voter that answered the last round of ofLeader first
}

func newReads(
	ctx context.Context, background *group, node *raftNode, peers *peers,
	leadership *leadership, applied *progress, refusal func() error,
) *reads {
	r := &reads{
		ctx: ctx, background: background, node: node, peers: peers, leadership: leadership,
		applied: applied, refusal: refusal,
	}
	r.ofLeader.ask, r.ofLeader.ctx, r.ofLeader.wg = r.confirmLead, ctx, background
	r.ofFollower.ask, r.ofFollower.ctx, r.ofFollower.wg = r.askLeader, ctx, background
	return r
}

// confirmLead proves that this server led at some moment after the call began. It
// returns the index that a read must wait for.
//
// It does not use raft's VerifyLeader, which also counts heartbeat answers that were
// under way before the question. A voter that is in our term now has not voted in a
// later one. If that holds for a majority, no later leader can have acknowledged
// anything before the call.
func (r *reads) confirmLead(ctx context.Context) (index, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.node.timeouts.Election)
	defer cancel()
	lead := r.leadership.current()
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
	index = r.node.raft().CommitIndex()
	if err := r.majorityIn(ctx, lead.term); err != nil {
		return 0, 0, err
	}
	if !r.node.leads() || r.node.raft().CurrentTerm() != lead.term {
		return 0, 0, ErrNotLeader
	}
	return index, lead.term, nil
}

// hedge is how long a round waits for the voters that it asks first. The others are asked
// then too. They need not be asked, as a rule, and a call costs both ends several wake-ups.
const hedge = 2 * time.Millisecond

// majorityIn returns nil if a majority of the voters, this server included, is in the
// term. It asks those first that have answered first before.
func (r *reads) majorityIn(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	others, majority := r.node.otherVoters()
	slices.SortStableFunc(others, func(a, b raft.Server) int {
		return cmp.Compare(r.rank(a), r.rank(b))
	})
	same := make(chan raft.ServerID, maxServers) // empty: it is in another term, or silent
	need := majority - 1                         // this server counts for itself
	asked := r.askTerm(ctx, term, others[:min(need, len(others))], same)
	rest := others[min(need, len(others)):]
	late := time.NewTimer(hedge)
	defer late.Stop()
	for need > 0 {
		if asked+len(rest) < need {
			return fmt.Errorf("%w: no majority answered", ErrNotLeader)
		}
		if asked < need { // one has not confirmed it
			asked += r.askTerm(ctx, term, rest, same)
			rest = nil
			continue
		}
		select {
		case id := <-same:
			asked--
			if id != "" {
				need--
				r.first = id
			}
		case <-late.C:
			asked += r.askTerm(ctx, term, rest, same)
			rest = nil
		case <-ctx.Done():
			return fmt.Errorf("%w: no majority answered", ErrNotLeader)
		}
	}
	return nil
}

func (r *reads) rank(s raft.Server) int {
	if s.ID == r.first {
		return 0
	}
	return 1
}

// askTerm asks servers for their terms, and returns how many of them answer.
func (r *reads) askTerm(
	ctx context.Context, term uint64, servers []raft.Server, same chan<- raft.ServerID,
) (asked int) {
	for _, s := range servers {
		l := r.peers.link(string(s.ID))
		if l == nil || asked == maxServers {
			continue
		}
		asked++
		r.background.Go(func() {
			body, err := l.call(ctx, callTerm, nil)
			theirs, bad := oneUint64(body)
			if err != nil || bad != nil || theirs != term {
				s.ID = ""
			}
			same <- s.ID
		})
	}
	return asked
}

// indexOf answers callReadIndex.
func (r *reads) indexOf(
	ctx context.Context, from string, body []byte,
) (index, term uint64, err error) {
	if len(body) > 0 {
		if term, err = oneUint64(body); err != nil {
			return 0, 0, err
		}
	}
	return r.indexFor(ctx, from, term)
}

// indexFor returns the index that a read of another server must wait for. That server was
// in theirs after the read came; zero: it has not said.
func (r *reads) indexFor(
	ctx context.Context, from string, theirs uint64,
) (index, term uint64, err error) {
	if index, ok := r.provenBy(from, theirs); ok {
		return index, theirs, nil
	}
	return r.ofLeader.join(ctx)
}

// provenBy reports whether this server and the one that asks are a majority, in the term
// that this server leads. The other one says in which term it was after the read came.
// Neither has voted in a later term before the read, so no later leader can have
// acknowledged anything before it, and nobody else has to be asked.
func (r *reads) provenBy(from string, term uint64) (index uint64, ok bool) {
	lead := r.leadership.current()
	if lead == nil || lead.term != term || lead.ctx.Err() != nil {
		return 0, false
	}
	select {
	case <-lead.ready:
	default:
		return 0, false
	}
	others, majority := r.node.otherVoters()
	if majority > 2 || !slices.ContainsFunc(others, func(s raft.Server) bool {
		return string(s.ID) == from
	}) {
		return 0, false
	}
	index = r.node.raft().CommitIndex()
	return index, r.node.leads() && r.node.raft().CurrentTerm() == term
}

// verifyLead returns nil if this server led its term at some moment after the call began,
// else ErrNotLeader.
func (r *reads) verifyLead(ctx context.Context) error {
	_, _, err := r.ofLeader.join(ctx)
	if err != nil && r.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// The pauses between two tries of a barrier.
const (
	barrierRetryMin = 2 * time.Millisecond
	barrierRetryMax = 50 * time.Millisecond
)

// barrier is ReadBarrier.
func (r *reads) barrier(ctx context.Context) error {
	delay := barrierRetryMin
	for {
		err := r.once(ctx)
		if no := r.refusal(); no != nil {
			return no
		}
		if err == nil {
			return nil
		}
		if r.ctx.Err() != nil {
			return ErrClosed
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, barrierRetryMax)
		case <-ctx.Done():
			if errors.Is(err, ErrNotLeader) {
				return fmt.Errorf("%w: %w", err, ctx.Err())
			}
			return fmt.Errorf("%w: %w", ErrNotLeader, ctx.Err())
		case <-r.ctx.Done():
			return ErrClosed
		}
	}
}

// now is ReadNow.
func (r *reads) now(ctx context.Context) error {
	err := r.once(ctx)
	if no := r.refusal(); no != nil {
		return no
	}
	if err != nil && r.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

func (r *reads) once(ctx context.Context) error {
	of := &r.ofFollower
	if r.leadership.leads() {
		of = &r.ofLeader
	}
	index, term, err := of.join(ctx)
	if err != nil {
		return err
	}
	return r.waitApplied(ctx, index, term)
}

// askLeader fetches a read index over the link to the leader.
func (r *reads) askLeader(ctx context.Context) (index, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.node.timeouts.Election)
	defer cancel()
	l := r.peers.link(r.node.leader())
	if l == nil {
		return 0, 0, fmt.Errorf("%w: no leader known", ErrNotLeader)
	}
	// The term is read after the callers came.
	term = r.node.raft().CurrentTerm()
	body, err := l.call(ctx, callReadIndex, binary.BigEndian.AppendUint64(nil, term))
	if err != nil {
		return 0, 0, err
	}
	return twoUint64(body)
}

// waitApplied waits until the machine is at index, which the leader of term said is
// committed. A follower would hear of the commit with the next append, or after
// Timeouts.Commit. Since it knows already, it tells its own raft.
func (r *reads) waitApplied(ctx context.Context, index, term uint64) error {
	if r.applied.index() >= index {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*r.node.timeouts.Election)
	defer cancel()
	delay := time.Millisecond
	for r.applied.index() < index {
		raftNow := r.node.raft()
		if raftNow.State() == raft.Follower && raftNow.CommitIndex() < index &&
			raftNow.LastIndex() >= index {
			r.commitKnown(index, term)
		}
		step, cancel := context.WithTimeout(ctx, delay)
		_ = r.applied.wait(step, index)
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.ctx.Err() != nil {
			return ErrClosed
		}
		delay = min(2*delay, 20*time.Millisecond)
	}
	return nil
}

// commitKnown delivers to our raft the empty append that the leader of term would
// send. All of it is true. The leader's entry at index is of its own term, since a
// leader answers reads only after an entry of its term is committed.
func (r *reads) commitKnown(index, term uint64) {
	addr, id := r.node.raft().LeaderWithID()
	if id == "" || r.node.raft().CurrentTerm() != term {
		return
	}
	r.node.transport.call(&raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(addr),
		},
		Term:              term,
		PrevLogEntry:      index,
		PrevLogTerm:       term,
		LeaderCommitIndex: index,
	}, 100*time.Millisecond)
}
