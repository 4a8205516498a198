package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/internal/controller"
	"quorate/internal/wait"
)

const (
	// hopHeader marks a request that another replica has carried here. It is not
	// carried on.
	hopHeader = "X-Quorate-Hop"

	// againHeader marks an answer of a replica that could not lead the request to
	// its end, for the one that carried it there. Its value is the class.
	againHeader = "X-Quorate-Again"

	// heldAnswer is how much of the leader's answer is held before any of it goes
	// to the client, so that a leader that dies in between costs nothing.
	heldAnswer = 1 << 20

	shortestPause = 5 * time.Millisecond
	longestPause  = 100 * time.Millisecond
)

var errNoLeader = neon.Errorf(neon.NotLeader, "No leader to forward to while in stepped down state")

// dispatch answers a request here or has it answered by the leader.
func (s *Server) dispatch(c *call) (answer, error) {
	if c.route.duty == here {
		return s.local(c)
	}
	if c.request.Method != http.MethodGet {
		c.ctx = controller.WithRequest(c.ctx, requestKey(c))
	}
	a, err := s.lead(c)
	if k := neon.Classify(err); err != nil && controller.HasActed(c.ctx) &&
		(k == neon.NotLeader || k == neon.ShuttingDown) {
		err = neon.Errorf(neon.OutcomeUnknown, "%w", err) // those say that nothing happened
	}
	return a, err
}

// lead answers a request here as far as this replica may, and else finds who does.
func (s *Server) lead(c *call) (answer, error) {
	carried := c.hopped()
	last := error(errNoLeader)
	if c.route.duty != onLeader || s.leadership.IsLeader() {
		a, err := s.local(c)
		if err == nil || !s.again(c, err) {
			return a, err
		}
		last = err
	}
	if carried {
		return answer{}, last
	}
	return s.pursue(c, last)
}

// again tells whether the request should be tried once more, with whoever leads.
func (s *Server) again(c *call, err error) bool {
	if c.ctx.Err() != nil {
		return false
	}
	switch neon.Classify(err) {
	case neon.NotLeader, neon.OutcomeUnknown:
		return true
	case neon.Unavailable, neon.ShuttingDown, neon.Cancelled:
		// What ended while leadership did is for the next leader to finish, and one
		// that has only begun may not have been able to do it yet.
		return !s.leadership.IsLeader() || !s.readiness.Ready()
	}
	return false
}

// pursue looks for the leader and has it answer, until the patience of the route
// is at its end. The request is the same every time, so that what was done by one
// leader is recognised by the next.
func (s *Server) pursue(c *call, last error) (answer, error) {
	search, cancel := context.WithTimeout(c.ctx, c.route.leaderTimeout)
	defer cancel()
	unknown := neon.Classify(last) == neon.OutcomeUnknown || controller.HasActed(c.ctx)
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		address, self, err := s.leadership.Leader(search)
		if errors.Is(err, ErrSteppedDown) && !unknown {
			return answer{}, err
		}
		if err != nil {
			break
		}
		var a answer
		if self {
			a, err = s.local(c)
			if err != nil && !s.again(c, err) {
				return a, err
			}
		} else {
			a, err = s.carry(c, address)
		}
		if err == nil {
			return a, nil
		}
		last = err
		unknown = unknown || neon.Classify(err) == neon.OutcomeUnknown || controller.HasActed(c.ctx)
		if wait.Sleep(search, pause) != nil {
			break
		}
	}
	if unknown && c.request.Method != http.MethodGet && neon.Classify(last) != neon.OutcomeUnknown {
		return answer{}, neon.Errorf(neon.OutcomeUnknown, "the request may have been executed: %w",
			last)
	}
	return answer{}, last
}

// carry has the replica at an address answer the request. Its errors are those
// after which another try makes sense: NotLeader when nothing happened there,
// OutcomeUnknown when that cannot be told.
func (s *Server) carry(c *call, address string) (answer, error) {
	ctx, cancel := s.leadership.While(c.ctx, address)
	req, err := carried(ctx, c, address)
	if err != nil {
		cancel()
		return answer{}, neon.Errorf(neon.NotLeader, "Failed to convert request: %w", err)
	}
	resp, err := s.peers.RoundTrip(req)
	if err != nil {
		cancel()
		return answer{}, s.carryFailed(err)
	}
	finish := func() { _ = resp.Body.Close(); cancel() }
	if class := neon.Code(resp.Header.Get(againHeader)); class != "" {
		finish()
		s.metrics.Forwarded("again")
		if class == neon.OutcomeUnknown {
			return answer{}, neon.Errorf(neon.OutcomeUnknown,
				"the leader lost its leadership over the request")
		}
		return answer{}, errNoLeader
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, heldAnswer))
	if err != nil {
		finish()
		return answer{}, s.carryFailed(err)
	}
	s.metrics.Forwarded("ok")
	c.answered = true
	a := answer{status: resp.StatusCode, header: endToEnd(resp.Header), body: head}
	if len(head) < heldAnswer {
		finish()
		return a, nil
	}
	a.stream, a.close = io.MultiReader(bytes.NewReader(head), resp.Body), finish
	return a, nil
}

func (s *Server) carryFailed(err error) error {
	s.metrics.Forwarded("failed")
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return neon.Errorf(neon.NotLeader, "Failed to forward while in stepped down state: %w", err)
	}
	return neon.Errorf(neon.OutcomeUnknown, "Failed to forward while in stepped down state: %w",
		err)
}

// carried copies a request for another replica.
func carried(ctx context.Context, c *call, address string) (*http.Request, error) {
	base, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil {
		return nil, err
	}
	from := c.request
	target := &url.URL{
		Scheme: base.Scheme, Host: base.Host,
		Path: base.Path + from.URL.Path, RawPath: base.EscapedPath() + from.URL.EscapedPath(),
		RawQuery: from.URL.RawQuery, ForceQuery: from.URL.ForceQuery,
	}
	req, err := http.NewRequestWithContext(ctx, from.Method, target.String(),
		bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	req.Header = endToEnd(from.Header)
	req.Header.Del(againHeader)
	req.Header.Set(hopHeader, "1")
	if req.Header["User-Agent"] == nil {
		req.Header["User-Agent"] = []string{""} // none came, none goes
	}
	return req, nil
}

// connectionHeaders are about one connection and end with it.
var connectionHeaders = []string{"Connection", "Keep-Alive", "Proxy-Authenticate",
	"Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

// endToEnd copies the headers that are meant for the other end.
func endToEnd(h http.Header) http.Header {
	out := h.Clone()
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range connectionHeaders {
		out.Del(name)
	}
	return out
}

// refuse prints an error, marked for the replica that carried the request here
// when another try makes sense.
func (s *Server) refuse(c *call, err error) answer {
	a := errorAnswer(err)
	if c.route.duty == here || !c.hopped() || !s.again(c, err) {
		return a
	}
	class := neon.NotLeader
	if k := neon.Classify(err); k != neon.NotLeader && k != neon.ShuttingDown {
		class = neon.OutcomeUnknown
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	a.header.Set(againHeader, string(class))
	return a
}

// requestKey names a request: the same one, tried again through whichever
// replica, has the same key.
func requestKey(c *call) (key [32]byte) {
	h := sha256.New()
	for _, part := range []string{
		c.id, c.request.Method, c.request.URL.EscapedPath(), c.request.URL.RawQuery,
	} {
		_, _ = io.WriteString(h, part)
		_, _ = h.Write([]byte{0})
	}
	_, _ = h.Write(c.body)
	h.Sum(key[:0])
	return key
}

// copyStream sends a large answer. When the leader breaks off in the middle, so
// does the connection to the client: a cut answer must not look whole.
func copyStream(w http.ResponseWriter, r io.Reader) {
	if _, err := io.Copy(w, r); err != nil {
		panic(http.ErrAbortHandler)
	}
}
