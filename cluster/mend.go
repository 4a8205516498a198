package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// callState asks for the state of a server. The answer is a head in an answerPart
// (index, scheme and hash, u64 each), the state in further ones, and an empty answerOK.
const (
	callState  byte = 0x21
	answerPart byte = 0x82

	stateHead   = 24
	maxPart     = 32 << 10
	maxState    = 1 << 30 // bytes that a state may take on the way
	maxReapply  = 1 << 14 // entries that are applied again on top of it
	maxSending  = 2       // states that a server sends at once
	mendTimeout = 2 * time.Minute

	firstMendPause   = reportInterval
	longestMendPause = 5 * time.Minute
)

var (
	errReplaced = errors.New("the state was replaced while it was saved: save it again")

	errAhead   = errors.New("the state is ahead of the log that raft has handed over; try later")
	errBusy    = errors.New("busy with sending the state to others")
	errOther   = errors.New("the state that came is not the one that was announced")
	errTooMuch = errors.New("the state is larger than a server may send")
)

// mend replaces the state of this server by that of the majority. A difference that
// comes back costs ever longer pauses.
func (e *equality) mend(ctx context.Context, d *divergence) {
	if time.Now().Before(e.mendNext) {
		return
	}
	e.mendPause = min(max(2*e.mendPause, firstMendPause), longestMendPause)
	if time.Since(e.mendNext) > 2*longestMendPause { // also the first time
		e.mendPause = firstMendPause
	}
	for _, id := range d.sources {
		if id == e.node.id {
			continue
		}
		err := e.mendFrom(ctx, id)
		if err == nil {
			e.mended.Add(1)
			e.snapshotOwed = true
			e.log.Info("replaced the state of this replica by that of another",
				"from", id, "index", e.fsm.applied.index())
			e.snapshot()
			break
		}
		e.log.Info("could not replace the state of this replica", "from", id, "err", err)
	}
	e.mendNext = time.Now().Add(e.mendPause)
}

// mendFrom fetches the state of a server while entries go on being applied here, and
// puts it in the place of ours between two of them.
func (e *equality) mendFrom(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	conn, err := e.peers.dial(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(appendPeerFrame(nil, peerFrame{kind: callState, id: 1})); err != nil {
		return err
	}
	state, err := readState(bufio.NewReader(conn))
	if err != nil {
		return err
	}
	return e.fsm.replace(state, e.node.store)
}

// movedState is the state of another server at an index.
type movedState struct {
	index, scheme, hash uint64
	content             bytes.Buffer
}

func readState(r io.Reader) (*movedState, error) {
	s := &movedState{}
	for first := true; ; first = false {
		f, err := readPeerFrame(r)
		switch {
		case err != nil:
			return nil, err
		case f.kind == answerRefused:
			return nil, refusalError(f.body)
		case f.kind == answerOK && !first:
			return s, nil
		case f.kind != answerPart, first && len(f.body) != stateHead:
			return nil, errPeerFrame
		case first:
			s.index = binary.BigEndian.Uint64(f.body)
			s.scheme = binary.BigEndian.Uint64(f.body[8:])
			s.hash = binary.BigEndian.Uint64(f.body[16:])
		case s.content.Len()+len(f.body) > maxState:
			return nil, errTooMuch
		default:
			s.content.Write(f.body)
		}
	}
}

// send streams the state of this server as answers to the call with that id. The frame
// that ends them is the caller's.
func (e *equality) send(ctx context.Context, id uint64, out *outbox) error {
	select {
	case e.fsm.sending <- struct{}{}:
		defer func() { <-e.fsm.sending }()
	default:
		return errBusy
	}
	if why := e.diverged(); why != "" {
		return fmt.Errorf("%w: %s", ErrDiverged, why)
	}
	head, state, err := e.fsm.capture()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	parts := &partWriter{ctx: ctx, id: id, out: out}
	if _, err := parts.Write(head); err != nil {
		return err
	}
	_, err = state.WriteTo(parts)
	return err
}

// partWriter sends what is written in frames.
type partWriter struct {
	ctx context.Context
	id  uint64
	out *outbox
}

func (w *partWriter) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		part := b[n:min(len(b), n+maxPart)]
		if err = w.out.send(w.ctx, peerFrame{kind: answerPart, id: w.id, body: part}); err == nil {
			n += len(part)
		}
	}
	return n, err
}

// snapshot saves the new state, so that no older snapshot brings the wrong one back. It
// is tried again while raft has not handed over all that is in it.
func (e *equality) snapshot() {
	err := e.node.await(e.node.raft().Snapshot())
	e.snapshotOwed = err != nil
	if err != nil {
		e.log.Debug("the replaced state is to be saved again", "err", err)
	}
}

// capture is the head of an answer to callState, and the state that follows.
func (f *fsm) capture() (head []byte, state io.WriterTo, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.digest == nil {
		return nil, nil, errPeerFrame
	}
	if state, err = f.machine.Snapshot(); err != nil {
		return nil, nil, err
	}
	scheme, hash := f.digest.Digest()
	head = binary.BigEndian.AppendUint64(nil, f.applied.index())
	head = binary.BigEndian.AppendUint64(head, scheme)
	return binary.BigEndian.AppendUint64(head, hash), state, nil
}

// replace puts the state of another server in the place of ours. Entries that it does
// not have and that were applied here are applied again; those that it has and that raft
// has still to hand over are passed over then.
func (f *fsm) replace(s *movedState, log raft.LogStore) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing, err := entriesBetween(log, s.index, f.applied.index())
	if err != nil {
		return err
	}
	if err := f.machine.Restore(&s.content); err != nil {
		return err
	}
	f.origins.Add(1)
	f.points.forget()
	scheme, hash := f.digest.Digest()
	f.ahead = s.index
	f.applied.advance(s.index)
	if scheme == s.scheme && hash != s.hash {
		return errOther
	}
	f.note(s.index)
	f.applyAll(missing)
	return nil
}

// entriesBetween reads the commands after one index up to another from the log.
func entriesBetween(log raft.LogStore, after, to uint64) (entries []*raft.Log, err error) {
	if to > after+maxReapply {
		return nil, fmt.Errorf("%d entries were applied meanwhile", to-after)
	}
	for i := after + 1; i <= to; i++ {
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			entries = append(entries, &l)
		}
	}
	return entries, nil
}
