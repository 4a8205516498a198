package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

// cluster is a cluster as one replica sees it, and the way to its leader.
type cluster struct {
	leader string // address; empty: there is none
	self   bool   // this replica leads
	err    error  // of Leader
	ready  bool

	leaderless string

	answer   func(r *http.Request) (*http.Response, error)
	requests []*http.Request
	counts   map[string]int
}

func (c *cluster) IsLeader() bool { return c.self }

func (c *cluster) Leader(ctx context.Context) (string, bool, error) {
	if c.err != nil {
		return "", false, c.err
	}
	if c.leader == "" && !c.self {
		<-ctx.Done()
		return "", false, ctx.Err()
	}
	return c.leader, c.self, nil
}

func (c *cluster) While(ctx context.Context, _ string) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

func (c *cluster) Leaderless() string { return c.leaderless }

func (c *cluster) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests = append(c.requests, r)
	return c.answer(r)
}

func (c *cluster) forwarder() *Forwarder {
	c.counts = map[string]int{}
	return New(Options{
		Leadership: c, Ready: func() bool { return c.ready }, Peers: c,
		Count: func(outcome string) { c.counts[outcome]++ }, LeaderTimeout: time.Second,
	})
}

// answers returns the same answer each time.
func answers(
	status int, body string, header ...string,
) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		return &http.Response{
			StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	}
}

// put is a request that Handle answers with err.
func put(err error) Request {
	r := httptest.NewRequest("PUT", "/v1/x%2Fy?a=1&b=%2F", nil)
	r.Header = http.Header{
		"X-Request-Id": {"id"}, "Connection": {"X-Gone"}, "X-Gone": {"1"}, RetryHeader: {"x"},
	}
	return Request{
		HTTP: r, Body: []byte("body"),
		Handle: func() error { return err }, Acted: func() bool { return false },
	}
}

func TestFollowersForwardARequestUnchanged(t *testing.T) {
	c := &cluster{leader: "http://leader/base/", answer: answers(418, "tea", "X-Kept", "1",
		"Connection", "X-Hop", "X-Hop", "1")}
	resp, err := c.forwarder().Route(t.Context(), put(errors.New("handled here")))
	if err != nil || resp.Status != 418 || string(resp.Body) != "tea" || resp.Stream != nil ||
		resp.Header.Get("X-Kept") != "1" || resp.Header.Get("X-Hop") != "" {
		t.Fatalf("%+v, %v", resp, err)
	}
	r := c.requests[0]
	body, _ := io.ReadAll(r.Body)
	if r.Method != "PUT" || r.URL.String() != "http://leader/base/v1/x%2Fy?a=1&b=%2F" ||
		string(body) != "body" {
		t.Errorf("forwarded %s %s %s", r.Method, r.URL, body)
	}
	if !Forwarded(r) || r.Header.Get("X-Request-Id") != "id" || r.Header.Get("X-Gone") != "" ||
		r.Header.Get(RetryHeader) != "" || r.UserAgent() != "" {
		t.Errorf("headers %v", r.Header)
	}
	if c.counts["ok"] != 1 {
		t.Errorf("counts %v", c.counts)
	}
}

func TestReplicasAnswerWhatTheyMay(t *testing.T) {
	for name, c := range map[string]*cluster{
		"the leader": {self: true}, "any replica": {leader: "http://leader"},
	} {
		r := put(nil)
		r.OnAnyReplica = !c.self
		if resp, err := c.forwarder().Route(t.Context(), r); resp != nil || err != nil ||
			len(c.requests) > 0 {
			t.Errorf("%s: %v, %v, %d requests", name, resp, err, len(c.requests))
		}
		r.Handle = func() error { return neon.Errorf(neon.NotFound, "absent") }
		if _, err := c.forwarder().Route(t.Context(), r); neon.CodeOf(err) != neon.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRequestsAreForwardedAtMostOnce(t *testing.T) {
	c := &cluster{leader: "http://leader"}
	r := put(nil)
	r.HTTP.Header.Set(HopHeader, "1")
	if _, err := c.forwarder().Route(t.Context(), r); !errors.Is(err, errNoLeader) ||
		len(c.requests) > 0 {
		t.Errorf("%v, %d requests", err, len(c.requests))
	}
}

// Each of these answers of a leader is followed by another try, which succeeds.
func TestTriesGoOnUntilALeaderAnswers(t *testing.T) {
	for name, first := range map[string]func(*http.Request) (*http.Response, error){
		"not the leader":  answers(503, "", RetryHeader, string(neon.NotLeader)),
		"lost leadership": answers(503, "", RetryHeader, string(neon.OutcomeUnknown)),
		"cut": func(*http.Request) (*http.Response, error) {
			return &http.Response{Body: io.NopCloser(
				io.MultiReader(strings.NewReader("ha"), errReader{}))}, nil
		},
		"refused": func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &cluster{leader: "http://leader"}
			c.answer = func(r *http.Request) (*http.Response, error) {
				c.answer = answers(200, "done")
				return first(r)
			}
			resp, err := c.forwarder().Route(t.Context(), put(nil))
			if err != nil || string(resp.Body) != "done" || len(c.requests) != 2 {
				t.Errorf("%s: %v, %v, %d requests", name, resp, err, len(c.requests))
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A replica that becomes the leader meanwhile answers itself.
func TestTriesEndAtThisReplicaWhenItLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{leader: "http://leader"}
		c.answer = func(r *http.Request) (*http.Response, error) {
			c.self = true
			return answers(503, "", RetryHeader, string(neon.NotLeader))(r)
		}
		refused := neon.Errorf(neon.Conflict, "refused")
		if _, err := c.forwarder().Route(t.Context(), put(refused)); err != error(refused) {
			t.Errorf("%v", err)
		}
	})
}

func TestErrorsSayThatNothingHappenedOnlyWhenThatIsKnown(t *testing.T) {
	dial := func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
	}
	reset := func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "read", Err: errors.New("reset")}
	}
	for _, c := range []struct {
		name    string
		cluster cluster
		handled error
		acted   bool
		want    neon.Code
		never   bool // the error is not for want of a leader
	}{
		{"no leader", cluster{}, nil, false, neon.NotLeader, false},
		{
			"nobody listens", cluster{leader: "http://l", answer: dial}, nil, false, neon.NotLeader,
			false,
		},
		{
			"the connection breaks", cluster{leader: "http://l", answer: reset}, nil, false,
			neon.OutcomeUnknown, false,
		},
		{
			"no address", cluster{leader: "http://%zz", answer: dial}, nil, false, neon.NotLeader,
			false,
		},
		{"stepped down", cluster{err: ErrSteppedDown}, nil, false, neon.Unavailable, true},
		{
			"stepped down after a part was done",
			cluster{self: true, err: ErrSteppedDown}, neon.Errorf(neon.NotLeader, "deposed"), true,
			neon.OutcomeUnknown, true,
		},
		{
			"shutting down after a part was done",
			cluster{self: true, ready: true}, neon.Errorf(neon.ShuttingDown, "bye"), true,
			neon.OutcomeUnknown, true,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := put(c.handled)
			r.Acted = func() bool { return c.acted }
			begun := time.Now()
			_, err := c.cluster.forwarder().Route(t.Context(), r)
			if neon.CodeOf(err) != c.want {
				t.Errorf("%s: %v", c.name, err)
			}
			if took := time.Since(begun); took > time.Second || c.never && took > 0 {
				t.Errorf("%s: took %s", c.name, took)
			}
		})
	}
}

func TestReadsMayBeSaidToHaveFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{leader: "http://leader"}
		c.answer = func(r *http.Request) (*http.Response, error) {
			c.leader = ""
			return answers(503, "", RetryHeader, string(neon.NotLeader))(r)
		}
		r := put(nil)
		r.HTTP.Method = "GET"
		if _, err := c.forwarder().Route(t.Context(), r); neon.CodeOf(err) != neon.NotLeader {
			t.Errorf("%v", err)
		}
	})
}

func TestLargeAnswersAreStreamed(t *testing.T) {
	text := strings.Repeat("x", 2*heldAnswer)
	c := &cluster{leader: "http://leader", answer: answers(200, text)}
	resp, err := c.forwarder().Route(t.Context(), put(nil))
	if err != nil || resp.Body != nil || resp.Stream == nil {
		t.Fatalf("%v, %v", resp, err)
	}
	if got, err := io.ReadAll(resp.Stream); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := resp.Stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestRefusalsAreMarkedForTheReplicaThatForwarded(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name      string
		ctx       context.Context
		cluster   cluster
		forwarded bool
		code      neon.Code
		want      neon.Code // empty: no mark
	}{
		{"not the leader", t.Context(), cluster{}, true, neon.NotLeader, neon.NotLeader},
		{"shutting down", t.Context(), cluster{}, true, neon.ShuttingDown, neon.NotLeader},
		{"deposed", t.Context(), cluster{}, true, neon.Unavailable, neon.OutcomeUnknown},
		{
			"has only begun", t.Context(), cluster{self: true}, true, neon.Unavailable,
			neon.OutcomeUnknown,
		},
		{"leads", t.Context(), cluster{self: true, ready: true}, true, neon.Unavailable, ""},
		{"its own client", t.Context(), cluster{}, false, neon.NotLeader, ""},
		{"a refusal", t.Context(), cluster{}, true, neon.NotFound, ""},
		{"a client that is gone", ended, cluster{}, true, neon.NotLeader, ""},
	} {
		r := httptest.NewRequest("PUT", "/", nil)
		if c.forwarded {
			r.Header.Set(HopHeader, "1")
		}
		h := http.Header{}
		c.cluster.forwarder().Mark(c.ctx, r, neon.Errorf(c.code, "no"), h)
		if got := h.Get(RetryHeader); got != string(c.want) {
			t.Errorf("%s: marked %q", c.name, got)
		}
	}
}

// A request whose outcome at an earlier leader is not known, and that is then given up
// here for want of a leader, must not be said to have done nothing.
func TestGivingUpForgetsNoUnknownOutcome(t *testing.T) {
	c := &cluster{leader: "http://leader"}
	c.answer = func(*http.Request) (*http.Response, error) {
		c.self = true // it is this replica's turn, as it believes
		return nil, errors.New("connection reset")
	}
	r := put(nil)
	r.Handle = func() error {
		return &neon.Error{Code: neon.NotLeader, Msg: "No leader for 5s", Err: ErrLeaderless}
	}
	if _, err := c.forwarder().Route(t.Context(), r); neon.Classify(err) != neon.OutcomeUnknown {
		t.Errorf("%v", err)
	}
}

// Leaders that work at a request and are lost, one after another, renew the time to find
// the next one only so often.
func TestTriesEndAfterSomeLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{leader: "http://leader"}
		c.answer = func(*http.Request) (*http.Response, error) {
			time.Sleep(2 * workedAtIt)
			return nil, errors.New("connection reset")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		_, err := c.forwarder().Route(ctx, put(nil))
		if neon.Classify(err) != neon.OutcomeUnknown {
			t.Errorf("%v", err)
		}
		if took, n := time.Since(began), len(c.requests); took > time.Minute || n > mostLeaders+1 {
			t.Errorf("it asked %d leaders in %s", n, took)
		}
	})
}
