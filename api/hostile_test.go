package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"quorate/api/neon"
	"quorate/internal/contract"
	"quorate/internal/controller"
)

// hostileIDs stand in for the parameters of a path. The first two are of tenants
// that exist and that do not.
var hostileIDs = []string{
	tenantA, tenantB, strings.ToUpper(tenantA), tenantA + "-0001", tenantA + "-0102",
	tenantA + "-zz", tenantA + "_0001", tenantA[:31], tenantA + "0",
	"", "%00", tenantA[:31] + "%00", ".", "..", "%2e%2e", "%2f", "a%2fb", "%", "%zz", "%ff%fe", "ü",
	"%e2%80%ae", "*", ":tenant_id", "null", "{}", "'", "%22",
	"-1", "99", "18446744073709551615", "18446744073709551616", "1e3", "0x63", "+99", "%2099",
	"1.0", "٣", strings.Repeat("f", 5000), strings.Repeat("../", 500),
}

var hostileQueries = []string{
	"", "", "", "limit=1&limit=2", "limit=-1", "limit=18446744073709551616",
	"limit=1&limit=1&start_after=x", "start_after=" + tenantB, "force=1", "force=TRUE",
	"force=true&force=false", "force=", "lazy=maybe", "flush_ms=x", "wait_ms=-1",
	"wait_ms=99999999999999999999", "wait_ms=18446744073709551615", "concurrency=1e3",
	"recurse=yes", "detach_behavior=v3", "travel_to=yesterday", "travel_to=2026-01-01T00:00:00Z",
	"travel_to=2026-01-01T00:00:00Z&done_if_after=9999999999-01-01T00:00:00Z",
	"a=%zz", "&&&=", ";", "a;b=c", "%00=%00", "%ff=%ff", "concurrent=maybe", "format=svg",
	"seconds=0", "seconds=61", "frequency=1001", "=" + strings.Repeat("x", 20000), "a[]=1&a[]=2",
}

// hostileHeaders are added to a request.
var hostileHeaders = []string{
	"", "", "", "X-Request-Id: \r\n", "X-Request-Id: " + strings.Repeat("x", 3000) + "\r\n",
	"X-Request-Id: \xff\xfe\r\n", "Idempotency-Key: \r\n", "Idempotency-Key: \xff\r\n",
	"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", "X-Quorate-Hop: 1\r\n", "X-Quorate-Again: not_leader\r\n",
	"Content-Type: text/plain\r\n", "Content-Encoding: gzip\r\n", "Expect: 100-continue\r\n",
	"Connection: upgrade, x-request-id\r\nUpgrade: h2c\r\n", "Host: other\r\n",
	"Accept: nothing/at-all\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n", "Range: bytes=5-2\r\n",
	"Content-Length: 3\r\n",
}

var (
	number = regexp.MustCompile(`\b\d+\b`)
	text   = regexp.MustCompile(`"[^"]*"`)
	value  = regexp.MustCompile(`:("[^"]*"|\d+|true|false|null)`)
)

// spoilers make something else of a good body.
var spoilers = []func(*rand.Rand, string) string{
	func(_ *rand.Rand, s string) string { return s },
	func(*rand.Rand, string) string { return "" },
	func(r *rand.Rand, s string) string { return s[:r.IntN(len(s)+1)] },
	func(r *rand.Rand, s string) string {
		return []string{
			"null", "[]", `""`, "0", "{}", "true", "{", "\x00", "\ufeff{}", "nul", "[{}]", "\xff",
		}[r.IntN(12)]
	},
	func(_ *rand.Rand, s string) string { return number.ReplaceAllString(s, `"$0"`) },
	func(r *rand.Rand, s string) string {
		return number.ReplaceAllString(s, []string{
			"-1", "1.5", "1e400", "18446744073709551616", "99999999999999999999999999", "0", "256",
			"65536", "4294967296",
		}[r.IntN(9)])
	},
	func(_ *rand.Rand, s string) string { return value.ReplaceAllString(s, `:7`) },
	func(r *rand.Rand, s string) string {
		return value.ReplaceAllString(s, []string{
			`:null`, `:{}`, `:[]`, `:[[]]`, `:""`, `:"\u0000"`, `:"\ud800"`, ":\"\xff\xfe\"",
			`:true`, `:"` + tenantB + `"`, `:{"a":{}}`,
		}[r.IntN(11)])
	},
	func(r *rand.Rand, s string) string {
		return replaceOne(r, value, s, []string{
			`:null`, `:{}`, `:[]`, `:-1`, `:""`, `:"x"`, `:18446744073709551615`, `:0`, `:1e2`,
			`:false`,
		}[r.IntN(10)])
	},
	func(r *rand.Rand, s string) string { return replaceOne(r, text, s, `"\u0000"`) },
	func(
		_ *rand.Rand, s string,
	) string {
		return strings.Replace(s, "{", `{"unknown":{"x":[1,2]},`, 1)
	},
	func(
		_ *rand.Rand, s string,
	) string {
		return strings.Replace(s, "{", `{"`+"\xc3\x28"+`":1,`, 1)
	},
	func(_ *rand.Rand, s string) string {
		return strings.Replace(s, "{", "{"+strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")+",",
			1)
	},
	func(_ *rand.Rand, s string) string { return strings.Repeat("[", 30000) },
	func(_ *rand.Rand, s string) string { return strings.Repeat(`{"node_id":`, 3000) },
	func(_ *rand.Rand, s string) string { return s + " trailing \xff {" },
	func(_ *rand.Rand, s string) string { return strings.ToUpper(s) },
	func(r *rand.Rand, s string) string {
		b := []byte(s)
		for range 1 + r.IntN(3) {
			if len(b) > 0 {
				b[r.IntN(len(b))] = byte(r.IntN(256))
			}
		}
		return string(b)
	},
}

func replaceOne(r *rand.Rand, re *regexp.Regexp, s, by string) string {
	all := re.FindAllStringIndex(s, -1)
	if len(all) == 0 {
		return s
	}
	at := all[r.IntN(len(all))]
	return s[:at[0]] + by + s[at[1]:]
}

// siege is a controller with something to lose, behind a socket.
type siege struct {
	t      *testing.T
	w      *world
	r      *replica
	tokens []string // the first is an admin's

	answers map[int]int // by hundreds of the status

	mu     sync.Mutex
	panics []string
}

// Handle is part of slog.Handler: it hears of handlers that panicked.
func (s *siege) Handle(_ context.Context, rec slog.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Level >= slog.LevelError {
		text := rec.Message
		rec.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		s.panics = append(s.panics, text)
	}
	return nil
}

func (s *siege) Enabled(context.Context, slog.Level) bool { return true }
func (s *siege) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *siege) WithGroup(string) slog.Handler            { return s }

func newSiege(t *testing.T) *siege {
	pub, priv := newKey(t)
	w := newWorld(t, setup{
		key: pub, rate: 1 << 20,
		options: controller.Options{OntoSafekeepers: true}, perTimeline: 1,
	})
	s := &siege{
		t: t, w: w, r: w.replicas[0], answers: map[int]int{},
		tokens: []string{"Bearer " + sign(t, priv, jwt.MapClaims{"scope": "admin"})},
	}
	for _, scope := range contract.Rows(contract.Scope) {
		s.tokens = append(s.tokens, "Bearer "+sign(t, priv, jwt.MapClaims{"scope": scope.Name}))
	}
	s.tokens = append(s.tokens, "", "Bearer", "bearer "+s.tokens[0][7:], "Bearer x.y.z",
		s.tokens[0][:80], s.tokens[0]+"x", "Bearer \xff", "Basic eDp5",
		"Bearer "+sign(t, priv, jwt.MapClaims{"scope": "admin", "aud": "x"}),
		"Bearer "+sign(t, priv, jwt.MapClaims{"scope": "admin", "exp": 1}))
	s.r.server.logger = slog.New(s)
	w.addNodes(2)
	w.addSafekeepers(2)
	const create = `{"new_tenant_id":"` + tenantA + `","placement_policy":{"Attached":1}}`
	if g := s.r.do("POST", "/v1/tenant", create, "Authorization", s.tokens[0]); g.status != 201 {
		t.Fatal(g.status, g.body)
	}
	w.attach(tenantID(t, tenantA))
	w.calls.answer = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, []byte, error) {
		return 200, []byte(`{"timeline_id":"` + timelineX +
			`","last_record_lsn":"0/10","pg_version":16,"reparented_timelines":[],"shards":[],"heatmap_mtime":null,"layers_downloaded":0,"layers_total":0,"bytes_downloaded":0,"bytes_total":0}`), nil
	}
	return s
}

// holds is what there is to lose; a command that was refused only counts entries.
func (s *siege) holds() string {
	state := *s.r.State()
	state.Index = 0
	return state.Hash()
}

// assault is one request as it goes over the wire.
type assault struct {
	method, path, query, token, headers, body string

	length int // what is said of the body's length
}

func (a assault) wire() string {
	line := strings.NewReplacer("\r", "%0d", "\n", "%0a", " ", "%20").Replace(a.path)
	if a.query != "" {
		line += "?" + strings.NewReplacer("\r", "%0d", "\n", "%0a", " ", "%20").Replace(a.query)
	}
	auth := ""
	if a.token != "" {
		auth = "Authorization: " + a.token + "\r\n"
	}
	return fmt.Sprintf(
		"%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n%s%s\r\n%s",
		a.method, line, a.length, auth, a.headers, a.body)
}

// strike sends the request and checks the answer: there is one, nothing panicked,
// and a refusal has changed nothing.
func (s *siege) strike(a assault) {
	s.t.Helper()
	before := s.holds()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.r.web.URL, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, a.wire())
	if a.length > len(a.body) || strings.Contains(a.headers, "chunked") {
		_ = conn.(*net.TCPConn).CloseWrite() // nothing more comes
	}
	shot := fmt.Sprintf("%.3000q", a.wire())
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: a.method})
	if err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(in, &http.Request{Method: a.method})
	}
	if err != nil {
		s.t.Errorf("%s\nis not answered: %v", shot, err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	status := resp.StatusCode
	s.answers[status/100]++
	s.judge(shot, a, status, string(body))
	s.mu.Lock()
	for _, p := range s.panics {
		s.t.Errorf("%s\n%s", shot, p)
	}
	s.panics = nil
	s.mu.Unlock()
	if after := s.holds(); status >= 400 && after != before && !keepsRows(a, status) {
		s.t.Errorf("%s\nis answered with %d %s and has changed the state", shot, status, body)
	}
}

// keepsRows: a tenant without a place stays, and is placed when there is one.
func keepsRows(a assault, status int) bool {
	return status == http.StatusConflict && a.method == "POST" &&
		strings.HasPrefix(a.path, "/v1/tenant")
}

// broken are the answers of 500 and above that clients know; everything else about
// a bad request is said with a 4xx.
var broken = regexp.MustCompile(`not found for update|unexpected number of rows|negative version|unknown DNS name|We want tenant to be attached|not yet attached|` +
	`Node \d+ not registered|couldn't find \d+ safekeepers|quorum size|attachment changed|^null$|no such host|heap profiling not enabled|[0-9a-f-]+ shard not found`)

func (s *siege) judge(shot string, a assault, status int, body string) {
	s.t.Helper()
	switch {
	case status < 400, status < 500 && strings.HasPrefix(body, `{"msg":"`),
		status == 404 && body == "Not Found",
		status == 400 && strings.HasPrefix(body, "400 Bad Request"),
		status == 409 && body == "null", a.method == "HEAD",
		status == 501 && strings.Contains(a.headers, "gzip"), status == 417, status == 431:
	case status >= 500 && broken.MatchString(body):
	default:
		s.t.Errorf("%s\nis answered with %d %q", shot, status, body)
	}
}

// goodBody is what the route would like to have.
func goodBody(rt route) string {
	if b, ok := bodies[rt.method+" "+rt.path]; ok {
		return b
	}
	return `{"node_id":99}`
}

// assaults draws requests to a route.
func (s *siege) assault(rt route, r *rand.Rand) assault {
	id := func() string { return hostileIDs[r.IntN(len(hostileIDs))] }
	path := regexp.MustCompile(`:tenant_id|:tenant_shard_id`).ReplaceAllStringFunc(rt.path,
		func(string) string {
			// a split would wait for pageservers
			if r.IntN(2) == 0 && !strings.Contains(rt.path, "shard_split") {
				return tenantA
			}
			return id()
		})
	path = regexp.MustCompile(`:timeline_id`).ReplaceAllStringFunc(path, func(string) string {
		if r.IntN(2) == 0 {
			return timelineX
		}
		return id()
	})
	path = regexp.MustCompile(`:\w+|\*rest`).ReplaceAllStringFunc(path,
		func(string) string { return id() })
	a := assault{
		method: rt.method, path: path, query: hostileQueries[r.IntN(len(hostileQueries))],
		token: s.tokens[0],
	}
	if strings.HasPrefix(rt.path, "/profile/cpu") {
		a.query = "seconds=0"
	}
	switch r.IntN(12) {
	case 0:
		a.path += []string{
			"/", "//", "/..", "/%2e%2e/status", "?", "#", "\x00", "/x/y/z",
		}[r.IntN(8)]
	case 1:
		a.path = "/" + a.path
	case 2:
		a.method = []string{
			"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "TRACE", "BREW", "OPTIONS",
		}[r.IntN(9)]
	}
	if r.IntN(4) == 0 {
		a.token = s.tokens[r.IntN(len(s.tokens))]
	}
	a.headers = hostileHeaders[r.IntN(len(hostileHeaders))]
	a.body = spoilers[r.IntN(len(spoilers))](r, goodBody(rt))
	a.length = len(a.body)
	if r.IntN(10) == 0 {
		a.length = []int{0, 1, len(a.body) + 5, -1, 1 << 40, len(a.body) / 2}[r.IntN(6)]
	}
	return a
}

// TestNoRequestDoesHarm strikes every route many times, always the same way.
func TestNoRequestDoesHarm(t *testing.T) {
	const rounds = 40
	for i, rt := range routes(handlers{}) {
		t.Run(rt.method+" "+rt.path, func(t *testing.T) {
			s, r := newSiege(t), rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				s.strike(s.assault(rt, r))
			}
			large := assault{method: rt.method, path: strings.NewReplacer(":tenant_id", tenantB,
				":tenant_shard_id", tenantB, ":timeline_id", timelineX, "*rest",
				"x").Replace(rt.path),
				token: s.tokens[0], length: int(rt.body) + 1,
				body: `{"a":"` + strings.Repeat("x", 1<<16)}
			if !strings.HasPrefix(rt.path, "/profile") {
				s.strike(large)
			}
			if t.Logf("answers by hundreds: %v", s.answers); s.answers[4] < rounds/4 {
				t.Errorf("the requests are not hostile: %v", s.answers)
			}
		})
	}
}

// FuzzRequests lets the engine write paths, queries and bodies.
func FuzzRequests(f *testing.F) {
	all := routes(handlers{})
	for i, rt := range all {
		f.Add(uint8(i), uint64(i), pathOf(rt), "force=true", goodBody(rt))
	}
	f.Fuzz(func(t *testing.T, at uint8, seed uint64, path, query, body string) {
		rt := all[int(at)%len(all)]
		s := newSiege(t)
		a := s.assault(rt, rand.New(rand.NewPCG(2, seed)))
		if seed%2 == 0 && len(path) < 8000 && len(query) < 8000 && !strings.Contains(path,
			"profile") && !strings.Contains(path, "node/") &&
			!strings.Contains(path, "shard_split") {
			a.path, a.query = path, query
		}
		if len(body) < 1<<16 {
			a.body, a.length = body, len(body)
		}
		s.strike(a)
	})
}
