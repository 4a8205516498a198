package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

const (
	// maxProposals bounds the commands between Propose and their result.
	maxProposals = 1024
	// maxEntries bounds the log entries between submission and commit. What
	// arrives beyond it is packed into fewer, larger entries.
	maxEntries = 32
	// maxEntryBytes bounds the bytes of those entries: raft writes all it finds
	// waiting in one transaction, during which the leader does nothing else.
	maxEntryBytes = 4 << 20
)

// proposal is one command on its way into the log.
type proposal struct {
	data  []byte
	state atomic.Int32 // waiting, taken or abandoned
	done  chan outcome // buffered
}

type outcome struct {
	result any
	err    error
}

const (
	waiting int32 = iota
	taken
	abandoned
)

// proposer packs concurrent proposals into shared log entries.
type proposer struct {
	c       *Cluster
	slots   chan struct{}  // one per proposal between Propose and its result
	queue   chan *proposal // full only of those that were given up
	entries chan submitted // what settle waits for, in the order of submission

	inFlight atomic.Int64  // entries submitted and without a result
	bytes    atomic.Int64  // of those entries
	settled  chan struct{} // cap 1: bytes has shrunk
}

type submitted struct {
	future raft.ApplyFuture
	batch  []*proposal
	size   int64
}

func newProposer(c *Cluster) *proposer {
	return &proposer{
		c:       c,
		slots:   make(chan struct{}, maxProposals),
		queue:   make(chan *proposal, maxProposals),
		entries: make(chan submitted, maxEntries),
		settled: make(chan struct{}, 1),
	}
}

// Propose replicates one command and returns what the local Machine answered
// when it applied it. Only the leader can propose. See the error variables:
// after ErrOutcomeUnknown the command may take effect, after any other nothing
// happened. A command is never submitted twice.
func (c *Cluster) Propose(ctx context.Context, data []byte) (result any, err error) {
	if len(data) > MaxCommand {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrTooLarge, len(data), MaxCommand)
	}
	if c.closing.Load() {
		return nil, ErrClosed
	}
	if !c.acceptsProposals() {
		return nil, ErrNotLeader
	}
	p := c.proposer
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOverloaded, ctx.Err())
	case <-c.ctx.Done():
		return nil, ErrClosed
	}
	prop := &proposal{data: data, done: make(chan outcome, 1)}
	select {
	case p.queue <- prop:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOverloaded, ctx.Err())
	case <-c.ctx.Done():
		return nil, ErrClosed
	}
	select {
	case o := <-prop.done:
		return o.result, o.err
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	if prop.state.CompareAndSwap(waiting, abandoned) {
		if c.ctx.Err() != nil {
			return nil, ErrClosed
		}
		return nil, fmt.Errorf("%w: %w", ErrOverloaded, ctx.Err())
	}
	select {
	case o := <-prop.done:
		return o.result, o.err
	default:
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// submit packs what is queued into entries, until the cluster closes.
func (p *proposer) submit() {
	defer close(p.entries)
	var carry *proposal
	for {
		batch := p.collect(&carry)
		if batch == nil {
			p.refuseQueued()
			return
		}
		if len(batch) == 0 {
			continue
		}
		if !p.c.acceptsProposals() {
			refuse(batch, ErrNotLeader)
			continue
		}
		commands := make([][]byte, len(batch))
		for i, prop := range batch {
			commands[i] = prop.data
		}
		frame := encodeFrame(commands)
		p.awaitRoom(int64(len(frame)))
		future := p.c.raft.ApplyLog(raft.Log{Data: frame}, 0)
		p.inFlight.Add(1)
		p.entries <- submitted{future, batch, int64(len(frame))}
	}
}

// awaitRoom waits until an entry of this size fits beside those in flight.
func (p *proposer) awaitRoom(size int64) {
	for p.bytes.Load() > 0 && p.bytes.Load()+size > maxEntryBytes {
		select {
		case <-p.settled:
		case <-p.c.raftDown:
			return
		}
	}
	p.bytes.Add(size)
}

// collect waits for a proposal and takes what else is queued, up to one full
// entry. It returns nil when the cluster closes.
func (p *proposer) collect(carry **proposal) []*proposal {
	first := *carry
	*carry = nil
	if first == nil {
		select {
		case first = <-p.queue:
		case <-p.c.stopProposals:
			return nil
		}
	}
	batch := []*proposal{}
	size := 0
	for prop := first; prop != nil; {
		if size += len(prop.data); size > MaxCommand && len(batch) > 0 {
			*carry = prop
			return batch
		}
		if prop.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, prop)
		}
		if len(batch) == maxFrameCommands {
			return batch
		}
		select {
		case prop = <-p.queue:
		default:
			prop = nil
		}
	}
	return batch
}

func (p *proposer) refuseQueued() {
	for {
		select {
		case prop := <-p.queue:
			if prop.state.CompareAndSwap(waiting, taken) {
				refuse([]*proposal{prop}, ErrClosed)
			}
		default:
			return
		}
	}
}

func refuse(batch []*proposal, err error) {
	for _, prop := range batch {
		prop.done <- outcome{err: err}
	}
}

// settle hands out the results, in the order of submission.
func (p *proposer) settle() {
	for s := range p.entries {
		err := p.c.await(s.future)
		p.inFlight.Add(-1)
		p.bytes.Add(-s.size)
		select {
		case p.settled <- struct{}{}:
		default:
		}
		if err != nil {
			refuse(s.batch, submitError(err))
			continue
		}
		results, _ := s.future.Response().([]any)
		if len(results) < len(s.batch) { // they came with the state of another replica
			refuse(s.batch, ErrOutcomeUnknown)
			continue
		}
		for i, prop := range s.batch {
			prop.done <- outcome{result: results[i]}
		}
	}
}

// submitError sorts raft's errors into the two kinds. The first three are
// answered before raft touches the entry.
func submitError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrNotLeader
	default:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}
