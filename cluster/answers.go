package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"sync"
)

// maxPeerCalls bounds the calls of one peer that wait at once.
const maxPeerCalls = 64

// answers serves the calls of the other servers.
type answers struct {
	ctx      context.Context
	timeouts Timeouts
	// What the calls ask for. term must not block.
	term func() uint64
	// readIndex and ask get the id of the server that asks, and what it has sent.
	readIndex func(ctx context.Context, from string, body []byte) (index, term uint64, err error)
	ask       func(ctx context.Context, from string, body []byte) ([]byte, error)
	report    func() peerReport
	testify   func(witnessQuestion) witnessAnswer
	testWrite func(ctx context.Context) error
	points    func() []byte
	// state sends parts of a long answer before its end.
	state  func(ctx context.Context, id uint64, out *outbox) error
	found  func(foundingQuestion) (foundingAnswer, error)
	accept func(invitation) error
	apply  func(application) (applicationAnswer, error)
}

// serve answers the calls of one connection, to a server, until it ends.
func (a *answers) serve(conn net.Conn, from string) {
	ctx, cancel := context.WithCancel(a.ctx)
	out := newOutbox()
	var wg sync.WaitGroup
	wg.Go(func() { out.run(conn) })
	slots := make(chan struct{}, maxPeerCalls)
	r := bufio.NewReader(conn)
	for {
		f, err := readPeerFrame(r)
		if err != nil {
			break
		}
		if f.kind == callTerm { // hot and never blocks: no goroutine
			body := binary.BigEndian.AppendUint64(nil, a.term())
			if out.send(ctx, peerFrame{kind: answerOK, id: f.id, body: body}) != nil {
				break
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			answer := peerFrame{kind: answerOK, id: f.id}
			body, err := a.answer(ctx, from, f, out)
			if answer.body = body; err != nil {
				answer.kind, answer.body = answerRefused, refusal(err)
			}
			_ = out.send(ctx, answer)
		})
	}
	cancel()
	_ = conn.Close()
	close(out.done)
	wg.Wait()
}

// answer answers a call. Parts of a long answer go out before.
func (a *answers) answer(
	ctx context.Context, from string, f peerFrame, out *outbox,
) ([]byte, error) {
	switch f.kind {
	case callReadIndex:
		ctx, cancel := context.WithTimeout(ctx, a.timeouts.Election)
		defer cancel()
		index, term, err := a.readIndex(ctx, from, f.body)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term), nil
	case callAsk:
		ctx, cancel := context.WithTimeout(ctx, a.timeouts.Election)
		defer cancel()
		return a.ask(ctx, from, f.body)
	case callStatus:
		return json.Marshal(a.report())
	case callWitness:
		var q witnessQuestion
		if err := json.Unmarshal(f.body, &q); err != nil {
			return nil, errPeerFrame
		}
		return json.Marshal(a.testify(q))
	case callFound:
		var q foundingQuestion
		if err := json.Unmarshal(f.body, &q); err != nil || len(q.Members) > maxServers {
			return nil, errPeerFrame
		}
		known, err := a.found(q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(known)
	case callInvite:
		var v invitation
		if err := json.Unmarshal(f.body, &v); err != nil {
			return nil, errPeerFrame
		}
		return []byte("{}"), a.accept(v)
	case callJoin:
		var q application
		if err := json.Unmarshal(f.body, &q); err != nil {
			return nil, errPeerFrame
		}
		known, err := a.apply(q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(known)
	case callTestWrite:
		ctx, cancel := context.WithTimeout(ctx, a.timeouts.Store)
		defer cancel()
		return nil, a.testWrite(ctx)
	case callPoints:
		return a.points(), nil
	case callState:
		return nil, a.state(ctx, f.id, out)
	default:
		return nil, errPeerFrame
	}
}
