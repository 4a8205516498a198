package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/auth"
	"quorate/api/internal/forward"
	"quorate/api/neon"
	"quorate/fsm"
)

// spy remembers the requests that were forwarded to a replica.
type spy struct {
	mu   sync.Mutex
	seen []forwardedRequest
}

type forwardedRequest struct {
	at     int
	method string
	uri    string
	header http.Header
	body   string
}

func (s *spy) wrap(r *replica, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		if req.Header.Get(forward.HopHeader) != "" {
			s.mu.Lock()
			s.seen = append(s.seen, forwardedRequest{
				r.at, req.Method, req.RequestURI, req.Header.Clone(), string(body),
			})
			s.mu.Unlock()
		}
		next.ServeHTTP(w, req)
	})
}

func (s *spy) all() []forwardedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]forwardedRequest(nil), s.seen...)
}

func TestFollowerForwardsEveryRequestUnchanged(t *testing.T) {
	var s spy
	w := newWorld(t, setup{replicas: 3, wrap: s.wrap})
	w.addNodes(1)
	follower := w.replicas[1]
	body := `{"new_tenant_id":"` + tenantA + `"}  trailing`
	g := follower.do("POST", "/v1/tenant?a=1&b=%2F", body, "X-Request-Id", "abc", "X-Other", "kept",
		"Connection", "X-Gone", "X-Gone", "1")
	g.want(t, 201, `{"shards":[{"shard_id":"`+tenantA+`","node_id":1,"generation":0}]}`)
	if id := g.header.Get("X-Request-Id"); id != "abc" {
		t.Errorf("answer has request id %q", id)
	}
	seen := s.all()
	if len(seen) != 1 {
		t.Fatalf("%d requests were forwarded", len(seen))
	}
	c := seen[0]
	if c.at != 0 || c.method != "POST" || c.uri != "/v1/tenant?a=1&b=%2F" || c.body != body {
		t.Errorf("forwarded %+v", c)
	}
	if c.header.Get("X-Request-Id") != "abc" || c.header.Get("X-Other") != "kept" ||
		c.header.Get("X-Gone") != "" {
		t.Errorf("forwarded headers %v", c.header)
	}
}

func TestAnswerOfLeaderComesBackUnchanged(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.attach(tenantID(t, tenantA))
	big := strings.Repeat("x", 3<<20)
	w.calls.through = func(neon.NodeID, string, string) (*http.Response, error) {
		resp := response(http.StatusTeapot, big)
		resp.Header = http.Header{
			"Content-Type": {"text/weird"}, "X-Many": {"1", "2"}, "X-Request-Id": {"theirs"},
			"Connection": {"close"},
		}
		return resp, nil
	}
	for _, r := range w.replicas {
		g := r.do("GET", "/v1/tenant/"+tenantA+"/timeline", "null", "X-Request-Id", "mine")
		if g.status != http.StatusTeapot || g.body != big ||
			g.header.Get("Content-Type") != "text/weird" ||
			len(g.header.Values("X-Many")) != 2 || g.header.Get("X-Request-Id") != "mine" {
			t.Errorf("replica %d: %d, %d bytes, %v", r.at, g.status, len(g.body), g.header)
		}
	}
}

func TestRequestIDIsMadeOnceForAllTries(t *testing.T) {
	var s spy
	w := newWorld(t, setup{replicas: 3, wrap: s.wrap})
	w.addNodes(1)
	for _, r := range w.replicas[:2] {
		r.propose = func(next func() (fsm.Result, error)) (fsm.Result, error) {
			w.setLeader(r.at + 1)
			return fsm.Result{}, errFollows
		}
	}
	g := w.replicas[2].do("PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"Pause"}`)
	g.want(t, 200, "null")
	seen := s.all()
	if len(seen) < 2 {
		t.Fatalf("%d tries", len(seen))
	}
	for _, c := range seen {
		if id := c.header.Get("X-Request-Id"); id == "" || id != g.header.Get("X-Request-Id") {
			t.Errorf("a try had request id %q, the answer %q", id, g.header.Get("X-Request-Id"))
		}
		if key := c.header.Get("Idempotency-Key"); key == "" ||
			key != seen[0].header.Get("Idempotency-Key") {
			t.Errorf("a try had the key %q", key)
		}
	}
}

// A follower carries a request to the next leader, and does not know that it was done at the
// last one. Others have changed the same meanwhile, under the same request id.
func TestWhatWasDoneAtALostLeaderIsNotDoneAgain(t *testing.T) {
	w := newWorld(t, setup{replicas: 3})
	w.addNodes(1)
	w.log.Upgrade(t)
	config := func(at int, scheduling string) got {
		return w.replicas[at].do("PUT", "/control/v1/node/1/config",
			`{"node_id":1,"scheduling":"`+scheduling+`"}`, "X-Request-Id", "trace")
	}
	w.replicas[0].propose = func(next func() (fsm.Result, error)) (fsm.Result, error) {
		w.replicas[0].propose = nil
		if _, err := next(); err != nil {
			return fsm.Result{}, err
		}
		w.setLeader(1)
		config(1, "Active").want(t, 200, "null")
		return fsm.Result{}, neon.Errorf(neon.OutcomeUnknown, "the leader has died")
	}
	config(2, "Pause").want(t, 200, "null")
	if n, _ := w.replicas[1].State().Node(1); n.Scheduling != neon.SchedulingActive {
		t.Errorf("an acknowledged change was overwritten: the node is %s", n.Scheduling)
	}
}

func TestAnIdempotencyKeyIsOneShortText(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(1)
	long := strings.Repeat("k", 256)
	for _, c := range []struct {
		keys []string
		want int
	}{
		{[]string{""}, 400},
		{[]string{long}, 400},
		{[]string{"a", "b"}, 400},
		{[]string{"\xc3\xa4"}, 400},
		{[]string{long[1:]}, 200},
		{[]string{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}, 200},
	} {
		var headers []string
		for _, key := range c.keys {
			headers = append(headers, "Idempotency-Key", key)
		}
		g := w.replicas[0].do("PUT", "/control/v1/node/1/config", `{"node_id":1}`, headers...)
		if g.status != c.want {
			t.Errorf("%.40q: %d %s", c.keys, g.status, g.body)
		}
	}
}

// The leader that a client talks to commits, then loses leadership before it can
// say so. The next one recognises the request.
func TestLeaderChangeInMidRequestLosesAndRepeatsNothing(t *testing.T) {
	for _, entry := range []int{0, 2} {
		w := newWorld(t, setup{replicas: 3})
		w.addNodes(1)
		w.replicas[0].propose = func(next func() (fsm.Result, error)) (fsm.Result, error) {
			_, err := next()
			w.setLeader(1)
			if err == nil {
				err = neon.Errorf(neon.OutcomeUnknown, "lost leadership")
			}
			return fsm.Result{}, err
		}
		before := w.committed()
		w.replicas[entry].do("PUT", "/control/v1/node/1/config",
			`{"node_id":1,"scheduling":"Pause"}`).want(t, 200, "null")
		if n, _ := w.log.State().Node(1); n.Scheduling != neon.SchedulingPause {
			t.Errorf("entry %d: node is %s", entry, n.Scheduling)
		}
		if n := w.committed() - before; n > 2 {
			t.Errorf("entry %d: %d commands", entry, n)
		}
	}
}

func TestWaitThatEndsWithLeadershipIsTakenUpByTheNext(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(2)
	w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.replicas[0].await = func(context.Context) error {
		w.setLeader(1)
		return neon.Errorf(neon.Unavailable, "leadership ended")
	}
	g := w.replicas[0].do("PUT", "/control/v1/tenant/"+tenantA+"/migrate",
		`{"node_id":2,"migration_config":{"prewarm":false,"override_scheduler":true}}`)
	g.want(t, 200, `{}`)
}

func TestFrozenLeaderIsLeftAsSoonAsItIsReplaced(t *testing.T) {
	frozen := make(chan struct{})
	reached := make(chan struct{}, 1)
	w := newWorld(t, setup{replicas: 3, wrap: func(r *replica, next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if r.at == 0 {
				reached <- struct{}{}
				<-frozen
			}
			next.ServeHTTP(rw, req)
		})
	}})
	defer close(frozen)
	w.addNodes(1)
	go func() {
		<-reached
		w.setLeader(1)
	}()
	begun := time.Now()
	w.replicas[2].do("PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"Pause"}`).
		want(t, 200, "null")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestNoLeaderInTimeIs503WithRetryAfter(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.setLeader(-1)
	s := w.replicas[0].server
	rt := route{
		scope: auth.Any, label: "x", body: 10, deadline: time.Second,
		handle: newHandlers(w.replicas[0].options).nodes.list,
	}
	rec := httptest.NewRecorder()
	s.serve(&rt, rec, httptest.NewRequest("GET", "/x", nil), nil)
	if rec.Code != 503 || rec.Header().Get("Retry-After") != "1" ||
		rec.Body.String() != `{"msg":"No leader to forward to while in stepped down state"}` {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	// It names who is missing and the way out, if that is known.
	w.replicas[0].leaderless = "No leader for 7s; missing: c2"
	rec = httptest.NewRecorder()
	s.serve(&rt, rec, httptest.NewRequest("GET", "/x", nil), nil)
	if rec.Code != 503 || rec.Header().Get("Retry-After") != "1" ||
		rec.Body.String() != `{"msg":"No leader for 7s; missing: c2"}` {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	// It counts where the client asked, and only there.
	req := httptest.NewRequest("GET", "/x", nil)
	req.Header.Set(forward.HopHeader, "1")
	s.serve(&rt, httptest.NewRecorder(), req, nil)
	if text := w.replicas[0].do("GET", "/metrics", "").body; !strings.Contains(text,
		`http_request_status{method="get",path="x",status="503"} 2`) {
		t.Errorf("it is not counted:\n%s", text)
	}
}

// Refusals stand in the log of the replica that made them.
func TestRefusalsAreLogged(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	var logs [2]bytes.Buffer
	for i := range logs {
		w.replicas[i].server.logger = slog.New(slog.NewTextHandler(&logs[i], nil))
	}
	w.replicas[1].do("GET", "/control/v1/node/5", "", requestIDHeader, "the-request")
	w.replicas[1].do("GET", "/control/v1/node", "")
	w.replicas[1].do("GET", "/ready", "")
	w.replicas[1].do("PUT", "/control/v1/node/x/config", "{}")
	for i, wants := range [][]string{
		{"/control/v1/node/x/config", "status=400"},
		{"/control/v1/node/5", "status=404", "the-request"},
	} {
		text := logs[i].String()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("replica %d does not say %s: %s", i, want, text)
			}
		}
		if n := strings.Count(text, "\n"); n != 1 {
			t.Errorf("replica %d says %s", i, text)
		}
	}
}

func TestRequestIsForwardedAtMostOnce(t *testing.T) {
	w := newWorld(t, setup{replicas: 3})
	begun := time.Now()
	g := w.replicas[1].do("GET", "/control/v1/tenant", "", forward.HopHeader, "1")
	if g.status != 503 || g.header.Get(forward.RetryHeader) != "not_leader" ||
		g.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", g.status, g.header, g.body)
	}
	if time.Since(begun) > 5*time.Second {
		t.Error("it was tried anyway")
	}
}

func TestUnknownOutcomeIsSaidWhenItIsNotKnown(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	w.replicas[0].propose = func(func() (fsm.Result, error)) (fsm.Result, error) {
		w.setLeader(-1)
		return fsm.Result{}, neon.Errorf(neon.OutcomeUnknown, "lost leadership")
	}
	s := w.replicas[0].server
	rt := route{
		scope: auth.Any, label: "x", body: 100, deadline: time.Second,
		handle: newHandlers(w.replicas[0].options).nodes.register,
	}
	rec := httptest.NewRecorder()
	body := `{"node_id":2,"listen_pg_addr":"ps","listen_pg_port":1,"listen_http_addr":"ps","listen_http_port":1,"availability_zone_id":"a"}`
	rt.body = int64(len(body))
	s.serve(&rt, rec, httptest.NewRequest("POST", "/x", strings.NewReader(body)), nil)
	if rec.Code != 503 || rec.Body.String() != `{"msg":"Outcome unknown: lost leadership"}` {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

// A replica that has done a part of a request and then finds that it does not lead may
// not say that nothing happened, neither to the client nor to the replica it came from.
func TestUnknownOutcomeIsSaidAfterAPartWasDone(t *testing.T) {
	for _, ended := range []error{
		errFollows, neon.Errorf(neon.ShuttingDown, "bye"),
		neon.Errorf(neon.Unavailable, "leadership ended"),
	} {
		for _, forwarded := range []bool{false, true} {
			w := newWorld(t, setup{replicas: 2})
			w.addNodes(1)
			w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
			w.replicas[0].await = func(context.Context) error {
				w.setLeader(-1)
				return ended
			}
			rt := route{
				scope: auth.Any, label: "x", deadline: time.Second,
				handle: newHandlers(w.replicas[0].options).tenants.delete,
			}
			rec, req := httptest.NewRecorder(), httptest.NewRequest("DELETE", "/x", nil)
			if forwarded {
				req.Header.Set(forward.HopHeader, "1")
			}
			w.replicas[0].server.serve(&rt, rec, req, params("tenant_id", tenantA))
			if rec.Code != 503 ||
				!forwarded && !strings.HasPrefix(rec.Body.String(), `{"msg":"Outcome unknown: `) ||
				forwarded && rec.Header().Get(forward.RetryHeader) != string(neon.OutcomeUnknown) {
				t.Errorf("%v, forwarded %v: %d %v %s", ended, forwarded, rec.Code, rec.Header(),
					rec.Body)
			}
		}
	}
}

func TestReadsOfReplicatedStateAreAnsweredByFollowers(t *testing.T) {
	var s spy
	w := newWorld(t, setup{replicas: 2, wrap: s.wrap})
	w.addNodes(1)
	w.addSafekeepers(1)
	w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.must(fsm.BeginImport{Tenant: tenantID(t, tenantA), Timeline: timelineID(t, timelineX)})
	for _, rt := range routes(handlers{}) {
		if rt.duty != onAny {
			continue
		}
		path := strings.NewReplacer(":tenant_id", tenantA, ":node_id", "1", ":safekeeper_id", "1").
			Replace(rt.path)
		body := `{"tenants":[],"tenant_shard_id":"` + tenantA + `","timeline_id":"` + timelineX +
			`","generation":0}`
		if g := w.replicas[1].do(rt.method, path, body); g.status != 200 {
			t.Errorf("%s %s: %d %s", rt.method, path, g.status, g.body)
		}
	}
	if seen := s.all(); len(seen) > 0 {
		t.Errorf("%d requests were forwarded, the first %+v", len(seen), seen[0])
	}
}

func TestStepDownActsOnTheReplicaThatWasAsked(t *testing.T) {
	w := newWorld(t, setup{replicas: 3})
	w.replicas[2].do("PUT", "/control/v1/step_down", "").want(t, 200, `{}`)
	if l, _ := w.leads(); l != 0 {
		t.Errorf("leader is %d", l)
	}
	w.replicas[0].do("PUT", "/control/v1/step_down", "").want(t, 200, `{}`)
	if l, _ := w.leads(); l != 1 {
		t.Errorf("leader is %d", l)
	}
}

func TestOversizedBodyIsRefusedUnread(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	before := w.committed()
	big := strings.Repeat(" ", defaultBody+1)
	want := `{"msg":"\"request body is larger than 1048576 bytes\""}`
	for _, r := range w.replicas {
		r.do("POST", "/v1/tenant", big).want(t, 400, want)
		req, err := http.NewRequest("POST", r.web.URL+"/v1/tenant",
			io.MultiReader(strings.NewReader(big)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.web.Client().Do(req) // chunked
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("chunked: %d", resp.StatusCode)
		}
	}
	if w.committed() != before {
		t.Error("something was proposed")
	}
}

// A body that is announced too large is refused before any of it came.
func TestAnnouncedOversizeIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, setup{})
	conn, err := net.Dial("tcp", w.replicas[0].web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn,
		"POST /v1/tenant HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
		defaultBody+1); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, " 400 ") {
		t.Errorf("%q, %v", line, err)
	}
}
