package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/membership"
	"quorate/scheduler"
)

// fakeReality has every shard where it should be at once, unless its fields say otherwise.
// It notes what it is asked to do.
type fakeReality struct {
	operations  map[neon.NodeID]decide.OperationStatus
	silent      []neon.NodeID
	await       func(ctx context.Context, index uint64, shards []neon.ShardID) error
	cancel      func(context.Context, neon.ShardID) error
	activate    func(context.Context, neon.NodeID) error
	pass        func(context.Context) (int, error)
	status      map[neon.ShardID]decide.ShardStatus
	loads       map[neon.NodeID]scheduler.Load
	utilization map[neon.NodeID]neon.Utilization

	mu         sync.Mutex
	kicked     []neon.ShardID
	awaited    []neon.ShardID
	limits     []warmLimit
	reAttached []reAttached
}

type warmLimit struct {
	shard         neon.ShardID
	warm, request *time.Duration
}

type reAttached struct {
	node  neon.NodeID
	empty bool
}

func (f *fakeReality) Await(ctx context.Context, index uint64, shards ...neon.ShardID) error {
	f.mu.Lock()
	f.awaited = append(f.awaited, shards...)
	f.mu.Unlock()
	if f.await != nil {
		return f.await(ctx, index, shards)
	}
	return nil
}

func (f *fakeReality) Kick(shards ...neon.ShardID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kicked = append(f.kicked, shards...)
}

func (f *fakeReality) Silent() []neon.NodeID { return f.silent }

func (f *fakeReality) Status(id neon.ShardID) decide.ShardStatus { return f.status[id] }

func (f *fakeReality) Work(sh fsm.Shard) decide.ShardStatus {
	w := f.status[sh.ID]
	w.Observed = nil
	return w
}

func (f *fakeReality) Operation(n neon.NodeID) decide.OperationStatus { return f.operations[n] }

func (f *fakeReality) LimitWarming(id neon.ShardID, warm, request *time.Duration) {
	f.limits = append(f.limits, warmLimit{id, warm, request})
}

func (f *fakeReality) Cancel(ctx context.Context, id neon.ShardID) error {
	if f.cancel != nil {
		return f.cancel(ctx, id)
	}
	return nil
}

func (f *fakeReality) SeenOn(n neon.NodeID) (ids []neon.ShardID) {
	for id, s := range f.status {
		if _, seen := s.Observed[n]; seen {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *fakeReality) Loads() map[neon.NodeID]scheduler.Load { return f.loads }

func (f *fakeReality) ReAttached(n neon.NodeID) {
	f.reAttached = append(f.reAttached, reAttached{node: n})
}

func (f *fakeReality) ReAttachedEmpty(n neon.NodeID) {
	f.reAttached = append(f.reAttached, reAttached{node: n, empty: true})
}

func (f *fakeReality) ActivateNode(ctx context.Context, id neon.NodeID) error {
	if f.activate != nil {
		return f.activate(ctx, id)
	}
	return nil
}

func (f *fakeReality) Utilization(id neon.NodeID) (neon.Utilization, bool) {
	u, ok := f.utilization[id]
	return u, ok
}

func (f *fakeReality) ReconcileAll(ctx context.Context) (int, error) {
	if f.pass != nil {
		return f.pass(ctx)
	}
	return 0, nil
}

// fakePageservers answers with what its fields say, and notes the calls.
type fakePageservers struct {
	create  func(neon.NodeID, neon.ShardID, neon.TimelineCreateRequest) (neon.TimelineInfo, error)
	call    func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) // nil: 200 null
	through func(path string) (*http.Response, error)

	mu    sync.Mutex
	calls []string
}

func (f *fakePageservers) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// took returns the calls since it was called last. Calls of one fan-out come in no order,
// so it sorts them.
func (f *fakePageservers) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := slices.Sorted(slices.Values(f.calls))
	f.calls = nil
	return calls
}

func (f *fakePageservers) TimelineCreate(
	_ context.Context, n *fsm.Node, id neon.ShardID, req neon.TimelineCreateRequest,
) (i neon.TimelineInfo, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return i, err
	}
	f.note("shard %d on %d: create %s", id.Number, n.ID, body)
	if f.create == nil {
		return i, fmt.Errorf("not expected")
	}
	return f.create(n.ID, id, req)
}

func (f *fakePageservers) Call(
	_ context.Context, n *fsm.Node, id neon.ShardID, c neon.ShardCall,
) (int, []byte, error) {
	call := fmt.Sprintf("shard %d on %d: %s %s", id.Number, n.ID, c.Method, c.Path)
	if c.Body != nil {
		body, err := json.Marshal(c.Body)
		if err != nil {
			return 0, nil, err
		}
		call += " " + string(body)
	}
	f.note("%s", call)
	if f.call == nil {
		return http.StatusOK, []byte("null"), nil
	}
	status, body, err := f.call(n.ID, id, c)
	return status, []byte(body), err
}

func (f *fakePageservers) Passthrough(
	_ context.Context, n *fsm.Node, method, path string,
) (*http.Response, error) {
	f.note("on %d: %s %s", n.ID, method, path)
	if f.through == nil {
		return nil, fmt.Errorf("not expected")
	}
	return f.through(path)
}

// response is an answer of a pageserver to a request that was passed through.
func response(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"X-From": {"pageserver"}},
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

// statusError is an answer of a pageserver that is an error. The client of pageservers has
// classified it.
type statusError struct {
	status int
	code   neon.Code
	msg    string
}

func (e *statusError) Error() string   { return e.msg }
func (e *statusError) HTTPStatus() int { return e.status }
func (e *statusError) Message() string { return e.msg }
func (e *statusError) Unwrap() error   { return neon.Errorf(e.code, "%s", e.msg) }

// fakeKeepers notes which timelines it is asked to put on safekeepers, and which imports
// begin.
type fakeKeepers struct {
	err     error
	during  func() // while a timeline is put on safekeepers
	created []membership.Timeline
	begun   []neon.TimelineRef
}

func (f *fakeKeepers) Create(
	_ context.Context, t membership.Timeline,
) (*neon.SafekeeperSet, error) {
	f.created = append(f.created, t)
	if f.during != nil {
		f.during()
	}
	if f.err != nil {
		return nil, f.err
	}
	return &neon.SafekeeperSet{Tenant: t.Tenant, Timeline: t.Info.Timeline, Generation: 1}, nil
}

func (f *fakeKeepers) Begin(_ context.Context, ref neon.TimelineRef) error {
	f.begun = append(f.begun, ref)
	return f.err
}

func newDeps(l *fsmtest.Faulty, r *fakeReality, p *fakePageservers) Deps {
	return Deps{
		Log: l, Reality: r, Nodes: r, Passes: r, Pageservers: p,
		Resolve: func(context.Context, string) error { return nil },
		Logger:  slog.New(slog.DiscardHandler),
	}
}

var tenantOne = neon.TenantID{1}

func create(t testing.TB, tenants *Tenants, count neon.ShardCount) {
	t.Helper()
	_, err := tenants.Create(t.Context(), neon.TenantCreateRequest{
		Tenant:          neon.Unsharded(tenantOne),
		ShardParameters: &neon.ShardParameters{Count: count, StripeSize: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// world is a log with pageservers, and fakes of all that is around a resource.
type world struct {
	Deps
	t       testing.TB
	log     *fsmtest.Faulty
	reality *fakeReality
	calls   *fakePageservers

	creating duty.Turns[neon.TimelineRef]
}

// newWorld has pageservers 1 to n, all Active and in zone a.
func newWorld(t testing.TB, n int) *world {
	w := &world{
		t: t, log: fsmtest.NewFaulty(t), reality: &fakeReality{}, calls: &fakePageservers{},
	}
	w.log.AddNodes(t, n, neon.MakeAZ("a"))
	w.Deps = newDeps(w.log, w.reality, w.calls)
	return w
}

// tenant creates a tenant whose shard i is attached on node i+1.
func (w *world) tenant(id neon.TenantID, count neon.ShardCount) []neon.ShardID {
	w.t.Helper()
	c := fsm.CreateTenant{
		ID: id, Count: count, Stripe: 8, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
	}
	for i := range count.Shards() {
		c.Shards = append(c.Shards, fsm.NewShard{Attached: neon.NodeID(i + 1)})
	}
	w.log.Must(c)
	w.log.Attach(w.t, id)
	return neon.ShardIDs(id, count)
}

func (w *world) shard(id neon.ShardID) fsm.Shard {
	w.t.Helper()
	sh, ok := w.log.State().Shard(id)
	if !ok {
		w.t.Fatalf("there is no shard %s", id)
	}
	return sh
}

func (w *world) node(id neon.NodeID) fsm.Node {
	n, _ := w.log.State().Node(id)
	return n
}

// refuses demands that a request ends with an error of that class and text, and that
// nothing was proposed for it.
func (w *world) refuses(code neon.Code, text string, request func(context.Context) error) {
	w.t.Helper()
	before := len(w.log.Proposed())
	w.fails(code, text, request)
	if now := w.log.Proposed(); len(now) != before {
		w.t.Errorf("it was refused, but %+v was proposed", now[before:])
	}
}

// fails demands that a request ends with an error of that class and text.
func (w *world) fails(code neon.Code, text string, request func(context.Context) error) {
	w.t.Helper()
	err := request(w.t.Context())
	switch {
	case err == nil:
		w.t.Errorf("no error, want %s: %s", code, text)
	case neon.CodeOf(err) != code || !strings.Contains(err.Error(), text):
		w.t.Errorf("got %s: %v, want %s: %s", neon.CodeOf(err), err, code, text)
	}
}

// unreadable demands that requests fail, and answer nothing, when no linearizable read is
// possible.
func (w *world) unreadable(requests map[string]func(context.Context) error) {
	w.t.Helper()
	w.log.FailReads(neon.Errorf(neon.NotLeader, "no leader"))
	defer w.log.FailReads(nil)
	for name, request := range requests {
		before := len(w.log.Proposed())
		if err := request(w.t.Context()); neon.CodeOf(err) != neon.NotLeader {
			w.t.Errorf("%s: %v", name, err)
		}
		if len(w.log.Proposed()) != before {
			w.t.Errorf("%s: something was proposed", name)
		}
	}
}

// info is what a pageserver says about a timeline.
func info(t testing.TB, id neon.TimelineID, rest string) (i neon.TimelineInfo) {
	t.Helper()
	text := fmt.Sprintf(`{"timeline_id":"%s","last_record_lsn":"0/10","pg_version":16%s}`, id, rest)
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// equal demands that two lists are the same.
func equal[T comparable](t testing.TB, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
