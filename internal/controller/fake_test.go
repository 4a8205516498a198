package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/scheduler"
)

// fakeReality has every shard where it should be at once, unless its fields say otherwise.
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

type fakePageservers struct{}

func (f *fakePageservers) TimelineCreate(
	context.Context, *fsm.Node, neon.ShardID, neon.TimelineCreateRequest,
) (i neon.TimelineInfo, err error) {
	return i, fmt.Errorf("not expected")
}

func (f *fakePageservers) Passthrough(
	context.Context, *fsm.Node, string, string,
) (*http.Response, error) {
	return nil, fmt.Errorf("not expected")
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

func (f *fakePageservers) Call(
	context.Context, *fsm.Node, neon.ShardID, neon.ShardCall,
) (int, []byte, error) {
	return http.StatusOK, []byte("null"), nil
}
