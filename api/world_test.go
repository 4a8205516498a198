package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/auth"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/controller"
	"quorate/internal/decide"
	"quorate/internal/deletion"
	leaderduty "quorate/internal/duty"
	"quorate/internal/failpoint"
	"quorate/internal/imports"
	"quorate/internal/membership"
	"quorate/internal/metrics"
	"quorate/internal/split"
	"quorate/internal/timetravel"
	"quorate/internal/wait"
	"quorate/scheduler"
)

// world is some replicas, with fakes of everything around them, and their log.
type world struct {
	t        testing.TB
	replicas []*replica
	calls    *fakePageservers
	keepers  *fakeSafekeepers

	log *fsmtest.Log

	mu      sync.Mutex
	members []string       // of the Raft cluster
	leader  int            // -1: none
	changed wait.Broadcast // of leader
}

// replica is one controller of a world. It is its own Log, Leadership, Reality
// and so on.
type replica struct {
	imports *imports.Importer
	*world
	at      int
	options Options
	server  *Server
	web     *httptest.Server

	mu       sync.Mutex
	propose  func(next func() (fsm.Result, error)) (fsm.Result, error) // nil: next
	await    func(context.Context) error
	notReady bool

	outOfService string
	leaderless   string
	retired      bool
	observed     map[neon.ShardID]map[neon.NodeID]*neon.LocationConfig
	operations   map[neon.NodeID]decide.OperationStatus
	attached     []neon.NodeID // re-attaches heard of
	emptied      bool          // one of them without its disk
}

type setup struct {
	replicas int
	key      ed25519.PublicKey
	rate     int

	perTimeline int // safekeepers

	options    controller.Options
	hook       imports.Hook
	points     failpoint.Points
	failpoints func() Failpoints // of each server
	wrap       func(*replica, http.Handler) http.Handler
}

// keys are those that tokens are checked with; nil: none are needed.
func (s *setup) keys() *auth.Keys {
	if s.key == nil {
		return nil
	}
	return auth.NewKeys(s.key)
}

func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	w := newUnheardWorld(t, s)
	for _, r := range w.replicas {
		var h http.Handler = r.server
		if s.wrap != nil {
			h = s.wrap(r, h)
		}
		r.web = httptest.NewServer(h)
		t.Cleanup(r.web.Close)
	}
	return w
}

// newReplica is the only replica of a world, without a listener: requests are given
// to its server by ask, so that time may be virtual.
func newReplica(t testing.TB, s setup) *replica { return newUnheardWorld(t, s).replicas[0] }

// newUnheardWorld has replicas without listeners.
func newUnheardWorld(t testing.TB, s setup) *world {
	w := &world{
		t: t, log: fsmtest.NewLog(), calls: &fakePageservers{}, keepers: &fakeSafekeepers{},
	}
	for i := range max(1, s.replicas) {
		r := &replica{world: w, at: i}
		r.options = newOptions(r, s)
		r.server = New(r.options)
		w.replicas = append(w.replicas, r)
	}
	return w
}

func newOptions(r *replica, s setup) Options {
	deps := controller.Deps{
		Log: r, Reality: r, Nodes: r, Passes: r, Pageservers: r.calls,
		Resolve: func(_ context.Context, host string) error {
			if host == "nowhere" {
				return fmt.Errorf("no such host")
			}
			return nil
		},
		Options: s.options, Logger: slog.New(slog.DiscardHandler),
		Failpoints: s.points,
	}
	reg := prometheus.NewRegistry()
	transport := &http.Transport{DisableCompression: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	logger := slog.New(slog.DiscardHandler)
	members := membership.Deps{
		Log: r, Safekeepers: r.keepers, Loads: r.keepers, Hook: r.keepers, Failpoints: s.points,
		PerTimeline: s.perTimeline, Logger: logger,
	}
	creator := membership.NewCreator(members)
	turns := new(leaderduty.Turns[neon.TimelineRef])
	creating := new(leaderduty.Turns[neon.TimelineRef])
	r.imports = imports.New(imports.Deps{
		Log: r, Pageservers: r.calls, Safekeepers: creator, Hook: s.hook, Turns: turns,
		Failpoints: s.points, OntoSafekeepers: s.options.OntoSafekeepers, Logger: logger,
	})
	o := Options{
		Migrations:        membership.NewMigrator(members),
		TenantDeletions:   deletion.NewTenants(r, r, r.calls, logger),
		Travels:           timetravel.New(r, r, r.calls, logger),
		TimelineDeletions: deletion.NewTimelines(r, r, r.calls, turns, creating, logger),

		Tenants: controller.NewTenants(deps), Shards: controller.NewShards(deps),
		Splits: split.New(split.Deps{
			Log: r, Reconciler: r, Logger: slog.New(slog.DiscardHandler),
		}),
		Nodes:      controller.NewNodes(deps),
		Operations: controller.NewOperations(deps), Upcalls: controller.NewUpcalls(deps),
		Timelines:   controller.NewTimelines(deps, creator, r.imports, creating),
		Debug:       controller.NewDebug(deps),
		Safekeepers: controller.NewSafekeepers(deps),
		Leadership:  r, Readiness: r, State: r.State,
		Cluster: func() neon.Cluster {
			return neon.Cluster{
				ID: "c", Server: fmt.Sprint(r.at), Members: []neon.ClusterMember{},
			}
		},
		Members: fakeMembers{r}.List, Membership: fakeMembers{r},
		AskLeader: r.askLeader, Peers: transport, Keys: s.keys(), RatePerSec: s.rate,
		Registry: reg, Metrics: metrics.New(reg, r.State), Logger: slog.New(slog.DiscardHandler),
	}
	if s.failpoints != nil {
		o.Failpoints = s.failpoints()
	}
	return o
}

func (w *world) setLeader(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leader = i
	w.changed.Notify()
}

func (w *world) leads() (int, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leader, w.changed.Changed()
}

func (w *world) committed() int { return len(w.log.Commands()) }

func (w *world) must(c fsm.Command) fsm.Result {
	w.t.Helper()
	return w.log.Must(w.t, c)
}

// addNodes registers active pageservers 1..n in one zone.
func (w *world) addNodes(n int) {
	w.t.Helper()
	w.log.AddNodes(w.t, n, neon.MakeAZ("az-a"))
}

// attach issues a generation to the intended node of each shard of a tenant.
func (w *world) attach(id neon.TenantID) {
	w.t.Helper()
	for sh := range w.log.State().TenantShards(id) {
		w.must(fsm.IssueGenerations{
			Items: []fsm.Issue{{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation}},
		})
	}
}

var errFollows = neon.Errorf(neon.NotLeader, "This replica does not lead")

func (r *replica) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	if !r.IsLeader() {
		return fsm.Result{}, errFollows
	}
	next := func() (fsm.Result, error) {
		res, err := r.log.Commit(id, c)
		if err == nil {
			decide.Acted(ctx)
		}
		return res, err
	}
	r.mu.Lock()
	f := r.propose
	r.mu.Unlock()
	if f != nil {
		return f(next)
	}
	return next()
}

func (r *replica) State() *fsm.State { return r.log.State() }

func (r *replica) Changed() <-chan struct{} { return r.log.Changed() }

func (r *replica) ReadState(context.Context) (*fsm.State, error) {
	if l, _ := r.leads(); l < 0 {
		return nil, errFollows
	}
	return r.log.State(), nil
}

func (r *replica) IsLeader() bool { l, _ := r.leads(); return l == r.at }

func (r *replica) Leader(ctx context.Context) (string, bool, error) {
	for {
		l, changed := r.leads()
		if l >= 0 {
			return r.replicas[l].web.URL, l == r.at, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	}
}

func (r *replica) While(ctx context.Context, address string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for ctx.Err() == nil {
			l, changed := r.leads()
			if l < 0 || r.replicas[l].web.URL != address {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}()
	return ctx, cancel
}

func (r *replica) StepDown(context.Context) (neon.GlobalObserved, error) {
	if r.IsLeader() {
		r.setLeader((r.at + 1) % len(r.replicas))
	}
	return neon.GlobalObserved{}, nil
}

func (r *replica) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.notReady
}

func (r *replica) OutOfService() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outOfService
}

func (r *replica) Leaderless() string { return r.leaderless }

func (r *replica) Retired() bool { return r.retired }

func (r *replica) Serves() bool { return r.Ready() }

// askLeader is a question as the members of a cluster ask it.
func (r *replica) askLeader(_ context.Context, question []byte) ([]byte, error) {
	r.world.mu.Lock()
	leader := r.world.leader
	r.world.mu.Unlock()
	if leader < 0 {
		return nil, errors.New("no leader")
	}
	return r.replicas[leader].server.Answer(nil, question), nil
}

func (r *replica) WaitReady(ctx context.Context) error {
	if r.Ready() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (r *replica) Await(ctx context.Context, _ uint64, _ ...neon.ShardID) error {
	r.mu.Lock()
	f := r.await
	r.mu.Unlock()
	if f != nil {
		return f(ctx)
	}
	return nil
}

func (r *replica) Kick(...neon.ShardID) {}

func (r *replica) Silent() []neon.NodeID { return nil }

func (r *replica) LimitWarming(neon.ShardID, *time.Duration, *time.Duration) {}

func (r *replica) Cancel(ctx context.Context, id neon.ShardID) error { return r.Await(ctx, 0, id) }

func (r *replica) AwaitTerm(context.Context) error { return nil }

func (r *replica) AwaitNoWorker(context.Context, ...neon.ShardID) error { return nil }

func (r *replica) Detach(context.Context, *fsm.Node, neon.ShardID) error { return nil }

func (r *replica) Status(id neon.ShardID) decide.ShardStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return decide.ShardStatus{Observed: r.observed[id]}
}

func (r *replica) Work(fsm.Shard) decide.ShardStatus { return decide.ShardStatus{} }

func (r *replica) Operation(n neon.NodeID) decide.OperationStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.operations[n]
}

func (r *replica) SeenOn(n neon.NodeID) (ids []neon.ShardID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, locations := range r.observed {
		if _, seen := locations[n]; seen {
			ids = append(ids, id)
		}
	}
	return ids
}

func (r *replica) Loads() map[neon.NodeID]scheduler.Load { return nil }

func (r *replica) ReAttached(n neon.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attached = append(r.attached, n)
}

func (r *replica) ReAttachedEmpty(n neon.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attached, r.emptied = append(r.attached, n), true
}

func (r *replica) ActivateNode(ctx context.Context, n neon.NodeID) error {
	_, err := r.Propose(ctx, fsm.RequestID{},
		fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: n, To: neon.NodeActive}}})
	return err
}

func (r *replica) Utilization(
	neon.NodeID,
) (neon.Utilization, bool) {
	return neon.Utilization{}, false
}

func (r *replica) ReconcileAll(context.Context) (int, error) { return 0, nil }

// fakePageservers answers as told, and success when not told.
type fakePageservers struct {
	mu     sync.Mutex
	log    []string
	create func(
		node neon.NodeID, shard neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error)
	remove  func(node neon.NodeID, shard neon.ShardID) (int, error)
	wipe    func(node neon.NodeID) error
	answer  func(node neon.NodeID, shard neon.ShardID, call neon.ShardCall) (int, []byte, error)
	through func(node neon.NodeID, method, target string) (*http.Response, error)
}

func (f *fakePageservers) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

func (f *fakePageservers) calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.log...)
}

func (f *fakePageservers) TenantDelete(_ context.Context, n *fsm.Node, id neon.TenantID) error {
	f.note("wipe %s on %d", id, n.ID)
	if f.wipe != nil {
		return f.wipe(n.ID)
	}
	return nil
}

func (f *fakePageservers) TimelineCreate(
	_ context.Context, n *fsm.Node, s neon.ShardID, req neon.TimelineCreateRequest,
) (neon.TimelineInfo, error) {
	body, _ := json.Marshal(req)
	f.note("create %s on %d: %s", s, n.ID, body)
	if f.create != nil {
		return f.create(n.ID, s, req)
	}
	return timelineInfo(req.Timeline), nil
}

func timelineInfo(id neon.TimelineID) (info neon.TimelineInfo) {
	text := fmt.Sprintf(
		`{"timeline_id":"%s","last_record_lsn":"0/10","ancestor_lsn":"0/8","pg_version":16,"x":[1, 2]}`,
		id)
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		panic(err)
	}
	return info
}

func (f *fakePageservers) TimelineDelete(
	ctx context.Context, n *fsm.Node, s neon.ShardID, _ neon.TimelineID,
) (status int, err error) {
	f.note("delete %s on %d", s, n.ID)
	status = http.StatusNotFound
	if f.remove != nil {
		status, err = f.remove(n.ID, s)
	}
	if ctx.Err() != nil { // the caller has gone
		return 0, ctx.Err()
	}
	return status, err
}

func (f *fakePageservers) HasBranches(
	context.Context, *fsm.Node, neon.ShardID, neon.TimelineID,
) (bool, error) {
	return false, nil
}

func (f *fakePageservers) Call(
	_ context.Context, n *fsm.Node, s neon.ShardID, call neon.ShardCall,
) (int, []byte, error) {
	body, _ := json.Marshal(call.Body)
	f.note("%s %s/%s on %d: %s", call.Method, s, call.Path, n.ID, body)
	if f.answer != nil {
		return f.answer(n.ID, s, call)
	}
	return http.StatusOK, []byte("null"), nil
}

func (f *fakePageservers) Passthrough(
	_ context.Context, n *fsm.Node, method, target string,
) (*http.Response, error) {
	f.note("%s %s on %d", method, target, n.ID)
	if f.through != nil {
		return f.through(n.ID, method, target)
	}
	return response(http.StatusOK, `{"state":"Active"}`), nil
}

func response(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewBufferString(body)),
	}
}

// reply to one request, read whole.
type got struct {
	status int
	header http.Header
	body   string
}

func (r *replica) do(method, path, body string, header ...string) got {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.web.URL+path, bytes.NewBufferString(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := r.web.Client().Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return got{status: resp.StatusCode, header: resp.Header, body: string(b)}
}

func (g got) want(t testing.TB, status int, body string) {
	t.Helper()
	if g.status != status || g.body != body {
		t.Errorf("got %d %s\nwant %d %s", g.status, g.body, status, body)
	}
}

func params(kv ...string) (p gin.Params) {
	for i := 0; i < len(kv); i += 2 {
		p = append(p, gin.Param{Key: kv[i], Value: kv[i+1]})
	}
	return p
}
