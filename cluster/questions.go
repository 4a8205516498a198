package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
)

// callAsk asks the leader what only it knows. The body is the term of the server that
// asks, and then questions, each after its length. So is the answer, without the term. An
// answer that is empty, or missing at the end, was not given.
const callAsk byte = 0x22

const (
	// maxAnswers bounds the answers of one frame, in bytes, and maxQuestions their number.
	maxAnswers   = maxPeerFrame - 1024
	maxQuestions = 64
	maxQuestion  = 256 // bytes
)

// questions carries the questions of many callers to the leader, all that have come
// meanwhile at a time.
type questions struct {
	reads    *reads
	answerer func(b, question []byte) []byte // Config.Answer

	mu      sync.Mutex
	running bool
	next    *enquiry
}

// enquiry is some questions that are asked together.
type enquiry struct {
	done      chan struct{}
	questions [][]byte
	answers   [][]byte
	err       error
}

// ask is AskLeader.
func (q *questions) ask(ctx context.Context, question []byte) ([]byte, error) {
	if len(question) > maxQuestion {
		return nil, fmt.Errorf("a question of %d bytes", len(question))
	}
	q.mu.Lock()
	if q.next != nil && len(q.next.questions) == maxQuestions {
		q.mu.Unlock()
		return nil, ErrOverloaded
	}
	if q.next == nil {
		q.next = &enquiry{done: make(chan struct{})}
	}
	mine, at := q.next, len(q.next.questions)
	mine.questions = append(mine.questions, question)
	if !q.running {
		q.running = q.reads.background.Go(q.run)
	}
	q.mu.Unlock()
	select {
	case <-mine.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-q.reads.ctx.Done():
		return nil, ErrClosed
	}
	if mine.err != nil {
		return nil, mine.err
	}
	if at >= len(mine.answers) {
		return nil, nil
	}
	return mine.answers[at], nil
}

func (q *questions) run() {
	for {
		runtime.Gosched() // those that are about to ask are asked for too
		q.mu.Lock()
		now := q.next
		q.next = nil
		q.running = now != nil
		q.mu.Unlock()
		if now == nil {
			return
		}
		now.answers, now.err = q.send(q.reads.ctx, now.questions)
		close(now.done)
	}
}

// send asks the leader. The term is read after the questions have come, so that it proves
// to the leader of that term that nobody has led since, see reads.provenBy.
func (q *questions) send(ctx context.Context, all [][]byte) (answers [][]byte, err error) {
	r := q.reads
	ctx, cancel := context.WithTimeout(ctx, r.node.timeouts.Election)
	defer cancel()
	l := r.peers.link(r.node.leader())
	if l == nil {
		return nil, fmt.Errorf("%w: no leader known", ErrNotLeader)
	}
	body := binary.BigEndian.AppendUint64(nil, r.node.raft().CurrentTerm())
	for _, question := range all {
		body = binary.AppendUvarint(body, uint64(len(question)))
		body = append(body, question...)
	}
	body, err = l.call(ctx, callAsk, body)
	if err != nil {
		return nil, err
	}
	return parts(body)
}

// answer answers the questions of the server from. Each answer holds everything that was
// acknowledged before they came.
func (q *questions) answer(ctx context.Context, from string, body []byte) ([]byte, error) {
	if q.answerer == nil || len(body) < 8 {
		return nil, errPeerFrame
	}
	term := binary.BigEndian.Uint64(body)
	all, err := parts(body[8:])
	if err != nil || len(all) > maxQuestions {
		return nil, errPeerFrame
	}
	index, term, err := q.reads.indexFor(ctx, from, term)
	if err != nil {
		return nil, err
	}
	if err := q.reads.waitApplied(ctx, index, term); err != nil {
		return nil, err
	}
	if no := q.reads.refusal(); no != nil {
		return nil, no
	}
	var out, one []byte
	for _, question := range all {
		one = q.answerer(one[:0], question)
		if len(out)+binary.MaxVarintLen32+len(one) > maxAnswers {
			one = one[:0]
		}
		out = binary.AppendUvarint(out, uint64(len(one)))
		out = append(out, one...)
	}
	return out, nil
}

// parts takes apart what has a length before each part. The parts alias b.
func parts(b []byte) (all [][]byte, err error) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, errPeerFrame
		}
		end := n + int(size)
		all = append(all, b[n:end:end])
		b = b[end:]
	}
	return all, nil
}
