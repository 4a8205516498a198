// Package forward has each request answered by the replica that may answer it: this
// one, or the leader. A follower sends the request to the leader and brings the answer
// back.
//
// What holds:
//   - A request is forwarded at most once: a replica that another one has forwarded a
//     request to either answers it or refuses it.
//   - Only the replica that the client talks to repeats a request. It is the same every
//     time, with the same idempotency key, so that a leader recognises what an earlier one
//     has done.
//   - No error says that nothing happened if something may have happened.
//
// The package must not know routes, tokens or resources.
package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
)

const (
	// heldAnswer is how much of the leader's answer is read before any of it goes to
	// the client, in bytes. When the leader dies meanwhile, the request is repeated.
	heldAnswer = 1 << 20

	// workedAtIt is how long an attempt must have taken for the next leader to be looked
	// for with a new timeout.
	workedAtIt = time.Second

	// mostLeaders is how many leaders that have worked at a request may leave it behind
	// before the time to find another one is no longer renewed. Who loses more of them
	// over one request is better told than kept.
	mostLeaders = 5

	shortestPause = 5 * time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// ErrLeaderless is wrapped by an error after which no other try is made: no leader has
// been known for as long as a request may wait for one.
var ErrLeaderless = errors.New("no leader is known")

var errNoLeader = neon.Errorf(neon.NotLeader, "No leader to forward to while in stepped down state")

// ErrSteppedDown is the answer of a replica that was asked to step down while there is
// no other one.
var ErrSteppedDown = neon.Errorf(neon.Unavailable, "Leader is stepped down instance")

// Leadership is what a Forwarder must know of the cluster.
type Leadership interface {
	// IsLeader reports whether this replica leads, as far as it knows.
	IsLeader() bool

	// Leader waits for a leader as long as ctx allows. The address is the base URL of
	// its HTTP API. It fails at once with ErrSteppedDown when this replica has stepped
	// down and there is no other one to wait for.
	Leader(ctx context.Context) (address string, self bool, err error)

	// While derives a context that ends as soon as the replica at the address is known
	// not to lead any more. Then no request waits for the answer of a frozen leader.
	While(ctx context.Context, address string) (context.Context, context.CancelFunc)

	// Leaderless says, while no leader is known, for how long that has been so, which
	// members are missing, and what to do; "" while one is known.
	Leaderless() string
}

// Options is what a Forwarder is made of.
type Options struct {
	Leadership Leadership
	Ready      func() bool // reports whether this replica has looked around

	// Peers sends requests to other replicas. It must not follow redirects, nor add or
	// remove encodings.
	Peers http.RoundTripper

	// Count counts a try to have the leader answer: ok, again or failed.
	Count func(outcome string)

	// LeaderTimeout bounds how long a request waits without a leader that works at it.
	LeaderTimeout time.Duration
}

// Forwarder answers requests or has them answered. It keeps nothing between them.
type Forwarder struct{ o Options }

// New makes a Forwarder.
func New(o Options) *Forwarder { return &Forwarder{o} }

// Request is one request of a client.
type Request struct {
	HTTP *http.Request // as it came, with a request id; its body has been read
	Body []byte

	// OnAnyReplica says that this replica may answer although it does not lead.
	OnAnyReplica bool

	// Handle answers the request on this replica. It may be called more than once.
	Handle func() error

	// Acted reports whether Handle has changed something, or may have.
	Acted func() bool
}

// Response is the answer of the leader.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Stream io.ReadCloser // instead of Body, when the answer is too large to hold
}

// Route answers a request, by Handle or by the leader. The response is nil when Handle
// has answered.
func (f *Forwarder) Route(ctx context.Context, r Request) (*Response, error) {
	resp, err := f.serveOrForward(ctx, r)
	if err != nil && r.Acted() && saysNothingHappened(err) {
		err = neon.Errorf(neon.OutcomeUnknown, "%w", err)
	}
	return resp, err
}

func saysNothingHappened(err error) bool {
	class := neon.Classify(err)
	return class == neon.NotLeader || class == neon.ShuttingDown
}

// serveOrForward answers a request here as far as this replica may, and else has the
// leader answer it.
func (f *Forwarder) serveOrForward(ctx context.Context, r Request) (*Response, error) {
	last := error(errNoLeader)
	if r.OnAnyReplica || f.o.Leadership.IsLeader() {
		err := r.Handle()
		if err == nil || !f.retriable(ctx, err) {
			return nil, err
		}
		last = err
	}
	if Forwarded(r.HTTP) {
		return nil, last
	}
	return f.forwardUntilDeadline(ctx, r, last)
}

// retriable reports whether another try makes sense after an error, with whichever
// replica leads then.
func (f *Forwarder) retriable(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, ErrLeaderless) {
		return false
	}
	switch neon.Classify(err) {
	case neon.NotLeader, neon.OutcomeUnknown:
		return true
	case neon.Unavailable, neon.ShuttingDown, neon.Cancelled:
		// The next leader finishes what ended together with the leadership. A leader that
		// has only begun may not have been able to do it yet.
		return !f.o.Leadership.IsLeader() || !f.o.Ready()
	}
	return false
}

// forwardUntilDeadline looks for the leader and has it answer, until the time to find
// one is over. The error is the last one.
func (f *Forwarder) forwardUntilDeadline(
	ctx context.Context, r Request, last error,
) (*Response, error) {
	deadline := time.Now().Add(f.o.LeaderTimeout)
	unknown := neon.Classify(last) == neon.OutcomeUnknown || r.Acted()
	leaders := 0
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		search, cancel := context.WithDeadline(ctx, deadline)
		address, self, err := f.o.Leadership.Leader(search)
		cancel()
		if errors.Is(err, ErrSteppedDown) && !unknown {
			return nil, err
		}
		if err != nil {
			break
		}
		var resp *Response
		began := time.Now()
		if self {
			err = r.Handle()
			if errors.Is(err, ErrLeaderless) {
				last = err // it tells nothing of what an earlier leader may have done
				break
			}
			if err != nil && !f.retriable(ctx, err) {
				return nil, err
			}
		} else {
			resp, err = f.forwardOnce(ctx, r, address)
		}
		if err == nil {
			return resp, nil
		}
		last = err
		if time.Since(began) > workedAtIt && leaders < mostLeaders {
			leaders++
			deadline = time.Now().Add(f.o.LeaderTimeout)
		}
		unknown = unknown || neon.Classify(err) == neon.OutcomeUnknown || r.Acted()
		if time.Until(deadline) < pause || wait.Sleep(ctx, pause) != nil {
			break
		}
	}
	if why := f.o.Leadership.Leaderless(); why != "" && neon.Classify(last) == neon.NotLeader {
		last = &neon.Error{Code: neon.NotLeader, Msg: why, Err: ErrLeaderless}
	}
	if unknown && r.HTTP.Method != http.MethodGet &&
		neon.Classify(last) != neon.OutcomeUnknown {
		return nil, neon.Errorf(neon.OutcomeUnknown, "the request may have been executed: %w", last)
	}
	return nil, last
}

// forwardOnce has the replica at an address answer a request. After each of its errors
// another try makes sense: NotLeader when nothing happened there, OutcomeUnknown when
// that is not known.
func (f *Forwarder) forwardOnce(
	ctx context.Context, r Request, address string,
) (*Response, error) {
	ctx, cancel := f.o.Leadership.While(ctx, address)
	req, err := copyRequest(ctx, r, address)
	if err != nil {
		cancel()
		return nil, neon.Errorf(neon.NotLeader, "Failed to convert request: %w", err)
	}
	resp, err := f.o.Peers.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, f.failed(err)
	}
	finish := func() { _ = resp.Body.Close(); cancel() }
	if class := neon.Code(resp.Header.Get(RetryHeader)); class != "" {
		finish()
		f.o.Count("again")
		if class == neon.OutcomeUnknown {
			return nil, neon.Errorf(neon.OutcomeUnknown,
				"the leader lost its leadership over the request")
		}
		return nil, errNoLeader
	}
	head, err := readHead(resp)
	if err != nil {
		finish()
		return nil, f.failed(err)
	}
	f.o.Count("ok")
	answer := &Response{Status: resp.StatusCode, Header: EndToEnd(resp.Header)}
	if len(head) < heldAnswer {
		finish()
		answer.Body = head
		return answer, nil
	}
	answer.Stream = stream{io.MultiReader(bytes.NewReader(head), resp.Body), finish}
	return answer, nil
}

// readHead reads an answer, or as much of it as is held.
func readHead(resp *http.Response) ([]byte, error) {
	size := resp.ContentLength
	if size <= 0 {
		return io.ReadAll(io.LimitReader(resp.Body, heldAnswer))
	}
	head := make([]byte, min(size, heldAnswer))
	n, err := io.ReadFull(resp.Body, head)
	return head[:n], err
}

// stream is the rest of an answer whose end gives the connection back.
type stream struct {
	io.Reader
	finish func()
}

func (s stream) Close() error { s.finish(); return nil }

func (f *Forwarder) failed(err error) error {
	f.o.Count("failed")
	class := neon.OutcomeUnknown
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		class = neon.NotLeader
	}
	return neon.Errorf(class, "Failed to forward while in stepped down state: %w", err)
}

// Mark marks the headers of a refusal when another replica has forwarded the request
// here and another try makes sense.
func (f *Forwarder) Mark(ctx context.Context, r *http.Request, err error, refusal http.Header) {
	if !Forwarded(r) || !f.retriable(ctx, err) {
		return
	}
	class := neon.OutcomeUnknown
	if saysNothingHappened(err) {
		class = neon.NotLeader
	}
	refusal.Set(RetryHeader, string(class))
}
