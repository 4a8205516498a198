package api

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/contract"
	"quorate/internal/controller"
)

var update = flag.Bool("update", false, "write the answers into testdata/contract.txt")

// storyFile is one story of requests, told to a controller of its own:
//
//	METHOD PATH BODY      a request; $A and the like stand for ids
//	= STATUS BODY         its answer; of one that is not JSON the content type
//	@attach TENANT        the intended nodes get the shards attached
//	@leader ADDRESS       a replica took up its duties
//	@later                the clock moves on
//	@pageserver BODY      what pageservers answer to calls about shards from now on
//
// A request without an answer is left out. `go test ./api
// -run TestContractRoutes -update` writes the answers.
const storyFile = "testdata/contract.txt"

// ids are the names of tenants and timelines in the story.
var ids = map[string]string{
	"$A": tenantA, "$B": tenantB, "$C": "ccccccccccccccccccccccccccccccc3",
	"$D": "ddddddddddddddddddddddddddddddd4",
	"$X": timelineX, "$Y": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
	"$Z": "fffffffffffffffffffffffffffffff6", "$W": "00000000000000000000000000000007",
}

func unnamed(text string) string {
	for name, id := range ids {
		text = strings.ReplaceAll(text, name, id)
	}
	return text
}

// scene is a request of the story with its answer.
type scene struct{ method, path, body, want string }

// What differs from run to run, or as the story grows.
var (
	moment   = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[0-9:.]+Z"`)
	sequence = regexp.MustCompile(`"sequence":\d+`)
)

// tell plays the story at a replica. It returns the text with the answers that
// came, and the scenes.
func tell(t *testing.T, r *replica, text string) (string, []scene) {
	var out strings.Builder
	var scenes []scene
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(line)
		name, rest, _ := strings.Cut(unnamed(line), " ")
		switch {
		case name == "" || name == "#":
		case name == "@attach":
			r.attach(tenantID(t, rest))
		case name == "@leader":
			r.must(fsm.SetLeader{Leader: fsm.Leader{Term: 1, Address: rest, StartedAt: 1}})
		case name == "@later":
			<-time.After(2 * time.Millisecond)
		case name == "@pageserver":
			r.calls.answer = func(
				neon.NodeID, neon.ShardID, neon.ShardCall,
			) (int, []byte, error) {
				return 200, []byte(rest), nil
			}
		default:
			s := scene{method: name}
			s.path, s.body, _ = strings.Cut(rest, " ")
			answered := i+1 < len(lines) && strings.HasPrefix(lines[i+1], "= ")
			if !answered && !*update {
				continue
			}
			if answered {
				i++
				s.want = strings.TrimPrefix(lines[i], "= ")
			}
			got := shown(r.do(s.method, s.path, s.body))
			scenes = append(scenes, s)
			if answered || got != "404 text/plain" {
				out.WriteString("\n= " + got)
			}
		}
	}
	return out.String(), scenes
}

// shown is an answer as it stands in the story.
func shown(g got) string {
	kind := g.header.Get("Content-Type")
	body := sequence.ReplaceAllString(moment.ReplaceAllString(g.body, `"TIME"`), `"sequence":0`)
	for name, id := range ids {
		body = strings.ReplaceAll(body, id, name)
	}
	if kind != "application/json" {
		body = kind
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", g.status, body))
}

func storyWorld(t *testing.T, s setup) *world {
	s.rate = 1 << 20
	s.options, s.perTimeline = controller.Options{OntoSafekeepers: true}, 1
	s.failpoints = func() Failpoints { return &points{} }
	return newWorld(t, s)
}

// rowOf is the route that takes a request: the first that matches.
func rowOf(method, path string) (contract.Row, bool) {
	path, _, _ = strings.Cut(path, "?")
	have := strings.Split(strings.TrimPrefix(strings.TrimSuffix(path, "/"), "/"), "/")
	for _, row := range contract.Rows(contract.Route) {
		m, pattern, _ := strings.Cut(row.Name, " ")
		if m == method && matches(strings.Split(strings.TrimPrefix(pattern, "/"), "/"), have) {
			return row, true
		}
	}
	return contract.Row{}, false
}

func matches(pattern, have []string) bool {
	for i, p := range pattern {
		switch {
		case strings.HasPrefix(p, "*"):
			return len(have) > i
		case i >= len(have), !strings.HasPrefix(p, ":") && p != have[i], have[i] == "":
			return false
		}
	}
	return len(pattern) == len(have)
}

// example is the path of a row, with things that do not exist in it.
func example(row contract.Row) (method, path string) {
	method, path, _ = strings.Cut(row.Name, " ")
	return method, strings.NewReplacer(":tenant_id", tenantB, ":node_id", "99", ":id", "99",
		":timeline_id", timelineX,
		":tenant_shard_id", tenantB, "*rest", "timeline").Replace(path)
}

// TestContractRoutes tells the story to a leader and to a follower, tries the other
// properties of every route on it, and ticks the routes for which all hold.
func TestContractRoutes(t *testing.T) {
	text, err := os.ReadFile(storyFile)
	if err != nil {
		t.Fatal(err)
	}
	told, scenes := tell(t, storyWorld(t, setup{}).replicas[0], string(text))
	if *update {
		if err := os.WriteFile(storyFile, []byte(told), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if told != string(text) {
		t.Errorf("%s differs, now\n%s", storyFile, difference(string(text), told))
	}
	var s spy
	follower := storyWorld(t, setup{replicas: 2, wrap: s.wrap}).replicas[1]
	carried, _ := tell(t, follower, string(text))
	for _, d := range sceneDifferences(scenes, told, carried) {
		t.Error(d)
	}
	intact(t, scenes, s.all())
	for _, row := range contract.Rows(contract.Route) {
		t.Run(row.Name, func(t *testing.T) {
			if !isServed(t, row) {
				t.Fatal("not served")
			}
			if !succeeds(row, scenes) {
				t.Errorf("no request in %s succeeds with %s", storyFile, row.Cell("status"))
			}
			checkRouting(t, row)
			checkCounted(t, row)
			checkWait(t, row)
			checkRate(t, row)
			row.Tick(t)
		})
	}
}

// difference is the lines that are not the same.
func difference(want, got string) string {
	var out strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			fmt.Fprintf(&out, "line %d\n want %s\n got  %s\n", i+1, w[i], g[i])
		}
	}
	return out.String()
}

// sceneDifferences are the scenes that a follower answers in another way than the
// leader, apart from those that are about the replica itself.
func sceneDifferences(scenes []scene, leader, follower string) (out []string) {
	answers := func(text string) (all []string) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "= ") {
				all = append(all, line)
			}
		}
		return all
	}
	a, b := answers(leader), answers(follower)
	for i, s := range scenes {
		row, ok := rowOf(s.method, s.path)
		if i < min(len(a), len(b)) && a[i] != b[i] && !(ok && row.Has("flags", "replica")) {
			out = append(out, fmt.Sprintf("%s %s %s\n leader   %s follower %s", s.method, s.path,
				s.body, a[i], b[i]))
		}
	}
	return out
}

// intact checks that what was forwarded to the leader is what the client sent.
func intact(t *testing.T, scenes []scene, seen []forwardedRequest) {
	sent := map[string]bool{}
	for _, s := range scenes {
		sent[s.method+" "+s.path+" "+s.body] = true
	}
	if len(seen) < len(scenes)/2 {
		t.Errorf("%d of %d requests were forwarded to the leader", len(seen), len(scenes))
	}
	for _, c := range seen {
		if row, _ := rowOf(c.method, c.uri); row.Name != "" && row.Has("flags", "replica") {
			t.Errorf("%s was forwarded", row.Name)
		}
		if key := c.method + " " + c.uri + " " + c.body; !sent[key] {
			t.Errorf("nobody sent %s", key)
		}
	}
}

// succeeds reports whether the story has the row with its status of success.
func succeeds(row contract.Row, scenes []scene) bool {
	for _, s := range scenes {
		status, _, _ := strings.Cut(s.want, " ")
		if r, ok := rowOf(s.method, s.path); ok && r.Name == row.Name &&
			status == row.Cell("status") {
			return true
		}
	}
	return false
}

// cheap asks for a profile that is refused instead of one that takes seconds.
func cheap(path string) string {
	if strings.HasPrefix(path, "/profile/") {
		return path + "?seconds=0"
	}
	return path
}

// ask has the server answer one request, without a socket.
func (r *replica) ask(ctx context.Context, method, path, body string, header ...string) got {
	req := httptest.NewRequestWithContext(ctx, method, cheap(path), bytes.NewReader([]byte(body)))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	r.server.ServeHTTP(rec, req)
	return got{rec.Code, rec.Header(), rec.Body.String()}
}

func (g got) notServed() bool {
	return g.status == http.StatusNotFound && g.body == "Not Found" &&
		g.header.Get("Content-Type") == "text/plain"
}

func isServed(t *testing.T, row contract.Row) bool {
	method, path := example(row)
	return !newReplica(t, setup{}).ask(t.Context(), method, path, "x").notServed()
}

// checkRouting: a slash at the end and percent signs change nothing, other methods
// are not served, OPTIONS is 204, every answer has a request id.
func checkRouting(t *testing.T, row contract.Row) {
	r := newReplica(t, setup{rate: 1 << 20})
	method, path := example(row)
	plain := r.ask(t.Context(), method, path, "x", "X-Request-Id", "mine")
	if id := plain.header.Get("X-Request-Id"); id != "mine" {
		t.Errorf("the request id comes back as %q", id)
	}
	segment := strings.Index(path[1:], "/") + 2
	if segment == 1 {
		segment = len(path) - 2
	}
	coded := path[:segment] + fmt.Sprintf("%%%02x", path[segment]) + path[segment+1:]
	for _, other := range []string{path + "/", coded} {
		g := r.ask(t.Context(), method, other, "x")
		if shown(g) != shown(plain) {
			t.Errorf("%s: %s, without it %s", other, shown(g), shown(plain))
		}
		if id, err := uuid.Parse(g.header.Get("X-Request-Id")); err != nil || id.Version() != 4 {
			t.Errorf("made the request id %q", g.header.Get("X-Request-Id"))
		}
	}
	for _, m := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE"} {
		if _, ok := rowOf(m, path); ok || m == "HEAD" && isProbe[path] {
			continue
		}
		if g := r.ask(t.Context(), m, path, "x"); !g.notServed() {
			t.Errorf("%s is answered with %d %s", m, g.status, g.body)
		}
	}
	if g := r.ask(t.Context(), "OPTIONS", path, ""); g.status != http.StatusNoContent ||
		g.body != "" {
		t.Errorf("OPTIONS is answered with %d %s", g.status, g.body)
	}
}

// isProbe has the paths that answer HEAD too, which the contract does not ask for.
var isProbe = map[string]bool{
	"/live": true, "/ready": true, "/status": true, "/metrics": true, "/healthz": true,
}

// methodLabel is what dashboards know a method as.
func methodLabel(method string) string {
	if method == http.MethodPatch {
		return "other"
	}
	return strings.ToLower(method)
}

// checkCounted: the request is counted once, under its label.
func checkCounted(t *testing.T, row contract.Row) {
	r := newReplica(t, setup{})
	method, path := example(row)
	g := r.ask(t.Context(), method, path, "x")
	text := r.ask(t.Context(), "GET", "/metrics", "").body
	want := fmt.Sprintf(`storage_controller_http_request_status{method=%q,path=%q,status="%d"} 1`,
		methodLabel(method), row.Cell("label"), g.status)
	silent := row.Has("flags", "silent")
	if n := strings.Count(text, "storage_controller_http_request_status{"); strings.Contains(text,
		want) == silent || silent && n > 0 || !silent && n != 1 {
		t.Errorf("metrics have %d series of requests; %s is among them: %v", n, want,
			strings.Contains(text, want))
	}
	latency := fmt.Sprintf(`storage_controller_http_request_latency_count{method=%q,path=%q} 1`,
		methodLabel(method), row.Cell("label"))
	if strings.Contains(text, latency) == silent {
		t.Errorf("metrics have %s: %v", latency, !silent)
	}
}

// checkWait: until the leader has looked around the route waits, for half a minute,
// or does not care.
func checkWait(t *testing.T, row contract.Row) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, setup{})
		r.notReady = true
		method, path := example(row)
		begun := time.Now()
		g := r.ask(t.Context(), method, path, "x")
		took := time.Since(begun)
		waited := g.status == http.StatusRequestTimeout &&
			g.body == `{"msg":"Timed out waiting for service readiness"}` && took == 30*time.Second
		if want := row.Has("flags", "wait"); waited != want {
			t.Errorf("waits: %v, want %v; after %s: %d %s", waited, want, took, g.status, g.body)
		}
		if text := r.ask(t.Context(), "GET", "/metrics", "").body; waited &&
			strings.Contains(text, "http_request_status{") {
			t.Error("a request that was not begun is counted")
		}
	})
}

// checkRate: requests beyond the rate of a tenant are delayed and not refused.
func checkRate(t *testing.T, row contract.Row) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, setup{rate: 1})
		method, path := example(row)
		first := r.ask(t.Context(), method, path, "x")
		begun := time.Now()
		second := r.ask(t.Context(), method, path, "x")
		if delayed, want := time.Since(begun) >= 900*time.Millisecond, row.Has("flags",
			"limited"); delayed != want {
			t.Errorf("delayed: %v, want %v", delayed, want)
		}
		if first.status != second.status {
			t.Errorf("%d, then %d %s", first.status, second.status, second.body)
		}
	})
}

// additions are the routes that only this controller has.
var additions = []string{
	"GET /healthz",
	"GET /debug/v1/cluster", "GET /debug/v1/explain/:tenant_shard_id", "GET /debug/v1/operation",
	"GET /control/v1/cluster/members", "POST /control/v1/cluster/members",
	"DELETE /control/v1/cluster/members/:member_id",
	"PUT /control/v1/safekeeper/:safekeeper_id/gone",
	"POST /control/v1/cluster/members/:member_id/replace", "PUT /control/v1/cluster/transfer",
}

func TestContractHasEveryRoute(t *testing.T) {
	for _, rt := range routes(handlers{}) {
		name := rt.method + " " + rt.path
		row, ok := rowOf(rt.method, pathOf(rt))
		if !ok && !slices.Contains(additions, name) {
			t.Errorf("%s is neither in the contract nor an addition to it", name)
		}
		if ok && row.Has("flags", "replica") != (rt.duty == here) {
			t.Errorf("%s: a replica answers by itself: %v", name, rt.duty == here)
		}
	}
}

// TestContractScopes tries every scope on every route.
func TestContractScopes(t *testing.T) {
	pub, priv := newKey(t)
	w := newWorld(t, setup{key: pub, rate: 1 << 20})
	var served []contract.Row
	for _, row := range contract.Rows(contract.Route) {
		if isServed(t, row) {
			served = append(served, row)
		}
	}
	for _, scope := range contract.Rows(contract.Scope) {
		t.Run(scope.Name, func(t *testing.T) {
			var header []string
			if scope.Name != "none" {
				header = []string{
					"Authorization", "Bearer " + sign(t, priv, jwt.MapClaims{"scope": scope.Name}),
				}
			}
			for _, row := range served {
				method, path := example(row)
				g := w.replicas[0].do(method, cheap(path), "x", header...)
				want := row.Cell("scope")
				admitted := want == "-" || scope.Name != "none" &&
					(want == "any" || want == scope.Name || scope.Name == "admin")
				refused := g.status == 403 &&
					g.body == `{"msg":"Forbidden: JWT authentication error"}` ||
					g.status == 401 &&
						g.body == `{"msg":"Unauthorized: missing authorization header"}`
				if refused == admitted || (g.status == 401) != (!admitted && scope.Name == "none") {
					t.Errorf("%s: %d %s", row.Name, g.status, g.body)
				}
			}
			scope.Tick(t)
		})
	}
}

func TestContractErrors(t *testing.T) {
	codes := map[string]neon.Code{
		"BadRequest": neon.BadRequest, "Unauthorized": neon.Unauthorized,
		"Forbidden": neon.Forbidden, "NotFound": neon.NotFound,
		"Timeout": neon.Timeout, "Conflict": neon.Conflict,
		"PreconditionFailed": neon.PreconditionFailed,
		"TooManyRequests":    neon.TooManyRequests, "InternalServerError": neon.Internal,
		"Cancelled":           neon.Cancelled,
		"ResourceUnavailable": neon.Unavailable, "ShuttingDown": neon.ShuttingDown,
	}
	for _, row := range contract.Rows(contract.Error) {
		t.Run(row.Name, func(t *testing.T) {
			a := errorAnswer(fmt.Errorf("around: %w",
				neon.Errorf(codes[row.Name], `a "quoted" text`)))
			want := errorBody(row.Cell("text"))
			if fmt.Sprint(a.status) != row.Cell("status") || string(a.body) != string(want) {
				t.Errorf("%d %s, want %s %s", a.status, a.body, row.Cell("status"), want)
			}
			row.Tick(t)
		})
	}
}
