package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"quorate/internal/wait"
)

// link is the standing connection to one peer. It carries calls, and it is the proof of
// life: when the peer's process dies, the connection breaks at once.
type link struct {
	id     string
	dial   func(ctx context.Context, id string) (net.Conn, error)
	broken func(id string) // the standing connection ended
	seen   atomic.Int64    // unix nanoseconds of the last frame or greeting

	heard    func(*link, peerReport) // called with each report; may be nil
	report   atomic.Pointer[peerReport]
	compared atomic.Pointer[comparison] // of its state with ours

	mu     sync.Mutex
	out    *outbox // nil while there is no connection
	calls  map[uint64]chan peerFrame
	nextID uint64
}

// peerWriteTime is how long a peer may take to read one frame of at most 1 MB. A peer
// that does not read would keep what is queued for it in memory.
const peerWriteTime = 10 * time.Second

// outbox writes the frames of one connection from one goroutine. So no caller holds a
// lock while the network blocks.
type outbox struct {
	frames chan []byte
	done   chan struct{}
}

func newOutbox() *outbox {
	return &outbox{frames: make(chan []byte, 64), done: make(chan struct{})}
}

// run writes until done is closed or the connection fails. A failure closes the
// connection.
func (o *outbox) run(c net.Conn) {
	var until time.Time // the deadline of writes
	for {
		select {
		case b := <-o.frames:
			if now := time.Now(); until.Sub(now) < peerWriteTime*9/10 {
				until = now.Add(peerWriteTime) // set seldom: it costs more than a small frame
				_ = c.SetWriteDeadline(until)
			}
			if _, err := c.Write(o.more(b)); err != nil {
				_ = c.Close()
				<-o.done
				return
			}
		case <-o.done:
			return
		}
	}
}

// more appends the frames that wait already, so that one write takes them all.
func (o *outbox) more(b []byte) []byte {
	for len(b) < maxPeerFrame {
		select {
		case next := <-o.frames:
			b = append(b, next...)
		default:
			return b
		}
	}
	return b
}

func (o *outbox) send(ctx context.Context, f peerFrame) error {
	select {
	case o.frames <- appendPeerFrame(nil, f):
		return nil
	case <-o.done:
		return ErrPeerUnreachable
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	redialMin = 20 * time.Millisecond
	redialMax = 500 * time.Millisecond
)

// run keeps the connection until ctx ends.
func (l *link) run(ctx context.Context) {
	delay := redialMin
	for ctx.Err() == nil {
		dialCtx, cancel := context.WithTimeout(ctx, greetingTimeout)
		c, err := l.dial(dialCtx, l.id)
		cancel()
		if err == nil {
			delay = redialMin
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			l.serve(c)
			stop()
			if ctx.Err() != nil {
				return
			}
			l.broken(l.id)
		}
		_ = wait.Sleep(ctx, delay)
		delay = min(2*delay, redialMax)
	}
}

// serve reads answers until the connection ends, and fails the calls left open.
func (l *link) serve(c net.Conn) {
	out := newOutbox()
	var wg sync.WaitGroup
	wg.Go(func() { out.run(c) })
	l.mu.Lock()
	l.out, l.calls = out, make(map[uint64]chan peerFrame)
	l.mu.Unlock()
	l.seen.Store(time.Now().UnixNano()) // it has answered the greeting
	r := bufio.NewReader(c)
	for {
		f, err := readPeerFrame(r)
		if err != nil {
			break
		}
		l.seen.Store(time.Now().UnixNano())
		l.mu.Lock()
		answer := l.calls[f.id]
		delete(l.calls, f.id)
		l.mu.Unlock()
		if answer != nil {
			answer <- f // buffered, one answer per call
		}
	}
	_ = c.Close()
	l.mu.Lock()
	open := l.calls
	l.out, l.calls = nil, nil
	l.mu.Unlock()
	close(out.done)
	wg.Wait()
	for _, answer := range open {
		close(answer)
	}
}

func (l *link) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out != nil
}

// answers reports whether the peer has given an answer a moment ago. A connection to a
// host that is gone without a word stays up for minutes.
func (l *link) answers() bool {
	return l.up() && time.Since(time.Unix(0, l.seen.Load())) <= silentAfter
}

// call sends one question and waits for its answer.
func (l *link) call(ctx context.Context, kind byte, body []byte) ([]byte, error) {
	l.mu.Lock()
	out := l.out
	if out == nil {
		l.mu.Unlock()
		return nil, ErrPeerUnreachable
	}
	l.nextID++
	id := l.nextID
	answer := make(chan peerFrame, 1)
	l.calls[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.calls, id)
		l.mu.Unlock()
	}()

	if err := out.send(ctx, peerFrame{kind: kind, id: id, body: body}); err != nil {
		return nil, err
	}
	select {
	case f, ok := <-answer:
		if !ok {
			return nil, ErrPeerUnreachable
		}
		if f.kind == answerOK {
			return f.body, nil
		}
		return nil, refusalError(f.body)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// poll asks for a report once in a while until ctx ends.
func (l *link) poll(ctx context.Context) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		if r, err := l.askReport(ctx); err == nil && l.heard != nil {
			l.heard(l, r)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// askReport fetches a new report.
func (l *link) askReport(ctx context.Context) (peerReport, error) {
	ctx, cancel := context.WithTimeout(ctx, reportInterval)
	defer cancel()
	body, err := l.call(ctx, callStatus, nil)
	if err != nil {
		return peerReport{}, err
	}
	var r peerReport
	if err := json.Unmarshal(body, &r); err != nil {
		return peerReport{}, err
	}
	l.report.Store(&r)
	return r, nil
}
