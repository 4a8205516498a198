package simpageserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
)

func shardOf(n int) neon.ShardID {
	var t neon.TenantID
	t[0], t[14], t[15] = 0xaa, byte(n>>8), byte(n)
	return neon.ShardID{Tenant: t}
}

func timelineOf(n int) neon.TimelineID {
	var t neon.TimelineID
	t[0], t[14], t[15] = 0xbb, byte(n>>8), byte(n)
	return t
}

// authority is a correct controller in miniature: it grants generations, answers
// re-attach and validate, and tells the oracle of each commit. Its lies are set
// by tests.
type authority struct {
	mu        sync.Mutex
	oracle    *Oracle
	gens      map[neon.ShardID]neon.Generation
	owner     map[neon.ShardID]neon.NodeID
	secondary map[neon.ShardID][]neon.NodeID
	validate  func(neon.ShardID, neon.Generation) (valid, listed bool)
	reattach  func(neon.ReAttachRequest, *neon.ReAttachResponse)
	registers []neon.NodeRegister
	refuse    int // upcalls still to be refused
	requests  []neon.ReAttachRequest
}

func newAuthority(o *Oracle) *authority {
	return &authority{
		oracle: o, gens: map[neon.ShardID]neon.Generation{}, owner: map[neon.ShardID]neon.NodeID{},
		secondary: map[neon.ShardID][]neon.NodeID{},
	}
}

func (a *authority) grant(shard neon.ShardID, node neon.NodeID) neon.Generation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grantLocked(shard, node)
}

func (a *authority) grantLocked(shard neon.ShardID, node neon.NodeID) neon.Generation {
	a.gens[shard]++
	a.owner[shard] = node
	if a.oracle != nil {
		a.oracle.Granted(shard, a.gens[shard], node)
	}
	return a.gens[shard]
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse > 0 {
		a.refuse--
		http.Error(w, `{"msg":"no"}`, http.StatusServiceUnavailable)
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/re-attach"):
		var req neon.ReAttachRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.requests = append(a.requests, req)
		_ = json.NewEncoder(w).Encode(a.answer(req))
	case strings.HasSuffix(r.URL.Path, "/validate"):
		var req neon.ValidateRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var resp neon.ValidateResponse
		for _, t := range req.Tenants {
			g, listed := a.gens[t.Shard]
			valid := g == t.Gen
			if a.validate != nil {
				valid, listed = a.validate(t.Shard, t.Gen)
			}
			if listed {
				resp.Tenants = append(resp.Tenants,
					neon.ValidatedTenant{Shard: t.Shard, Valid: valid})
			}
		}
		_ = json.NewEncoder(w).Encode(resp)
	default:
		http.NotFound(w, r)
	}
}

func (a *authority) answer(req neon.ReAttachRequest) neon.ReAttachResponse {
	if req.Register != nil {
		a.registers = append(a.registers, *req.Register)
	}
	var resp neon.ReAttachResponse
	for shard, node := range a.owner {
		if node == req.Node {
			g := a.grantLocked(shard, node)
			resp.Tenants = append(resp.Tenants, neon.ReAttachTenant{
				Shard: shard, Gen: &g, Mode: neon.AttachedSingle, StripeSize: 2048,
			})
		}
	}
	for shard, nodes := range a.secondary {
		for _, node := range nodes {
			if node == req.Node {
				resp.Tenants = append(resp.Tenants,
					neon.ReAttachTenant{Shard: shard, Mode: neon.Secondary, StripeSize: 2048})
			}
		}
	}
	if a.reattach != nil {
		a.reattach(req, &resp)
	}
	return resp
}

// world is a fleet, its authority and a client.
type world struct {
	t      *testing.T
	fleet  *Fleet
	auth   *authority
	client *http.Client
	base   string // of the upcalls
}

func newWorld(t *testing.T, opt Options) *world {
	t.Helper()
	f := NewFleet(opt)
	w := &world{
		t: t, fleet: f, auth: newAuthority(f.Oracle()),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}},
	}
	srv := httptest.NewServer(w.auth)
	w.base = srv.URL + "/upcall/v1/"
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		f.Close()
		srv.Close()
	})
	return w
}

// node adds and starts a node and waits until it serves.
func (w *world) node(id neon.NodeID, change ...func(*NodeOptions)) *Node {
	w.t.Helper()
	opt := NodeOptions{
		ID: id, AZ: neon.MakeAZ("az-" + id.String()), Upcalls: []string{w.base}, Register: true,
	}
	for _, f := range change {
		f(&opt)
	}
	n, err := w.fleet.AddNode(opt)
	if err != nil {
		w.t.Fatal(err)
	}
	w.start(n)
	return n
}

func (w *world) start(n *Node) {
	w.t.Helper()
	if err := n.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.ready(n)
}

func (w *world) ready(n *Node) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// do sends one request; a transport failure is status 0.
func (w *world) do(ctx context.Context, method, url string, body any) (int, string) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			w.t.Error(err)
			return 0, ""
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func (w *world) call(n *Node, method, path string, body any) (int, string) {
	w.t.Helper()
	return w.do(context.Background(), method, "http://"+n.Addr()+path, body)
}

// want is call with an expected status.
func (w *world) want(status int, n *Node, method, path string, body any) string {
	w.t.Helper()
	got, text := w.call(n, method, path, body)
	if got != status {
		w.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, text)
	}
	return text
}

func conf(m neon.LocationMode, gen neon.Generation) string {
	return confOf(shardOf(0), m, gen)
}

func confOf(shard neon.ShardID, m neon.LocationMode, gen neon.Generation) string {
	g, second := "null", "null"
	if m.Attached() {
		g = fmt.Sprint(uint32(gen))
	}
	if m == neon.Secondary {
		second = `{"warm":true}`
	}
	return fmt.Sprintf(`{"mode":%q,"generation":%s,"secondary_conf":%s,"shard_number":%d,"shard_count":%d,"shard_stripe_size":2048,"tenant_conf":{}}`,
		m, g, second, shard.Number, shard.Count)
}

func locationPath(shard neon.ShardID) string {
	return "/v1/tenant/" + shard.String() + "/location_config"
}

// put is a location PUT that must be answered with 200.
func (w *world) put(n *Node, shard neon.ShardID, m neon.LocationMode, gen neon.Generation) {
	w.t.Helper()
	w.want(200, n, "PUT", locationPath(shard), confOf(shard, m, gen))
}

// attach grants a generation and attaches.
func (w *world) attach(n *Node, shard neon.ShardID) neon.Generation {
	w.t.Helper()
	g := w.auth.grant(shard, n.ID())
	w.put(n, shard, neon.AttachedSingle, g)
	return g
}

// silent fails the test if the oracle found anything.
func (w *world) silent() {
	w.t.Helper()
	if err := w.fleet.Oracle().Err(); err != nil {
		w.t.Fatal(err)
	}
}

// reported fails the test unless exactly the given invariants were violated.
func (w *world) reported(want ...int) {
	w.t.Helper()
	sameInvariants(w.t, w.fleet.Oracle(), want...)
}

func sameInvariants(t *testing.T, o *Oracle, want ...int) {
	t.Helper()
	seen, wanted := map[int]bool{}, map[int]bool{}
	for _, v := range o.Violations() {
		seen[v.Invariant] = true
	}
	for _, n := range want {
		wanted[n] = true
		if !seen[n] {
			t.Errorf("violation of I%d was not reported", n)
		}
	}
	for n := range seen {
		if !wanted[n] {
			t.Errorf("I%d was reported, want %v: %v", n, want, o.Err())
		}
	}
}

// eventually polls a condition until it holds or a deadline passes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}
