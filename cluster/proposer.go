package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
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
	ctx     context.Context // ends when nothing is answered any more
	node    *raftNode
	accepts func() bool // reports whether this server may propose
	observe func(took time.Duration)

	slots   chan struct{}  // one per proposal between Propose and its result
	queue   chan *proposal // full only of those that were given up
	entries chan submitted // what deliver waits for, in the order of submission
	closing atomic.Bool    // new proposals are refused
	stopped chan struct{}  // closed when nothing is submitted any more

	inFlight atomic.Int64   // entries submitted and without a result
	bytes    atomic.Int64   // of those entries
	room     wait.Signal    // bytes has shrunk
	answered wait.Broadcast // inFlight has shrunk
}

type submitted struct {
	future raft.ApplyFuture
	batch  []*proposal
	size   int64
	began  time.Time
}

func newProposer(
	ctx context.Context, node *raftNode, accepts func() bool, observe func(time.Duration),
) *proposer {
	return &proposer{
		ctx: ctx, node: node, accepts: accepts, observe: observe,
		slots:   make(chan struct{}, maxProposals),
		queue:   make(chan *proposal, maxProposals),
		entries: make(chan submitted, maxEntries),
		stopped: make(chan struct{}),
		room:    wait.NewSignal(),
	}
}

// propose is Propose.
func (p *proposer) propose(ctx context.Context, data []byte) (result any, err error) {
	if len(data) > MaxCommand {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrTooLarge, len(data), MaxCommand)
	}
	if p.closing.Load() {
		return nil, ErrClosed
	}
	if !p.accepts() {
		return nil, ErrNotLeader
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOverloaded, ctx.Err())
	case <-p.ctx.Done():
		return nil, ErrClosed
	}
	prop := &proposal{data: data, done: make(chan outcome, 1)}
	select {
	case p.queue <- prop:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOverloaded, ctx.Err())
	case <-p.ctx.Done():
		return nil, ErrClosed
	}
	select {
	case o := <-prop.done:
		return o.result, o.err
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
	if prop.state.CompareAndSwap(waiting, abandoned) {
		if p.ctx.Err() != nil {
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

// submit packs what is queued into entries, until stop.
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
		if !p.accepts() {
			refuse(batch, ErrNotLeader)
			continue
		}
		commands := make([][]byte, len(batch))
		for i, prop := range batch {
			commands[i] = prop.data
		}
		frame := encodeFrame(commands)
		p.awaitRoom(int64(len(frame)))
		began := time.Now()
		future := p.node.raft().ApplyLog(raft.Log{Data: frame}, 0)
		p.inFlight.Add(1)
		p.entries <- submitted{future, batch, int64(len(frame)), began}
	}
}

// awaitRoom waits until an entry of this size fits beside those in flight.
func (p *proposer) awaitRoom(size int64) {
	for p.bytes.Load() > 0 && p.bytes.Load()+size > maxEntryBytes {
		select {
		case <-p.room:
		case <-p.node.down:
			return
		}
	}
	p.bytes.Add(size)
}

// collect waits for a proposal and takes what else is queued, up to one full
// entry. It returns nil after stop.
func (p *proposer) collect(carry **proposal) []*proposal {
	first := *carry
	*carry = nil
	if first == nil {
		select {
		case first = <-p.queue:
		case <-p.stopped:
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

// deliver hands out the results, in the order of submission.
func (p *proposer) deliver() {
	for s := range p.entries {
		err := p.node.await(s.future)
		p.inFlight.Add(-1)
		p.bytes.Add(-s.size)
		p.room.Set()
		p.answered.Notify()
		if err != nil {
			refuse(s.batch, submitError(err))
			continue
		}
		p.observe(time.Since(s.began))
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

// stop ends the submission of proposals.
func (p *proposer) stop() { close(p.stopped) }

// drain waits until what was submitted has its result, for at most half an election
// timeout.
func (p *proposer) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.node.timeouts.Election/2)
	defer cancel()
	for {
		answered := p.answered.Changed()
		if p.inFlight.Load() == 0 {
			return
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return
		}
	}
}

// submitError sorts raft's errors into the two kinds. The first three are answered
// before raft touches the entry.
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
