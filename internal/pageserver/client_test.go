package pageserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

const (
	tenantText   = "1f359dd625e519a1a4e8d7509690f6fe"
	timelineText = "de200bd42b49cc1814412c7e592dd6e9"
)

func secret() string { return "secret" }

func testShard(t testing.TB) neon.ShardID {
	t.Helper()
	id, err := neon.ParseShardID(tenantText + "-0102")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func testTimeline(t testing.TB) neon.TimelineID {
	t.Helper()
	id, err := neon.ParseTimelineID(timelineText)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fake is a pageserver that gives one answer and remembers what it was asked.
type fake struct {
	*Client
	node *fsm.Node

	mu     sync.Mutex
	status int
	body   string
	asked  string // the last request, one line
	conns  map[string]bool
	calls  []Call
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{status: 200, body: "null", conns: make(map[string]bool)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asked = fmt.Sprintf("%s %s %q %s", r.Method, r.URL.RequestURI(),
			r.Header.Get("Authorization"), b)
		f.conns[r.RemoteAddr] = true
		w.WriteHeader(f.status)
		_, _ = io.WriteString(w, f.body)
	}))
	t.Cleanup(srv.Close)
	f.node = nodeAt(t, srv.URL)
	f.Client = New(Options{Token: secret, Observe: func(c Call) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, c)
	}})
	t.Cleanup(f.Close)
	return f
}

func nodeAt(t *testing.T, text string) *fsm.Node {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &fsm.Node{
		ID: 7, Addr: fsm.NodeAddr{HTTPHost: u.Hostname(), HTTPPort: uint16(port)},
	}
}

func (f *fake) answer(status int, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.body = status, body
}

func (f *fake) lastAsked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *fake) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// TestRequests fixes the request of every method and what it makes of the answer.
func TestRequests(t *testing.T) {
	f := newFake(t)
	ctx, shard, tl := t.Context(), testShard(t), testTimeline(t)
	conf := neon.LocationConfig{
		Mode: neon.AttachedStale, Generation: new(neon.Generation(3)), ShardNumber: 1,
		ShardCount: 2, StripeSize: 2048,
	}
	const confText = `{"mode":"AttachedStale","generation":3,"secondary_conf":null,"shard_number":1,"shard_count":2,"shard_stripe_size":2048,"tenant_conf":{}}`
	const infoText = `{"timeline_id":"` + timelineText +
		`","last_record_lsn":"0/16","pg_version":16,"extra":[1]}`
	const progress = `{"heatmap_mtime":"2025-07-01T12:00:00.120Z","layers_downloaded":1,"layers_total":2,"bytes_downloaded":3,"bytes_total":4}`
	at, auth := "/v1/tenant/"+tenantText+"-0102", ` "Bearer secret" `
	for _, tc := range []struct {
		name, asked, label string
		status             int
		body, want         string
		call               func() (any, error)
	}{
		{"put", "PUT " + at + "/location_config?flush_ms=500&lazy=true" + auth + confText,
			"location_config put", 200, "null", "<nil>",
			func() (any, error) {
				return nil, f.PutLocation(ctx, f.node, shard, &conf,
					neon.LocationOptions{Flush: 500 * time.Millisecond, Lazy: true})
			}},
		{"put plain", "PUT " + at + "/location_config" + auth + confText, "location_config put",
			200, `{"shards":[],"stripe_size":null}`, "<nil>",
			func() (any, error) {
				return nil, f.PutLocation(ctx, f.node, shard, &conf,
					neon.LocationOptions{})
			}},
		{"location", "GET /v1/location_config/" + shard.String() + auth + "null",
			"location_config get", 200, confText, "AttachedStale 3 true",
			func() (any, error) {
				c, found, err := f.Location(ctx, f.node, shard)
				return fmt.Sprintf("%s %d %t", c.Mode, *c.Generation, found), err
			}},
		{"location changing", "GET /v1/location_config/" + shard.String() + auth + "null",
			"location_config get", 200, "null", "true true",
			func() (any, error) {
				c, found, err := f.Location(ctx, f.node, shard)
				return fmt.Sprintf("%t %t", c == nil, found), err
			}},
		{"location absent", "GET /v1/location_config/" + shard.String() + auth + "null",
			"location_config get", 404, `{"msg":"x"}`, "false",
			func() (any, error) {
				_, found, err := f.Location(ctx, f.node,
					shard)
				return found, err
			}},
		{"locations", "GET /v1/location_config" + auth + "null", "location_configs get", 200,
			`{"tenant_shards":[["` + shard.String() + `",` + confText + `],["` + tenantText +
				`",null]]}`, "2 AttachedStale true",
			func() (any, error) {
				l, err := f.Locations(ctx, f.node)
				return fmt.Sprintf("%d %s %t", len(l), l[0].Config.Mode, l[1].Config == nil), err
			}},
		{"utilization", "GET /v1/utilization" + auth + "null", "utilization get", 200,
			`{"disk_usage_bytes":1,"free_space_bytes":2,"captured_at":"2025-07-01T12:00:00Z","shard_count":9}`,
			"9",
			func() (any, error) { u, err := f.Utilization(ctx, f.node); return u.ShardCount, err }},
		{"timelines", "GET " + at + "/timeline" + auth + "null", "timelines get", 200,
			"[" + infoText + "]", "0/16",
			func() (any, error) {
				last, err := f.Timelines(ctx, f.node, shard)
				return last[tl], err
			}},
		{"timeline create", "POST " + at + "/timeline" + auth + `{"new_timeline_id":"` +
			timelineText + `","existing_initdb_timeline_id":null,"pg_version":16}`,
			"timeline post", 201, infoText, timelineText,
			func() (any, error) {
				i, err := f.TimelineCreate(ctx, f.node, shard, neon.TimelineCreateRequest{
					Timeline:  tl,
					Bootstrap: &neon.TimelineBootstrap{PgVersion: new(neon.PgVersion(16))},
				})
				return i.Timeline, err
			}},
		{"timeline delete", "DELETE " + at + "/timeline/" + timelineText + auth + "null",
			"timeline delete", 202, "null", "202",
			func() (any, error) { return f.TimelineDelete(ctx, f.node, shard, tl) }},
		{"timeline deleted", "DELETE " + at + "/timeline/" + timelineText + auth + "null",
			"timeline delete", 404, `{"msg":"gone"}`, "404",
			func() (any, error) { return f.TimelineDelete(ctx, f.node, shard, tl) }},
		{"download", "POST " + at + "/secondary/download?wait_ms=1500" + auth + "null",
			"tenant_secondary_download post", 202, progress, "false 4",
			func() (any, error) {
				done, p, err := f.SecondaryDownload(ctx, f.node, shard, 1500*time.Millisecond)
				return fmt.Sprint(done, " ", p.BytesTotal), err
			}},
		{"downloaded", "POST " + at + "/secondary/download?wait_ms=0" + auth + "null",
			"tenant_secondary_download post", 200, progress, "true",
			func() (any, error) {
				done, _, err := f.SecondaryDownload(ctx, f.node, shard, 0)
				return done, err
			}},
		{"secondary status", "GET " + at + "/secondary/status" + auth + "null",
			"tenant_secondary_status get", 200, progress, "4",
			func() (any, error) {
				p, err := f.SecondaryStatus(ctx, f.node,
					shard)
				return p.BytesTotal, err
			}},
		{"heatmap", "POST " + at + "/heatmap_upload" + auth + "null", "tenant_heatmap_upload post",
			200, "null", "<nil>",
			func() (any, error) { return nil, f.HeatmapUpload(ctx, f.node, shard) }},
		{"wait", "POST " + at + "/wait_lsn" + auth + `{"` + timelineText +
			`":"0/16","timeout":{"secs":10,"nanos":0}}`, "wait_lsn post", 200, "null", "true",
			func() (any, error) {
				return f.WaitLSN(ctx, f.node, shard, map[neon.TimelineID]neon.Lsn{tl: 0x16},
					10*time.Second)
			}},
		{"waited in vain",
			"POST " + at + "/wait_lsn" + auth + `{"timeout":{"secs":0,"nanos":1000000}}`,
			"wait_lsn post", 202, "null", "false",
			func() (any, error) { return f.WaitLSN(ctx, f.node, shard, nil, time.Millisecond) }},
		{"tenant delete", "DELETE /v1/tenant/" + tenantText + auth + "null", "tenant delete", 200,
			"null", "<nil>",
			func() (any, error) { return nil, f.TenantDelete(ctx, f.node, shard.Tenant) }},
		{"tenant absent", "DELETE /v1/tenant/" + tenantText + auth + "null", "tenant delete", 404,
			`{"msg":"none"}`, "<nil>",
			func() (any, error) { return nil, f.TenantDelete(ctx, f.node, shard.Tenant) }},
	} {
		f.answer(tc.status, tc.body)
		got, err := tc.call()
		if err != nil || fmt.Sprint(got) != tc.want {
			t.Errorf("%s: %v, %v, want %s", tc.name, got, err, tc.want)
		}
		if asked := f.lastAsked(); asked != tc.asked {
			t.Errorf("%s: asked\n%s\nwant\n%s", tc.name, asked, tc.asked)
		}
		last := f.calls[len(f.calls)-1]
		if last.Path+" "+last.Method != tc.label || last.Status != tc.status || last.Node != 7 ||
			last.Duration <= 0 {
			t.Errorf("%s: observed %+v, want %s %d", tc.name, last, tc.label, tc.status)
		}
	}
}

func TestStatusErrorsBecomeWhatTheClientSees(t *testing.T) {
	f := newFake(t)
	for _, tc := range []struct {
		status int
		body   string
		code   neon.Code
		msg    string
	}{
		{404, `{"msg":"no slot"}`, neon.NotFound, "7 (127.0.0.1): no slot"},
		{503, `{"msg":"busy"}`, neon.Unavailable, "7 (127.0.0.1): busy"},
		{401, `{"msg":"who"}`, neon.Internal, "7 (127.0.0.1) 401 Unauthorized: who"},
		{403, `{"msg":"no"}`, neon.Internal, "7 (127.0.0.1) 403 Forbidden: no"},
		{
			429, `{"msg":"slow"}`, neon.Conflict,
			"7 (127.0.0.1) 429 Too Many Requests: 429 Too Many Requests slow",
		},
		{
			412, `{"msg":"Requested tenant is missing"}`, neon.Conflict,
			"7 (127.0.0.1) 412 Precondition Failed: 412 Precondition Failed Requested tenant is missing",
		},
		{
			500, `{"msg":"boom"}`, neon.Conflict,
			"7 (127.0.0.1) 500 Internal Server Error: 500 Internal Server Error boom",
		},
		{
			408, `{"msg":"late"}`, neon.Conflict,
			"7 (127.0.0.1) 408 Request Timeout: 408 Request Timeout late",
		},
		{
			502, `<html>`, neon.Unavailable,
			"7 (127.0.0.1) error receiving error body: Http error (502 Bad Gateway)",
		},
		{
			404, `page not found`, neon.Unavailable,
			"7 (127.0.0.1) error receiving error body: Http error (404 Not Found)",
		},
		{
			302, ``, neon.Unavailable,
			"7 (127.0.0.1) error receiving error body: Http error (302 Found)",
		},
	} {
		f.answer(tc.status, tc.body)
		err := f.HeatmapUpload(t.Context(), f.node, testShard(t))
		var s *StatusError
		if !errors.As(err, &s) || s.Status != tc.status ||
			s.NoMsg == strings.HasPrefix(tc.body, "{") {
			t.Errorf("%d %s: error %#v", tc.status, tc.body, err)
			continue
		}
		var api *neon.Error
		if !errors.As(fmt.Errorf("wrapped: %w", err), &api) || api.Code != tc.code ||
			api.Msg != tc.msg {
			t.Errorf("%d %s: a client sees %v %q, want %v %q", tc.status, tc.body, neon.CodeOf(err),
				api, tc.code, tc.msg)
		}
		if errors.Is(err, ErrUnreachable) {
			t.Errorf("%d %s: an answer is taken for none", tc.status, tc.body)
		}
	}
}

func TestNotFoundByAStrangerIsNoProofOfAbsence(t *testing.T) {
	f := newFake(t)
	f.answer(404, "404 page not found")
	if _, found, err := f.Location(t.Context(), f.node, testShard(t)); err == nil || found {
		t.Errorf("Location: %t, %v", found, err)
	}
	if status, err := f.TimelineDelete(t.Context(), f.node, testShard(t),
		testTimeline(t)); err == nil {
		t.Errorf("TimelineDelete: %d", status)
	}
	if err := f.TenantDelete(t.Context(), f.node, testShard(t).Tenant); err == nil {
		t.Error("TenantDelete succeeded")
	}
}

func TestTransportErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := nodeAt(t, "http://"+ln.Addr().String())
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(
		_ http.ResponseWriter, _ *http.Request,
	) {
		<-release
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(release) })
	cut := httptest.NewServer(http.HandlerFunc(func(
		http.ResponseWriter, *http.Request,
	) {
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(cut.Close)
	c := New(Options{})
	t.Cleanup(c.Close)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	gone, stop := context.WithCancel(t.Context())
	stop()
	for _, tc := range []struct {
		name                 string
		ctx                  context.Context
		to                   *fsm.Node
		code                 neon.Code
		unreachable, notSent bool
	}{
		{"refused", t.Context(), dead, neon.Unavailable, true, true},
		{"hung", short, nodeAt(t, srv.URL), neon.Timeout, true, false},
		{"cut", t.Context(), nodeAt(t, cut.URL), neon.Unavailable, true, false},
		{"cancelled", gone, nodeAt(t, srv.URL), neon.ShuttingDown, false, false},
		{
			"no port", t.Context(),
			&fsm.Node{ID: 1, Addr: fsm.NodeAddr{HTTPHost: "127.0.0.1", HTTPSPort: 1}},
			neon.Unavailable, true, false,
		},
	} {
		err := c.PutLocation(tc.ctx, tc.to, testShard(t),
			&neon.LocationConfig{Mode: neon.Detached}, neon.LocationOptions{})
		var e *TransportError
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v", tc.name, err)
			continue
		}
		if neon.CodeOf(err) != tc.code || errors.Is(err, ErrUnreachable) != tc.unreachable ||
			e.NotSent() != tc.notSent {
			t.Errorf("%s: code %v, unreachable %t, not sent %t: %v", tc.name,
				neon.CodeOf(err), errors.Is(err, ErrUnreachable), e.NotSent(), err)
		}
		if strings.Contains(err.Error(), tenantText) {
			t.Errorf("%s: the error repeats the URL: %v", tc.name, err)
		}
	}
}

func TestUndecodableAnswersAreErrors(t *testing.T) {
	f := newFake(t)
	for name, body := range map[string]string{
		"empty": "", "text": "hello", "wrong type": `{"tenant_shards":7}`,
		"large": `"` + strings.Repeat("x", smallBody) + `"`,
	} {
		f.answer(200, body)
		var d *DecodeError
		if _, err := f.Utilization(t.Context(),
			f.node); !errors.As(err, &d) || neon.CodeOf(err) != neon.Internal {
			t.Errorf("%s: Utilization: %v", name, err)
		}
		if _, err := f.Locations(t.Context(), f.node); !errors.As(err, &d) {
			t.Errorf("%s: Locations: %v", name, err)
		}
	}
}

func TestConnectionsAreKeptExceptForHeartbeats(t *testing.T) {
	f := newFake(t)
	for range 5 {
		if err := f.HeatmapUpload(t.Context(), f.node, testShard(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.connections(); n != 1 {
		t.Errorf("5 calls used %d connections, want 1", n)
	}
	f.answer(200,
		`{"disk_usage_bytes":1,"free_space_bytes":2,"captured_at":"2025-07-01T12:00:00Z"}`)
	for range 5 {
		if _, err := f.Utilization(t.Context(), f.node); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.connections(); n != 6 {
		t.Errorf("5 heartbeats and a kept connection make %d connections, want 6", n)
	}
}

func TestPassthroughCarriesPathAndAnswer(t *testing.T) {
	f := newFake(t)
	f.answer(418, "teapot")
	resp, err := f.Passthrough(t.Context(), f.node, http.MethodPut,
		"/v1/tenant/"+tenantText+"-0102/timeline/"+timelineText+"/mark_invisible?a=b%2Fc")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	if resp.StatusCode != 418 || string(body) != "teapot" {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
	if want := `PUT /v1/tenant/` + tenantText + `-0102/timeline/` + timelineText +
		`/mark_invisible?a=b%2Fc "Bearer secret" `; f.lastAsked() != want {
		t.Errorf("asked\n%q\nwant\n%q", f.lastAsked(), want)
	}
	if c := f.calls[0]; c.Path != "v1_tenant_timeline_mark_invisible" || c.Method != "get" ||
		!c.Passthrough || c.Status != 418 {
		t.Errorf("observed %+v", c)
	}
	for _, bad := range []string{"", "relative", "/%zz", "http://elsewhere/", "//elsewhere/path"} {
		resp, err := f.Passthrough(t.Context(), f.node, http.MethodGet, bad)
		if err == nil {
			_ = resp.Body.Close()
			if resp.Request.URL.Host != net.JoinHostPort(f.node.Addr.HTTPHost,
				strconv.Itoa(int(f.node.Addr.HTTPPort))) {
				t.Errorf("%q went to %s", bad, resp.Request.URL.Host)
			}
		}
	}
}

func TestPassthroughLabel(t *testing.T) {
	const timeline = "/timeline/0123456789abcdef0123456789abcdef"
	for path, want := range map[string]string{
		"/v1/tenant/" + tenantText + "?x=1":             "v1_tenant",
		"/v1/tenant/" + tenantText + "-0102/timeline//": "v1_tenant_timeline",
		"/v1/tenant/" + tenantText + "-0a10/timeline":   "v1_tenant_timeline",
		"/v1/tenant/" + strings.ToUpper(tenantText) +
			"/secondary/status": "v1_tenant_secondary_status",
		"/v1/tenant/" + tenantText + timeline + "/layer":                "v1_tenant_timeline_layer",
		"/v1/tenant/" + tenantText + timeline + "/layer/000-FFF__01-02": "v1_tenant_timeline_layer",
		"/v1/tenant/" + tenantText + timeline + "/layer/x/y":            "v1_tenant_other",
		"/v1/tenant/" + tenantText + timeline[:30]:                      "v1_tenant_other",
		"/v1/tenant/" + tenantText + "/whatever":                        "v1_tenant_other",
		"/v1/tenant/" + tenantText + "/timeline_layer":                  "v1_tenant_timeline_layer",
		"": "v1_tenant_other",
	} {
		if got := passthroughLabel(path); got != want {
			t.Errorf("%s is labelled %s, want %s", path, got, want)
		}
	}
	labels := map[string]bool{}
	for i := range 10_000 {
		labels[passthroughLabel(fmt.Sprintf("/v1/tenant/%s%s/x%d", tenantText, timeline, i))] = true
	}
	if len(labels) != 1 {
		t.Errorf("%d labels for paths that nobody knows", len(labels))
	}
}

func TestHTTPSUsesItsPort(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(
		w http.ResponseWriter, _ *http.Request,
	) {
		_, _ = io.WriteString(w, "null")
	}))
	t.Cleanup(srv.Close)
	node := nodeAt(t, srv.URL)
	node.Addr.HTTPPort, node.Addr.HTTPSPort = 1, node.Addr.HTTPPort
	c := New(Options{Transport: srv.Client().Transport, UseHTTPS: true})
	t.Cleanup(c.Close)
	if err := c.HeatmapUpload(t.Context(), node, testShard(t)); err != nil {
		t.Error(err)
	}
}

func FuzzPassthroughStaysOnTheNode(f *testing.F) {
	for _, s := range []string{
		"/v1/tenant/x", "//evil/x", "/..//", "http://evil/", "/a?b=c#d", "/%2f%2fevil", "/\\evil",
		"@evil",
	} {
		f.Add(s)
	}
	c := New(Options{Token: secret})
	to := &fsm.Node{ID: 1, Addr: fsm.NodeAddr{HTTPHost: "ps", HTTPPort: 9898}}
	f.Fuzz(func(t *testing.T, path string) {
		text, err := c.url(to, path)
		if err != nil {
			return
		}
		req, err := http.NewRequest(http.MethodGet, text, nil)
		if err != nil {
			return
		}
		if req.URL.Host != "ps:9898" || req.URL.Scheme != "http" || req.URL.User != nil {
			t.Fatalf("%q goes to %s", path, req.URL)
		}
	})
}

// Branches count whether they are offloaded or not. A timeline of its own has null for an
// ancestor.
func TestBranchesAreFound(t *testing.T) {
	other := strings.Repeat("ab", 16)
	entry := func(ancestor string) string {
		return fmt.Sprintf(`{"timeline_id":%q,"ancestor_timeline_id":%s}`, other, ancestor)
	}
	mine := strconv.Quote(timelineText)
	for body, want := range map[string]bool{
		`{"timelines":[` + entry("null") + `],"offloaded":[]}`:                    false,
		`{"timelines":[` + entry(mine) + `],"offloaded":[]}`:                      true,
		`{"timelines":[],"offloaded":[` + entry(mine) + `]}`:                      true,
		`{"timelines":[` + entry(strconv.Quote(other)) + `],"offloaded":[` + `]}`: false,
	} {
		f := newFake(t)
		f.body = body
		got, err := f.HasBranches(t.Context(), f.node, testShard(t), testTimeline(t))
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}
