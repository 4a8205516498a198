package api

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"quorate/internal/controller"
)

// TestIdleBodiesHoldNobodyUp opens many requests whose bodies never come, all with the
// token of one pageserver. Others must be answered as if these were not there.
func TestIdleBodiesHoldNobodyUp(t *testing.T) {
	pub, priv := newKey(t)
	w := newWorld(t, setup{replicas: 2, key: pub, options: controller.Options{}})
	w.addNodes(3)
	pageserver := "Bearer " + sign(t, priv, jwt.MapClaims{"scope": "generations_api"})
	admin := "Bearer " + sign(t, priv, jwt.MapClaims{"scope": "admin"})
	for _, r := range w.replicas {
		for range 64 {
			openIdleBody(t, r, "/upcall/v1/validate", pageserver)
			openIdleBody(t, r, "/control/v1/preferred_azs", admin)
		}
	}
	client := &http.Client{Timeout: 20 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	large := `{"tenants":[],"x":"` + strings.Repeat("x", 10<<20) + `"}`
	for _, r := range w.replicas {
		for _, ask := range []struct{ method, path, token, body string }{
			{"POST", "/upcall/v1/re-attach", pageserver, `{"node_id":1}`},
			{"POST", "/upcall/v1/validate", pageserver, large},
			{
				"POST", "/v1/tenant", admin,
				fmt.Sprintf(`{"new_tenant_id":"%032d"}`, 1+r.at),
			},
		} {
			began := time.Now()
			req, err := http.NewRequest(ask.method, r.web.URL+ask.path, strings.NewReader(ask.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", ask.token)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", ask.path, err)
			}
			text, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode/100 != 2 {
				t.Errorf("%s: %d %s", ask.path, resp.StatusCode, text)
			}
			// Without room for its body a request waits for 20 s. Under the race detector
			// a large one alone takes two.
			const limit = 8 * time.Second
			if took := time.Since(began); took > limit {
				t.Errorf("replica %d: %s took %s", r.at, ask.path, took)
			}
		}
	}
}

// openIdleBody sends the head of a request, and nothing of its body.
func openIdleBody(t *testing.T, r *replica, path, token string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.web.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n", path, token)
	if err != nil {
		t.Fatal(err)
	}
}

// TestBodiesThatDoNotComeAreRefused looks at what is told to those who send nothing, and
// that a refusal does not wait for a body that is not read.
func TestBodiesThatDoNotComeAreRefused(t *testing.T) {
	pub, priv := newKey(t)
	admin := sign(t, priv, jwt.MapClaims{"scope": "admin"})
	const head = "POST /upcall/v1/re-attach HTTP/1.1\r\nHost: x\r\n"
	for name, test := range map[string]struct {
		request, status, text string
		within                time.Duration
	}{
		"nothing": {
			head + "Authorization: Bearer " + admin + "\r\nContent-Length: 100\r\n\r\n",
			"408", "nothing came of the request body for 10s", idleTime + 2*time.Second,
		},
		"chunks that end": {
			head + "Authorization: Bearer " + admin +
				"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
			"408", "nothing came of the request body for 10s", idleTime + 2*time.Second,
		},
		"no token": {
			head + "Transfer-Encoding: chunked\r\n\r\n", "401", "missing authorization header",
			2 * time.Second,
		},
		"too large": {
			head + "Authorization: Bearer " + admin + "\r\nContent-Length: 9999999\r\n\r\n",
			"400", "larger than", 2 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &http.Server{Handler: newReplica(t, setup{key: pub}).server}
				l := newPipes()
				go func() { _ = server.Serve(l) }()
				c := l.dial()
				began := time.Now()
				go func() { _, _ = io.WriteString(c, test.request) }()
				answer, err := io.ReadAll(c)
				if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+test.status) ||
					!strings.Contains(string(answer), test.text) {
					t.Errorf("%v: %s", err, answer)
				}
				if took := time.Since(began); took > test.within {
					t.Errorf("took %s", took)
				}
				_, _ = c.Close(), server.Close()
			})
		})
	}
}

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func TestRequestIDsAreBounded(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	for id, kept := range map[string]bool{
		"a b": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
		strings.Repeat("y", 60<<10): false, "\xff\xfe": false, "a\tb": false,
	} {
		var log strings.Builder
		w.replicas[0].server.logger = slog.New(slog.NewTextHandler(&log, nil))
		got := w.replicas[0].do("GET", "/control/v1/node/99", "", "X-Request-Id", id)
		again := w.replicas[1].do("GET", "/control/v1/node/99", "", "X-Request-Id", id)
		told := got.header.Get("X-Request-Id")
		if told != again.header.Get("X-Request-Id") || len(told) > 128 || (told == id) != kept {
			t.Errorf("%.20q is told as %q and %.20q", id, told, again.header.Get("X-Request-Id"))
		}
		if got.status != 404 || log.Len() > 600 || !strings.Contains(log.String(), told) {
			t.Errorf("%d, %d bytes logged: %.600s", got.status, log.Len(), log.String())
		}
	}
}

func TestProbesAnswerHead(t *testing.T) {
	w := newWorld(t, setup{})
	candidate := httptest.NewServer(NewCandidate())
	t.Cleanup(candidate.Close)
	for _, url := range []string{w.replicas[0].web.URL, candidate.URL} {
		for _, path := range []string{"/live", "/live/", "/ready", "/status", "/metrics"} {
			want, err := http.Get(url + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = want.Body.Close()
			got, err := http.Head(url + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(got.Body)
			_ = got.Body.Close()
			if got.StatusCode != want.StatusCode || len(body) != 0 ||
				got.Header.Get("Content-Type") != want.Header.Get("Content-Type") {
				t.Errorf("%s: %d and not %d, %q", path, got.StatusCode, want.StatusCode, body)
			}
		}
	}
	if g := w.replicas[0].do("HEAD", "/control/v1/node", ""); g.status != 404 {
		t.Errorf("HEAD of what is no probe: %d", g.status)
	}
}
