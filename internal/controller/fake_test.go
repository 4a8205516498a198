package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/scheduler"
)

// fakeLog is a log whose local state may lag behind what was acknowledged.
type fakeLog struct {
	*fsmtest.Log
	t    testing.TB
	mu   sync.Mutex
	lag  *fsm.State // what State returns until this replica has caught up
	fail error      // of ReadState

	proposed []fsm.Command
	before   func(fsm.Command)       // somebody is faster
	after    func(fsm.Command) error // the answer is lost
	lose     error                   // that of every proposal, which is lost too
}

func newLog(t testing.TB) *fakeLog { return &fakeLog{t: t, Log: fsmtest.NewLog()} }

func (l *fakeLog) must(c fsm.Command) {
	l.t.Helper()
	l.Must(l.t, c)
}

func (l *fakeLog) Propose(_ context.Context, id fsm.RequestID, c fsm.Command) (fsm.Result, error) {
	l.mu.Lock()
	l.proposed = append(l.proposed, c)
	l.lag = nil // what was proposed here was applied here
	l.mu.Unlock()
	if l.lose != nil {
		return fsm.Result{}, l.lose
	}
	if l.before != nil {
		l.before(c)
	}
	r, err := l.Commit(id, c)
	if err == nil && l.after != nil {
		if lost := l.after(c); lost != nil {
			return fsm.Result{}, lost
		}
	}
	return r, err
}

func (l *fakeLog) State() *fsm.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lag != nil {
		return l.lag
	}
	return l.Log.State()
}

func (l *fakeLog) ReadState(context.Context) (*fsm.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	l.lag = nil
	return l.Log.State(), nil
}

func (l *fakeLog) addNodes(n int) {
	l.t.Helper()
	l.AddNodes(l.t, n, neon.MakeAZ("a"))
}

// fakeReality is where everything is as it should be at once, unless told.
type fakeReality struct {
	await  func(ctx context.Context, index uint64, shards []neon.ShardID) error
	status map[neon.ShardID]ShardStatus
}

func (f *fakeReality) Await(ctx context.Context, index uint64, shards ...neon.ShardID) error {
	if f.await != nil {
		return f.await(ctx, index, shards)
	}
	return nil
}
func (f *fakeReality) Kick(...neon.ShardID) {}
func (f *fakeReality) Status(
	id neon.ShardID,
) ShardStatus {
	return f.status[id]
}
func (f *fakeReality) LimitWarming(neon.ShardID, *time.Duration, *time.Duration) {}
func (f *fakeReality) Cancel(context.Context, neon.ShardID) error                { return nil }
func (f *fakeReality) SeenOn(n neon.NodeID) (ids []neon.ShardID) {
	for id, s := range f.status {
		if _, seen := s.Observed[n]; seen {
			ids = append(ids, id)
		}
	}
	return ids
}
func (f *fakeReality) Loads() map[neon.NodeID]scheduler.Load { return nil }

func (f *fakeReality) ReAttached(neon.NodeID, Disk, []fsm.Location)          {}
func (f *fakeReality) ActivateNode(context.Context, neon.NodeID) error       { return nil }
func (f *fakeReality) Utilization(neon.NodeID) (u neon.Utilization, ok bool) { return u, false }
func (f *fakeReality) ReconcileAll(context.Context) (int, error)             { return 0, nil }

type fakePageservers struct {
	mu     sync.Mutex
	wiped  []neon.NodeID
	broken map[neon.NodeID]bool
	wipe   func() // while a tenant's data is being removed
}

func (f *fakePageservers) breakDown(n neon.NodeID, broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = map[neon.NodeID]bool{n: broken}
}

func (f *fakePageservers) tries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.wiped)
}

func (f *fakePageservers) TenantDelete(_ context.Context, n *fsm.Node, _ neon.TenantID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wiped = append(f.wiped, n.ID)
	if f.wipe != nil {
		f.wipe()
	}
	if f.broken[n.ID] {
		return fmt.Errorf("broken")
	}
	return nil
}

func (f *fakePageservers) TimelineCreate(
	context.Context, *fsm.Node, neon.ShardID, neon.TimelineCreateRequest,
) (i neon.TimelineInfo, err error) {
	return i, fmt.Errorf("not expected")
}

func (f *fakePageservers) TimelineDelete(
	context.Context, *fsm.Node, neon.ShardID, neon.TimelineID,
) (int, error) {
	return 0, fmt.Errorf("not expected")
}

func (f *fakePageservers) Passthrough(
	context.Context, *fsm.Node, string, string,
) (*http.Response, error) {
	return nil, fmt.Errorf("not expected")
}

func newDeps(l *fakeLog, r *fakeReality, p *fakePageservers) Deps {
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

func (f *fakePageservers) Call(
	context.Context, *fsm.Node, neon.ShardID, neon.ShardCall,
) (int, []byte, error) {
	return http.StatusOK, []byte("null"), nil
}
