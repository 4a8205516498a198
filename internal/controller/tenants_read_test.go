package controller

import (
	"context"
	"fmt"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

func TestTenantsAreListedPageByPage(t *testing.T) {
	w := newWorld(t, 1)
	for i := range byte(5) {
		w.tenant(neon.TenantID{i + 1}, 1)
	}
	w.detached(neon.TenantID{6}) // counts as not found
	tenants := NewTenants(w.Deps)
	for _, c := range []struct {
		page Page
		want []byte
	}{
		{Page{}, []byte{1, 2, 3, 4, 5}},
		{Page{Limit: 2}, []byte{1, 2}},
		{Page{After: neon.TenantID{2}, Limit: 2}, []byte{3, 4}},
		{Page{After: neon.TenantID{2, 1}, Limit: 2}, []byte{3, 4}},
		{Page{After: neon.TenantID{4}, Limit: 2}, []byte{5}},
		{Page{After: neon.TenantID{5}}, nil},
	} {
		for most := range 4 { // in a part
			l, err := tenants.List(t.Context(), c.page)
			if err != nil {
				t.Fatalf("%+v: %v", c.page, err)
			}
			var got []byte
			for more := true; more; {
				n := 0
				more = l.Part(func(d *neon.TenantDescribe) bool {
					got = append(got, d.Tenant[0])
					n++
					return n <= most
				})
			}
			equal(t, fmt.Sprintf("%+v, parts of %d", c.page, most+1), got, c.want)
			if l.Part(func(*neon.TenantDescribe) bool { t.Error("after the end"); return false }) {
				t.Error("more after the end")
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tenants.List(ctx, Page{}); err == nil {
		t.Error("a list that was cut short is no error")
	}
}

func TestADescriptionJoinsTheLogAndWhatWasSeen(t *testing.T) {
	w := newWorld(t, 2)
	id := w.tenant(tenantOne, 1)[0]
	tenants := NewTenants(w.Deps)
	w.log.Must(fsm.SetPreferredAZs{
		Items: []fsm.PreferredAZ{{Shard: id, AZ: neon.MakeAZ("a")}},
	})
	w.reality.status = map[neon.ShardID]decide.ShardStatus{
		id: {LastError: "slow", Reconciling: true, PendingNotify: true},
	}
	describe := func() neon.TenantDescribe {
		t.Helper()
		d, err := tenants.Describe(t.Context(), tenantOne)
		if err != nil || len(d.Shards) != 1 {
			t.Fatalf("%+v, %v", d, err)
		}
		return d
	}
	d := describe()
	if d.StripeSize != 8 || d.Policy != neon.Attached(0) || d.Tenant != tenantOne {
		t.Errorf("%+v", d)
	}
	if s := d.Shards[0]; s.Shard != id || *s.Attached != 1 || s.LastError != "slow" ||
		!s.Reconciling || !s.PendingComputeNotification || s.Importing || s.Splitting ||
		s.PreferredAZ.String() != "a" || s.Scheduling != neon.ShardActive {
		t.Errorf("%+v", s)
	}
	w.log.Must(fsm.BeginImport{Tenant: tenantOne, Timeline: neon.TimelineID{1}})
	if s := describe().Shards[0]; !s.Importing {
		t.Errorf("%+v", s)
	}
	w.log.Must(fsm.DeleteTimeline{Tenant: tenantOne, Timeline: neon.TimelineID{1}})
	w.beginSplit(tenantOne)
	if s := describe().Shards[0]; !s.Splitting || s.Importing {
		t.Errorf("%+v", s)
	}
}

// A detached tenant is found as long as something of it is on a pageserver.
func TestADetachedTenantIsFoundUntilNothingIsLeft(t *testing.T) {
	w := newWorld(t, 1)
	id := w.detached(tenantOne)
	tenants := NewTenants(w.Deps)
	for _, status := range []decide.ShardStatus{
		{Observed: map[neon.NodeID]*neon.LocationConfig{1: nil}}, {Reconciling: true},
	} {
		w.reality.status = map[neon.ShardID]decide.ShardStatus{id: status}
		d, err := tenants.Describe(t.Context(), tenantOne)
		if err != nil || d.Shards[0].Attached != nil {
			t.Errorf("%+v: %+v, %v", status, d, err)
		}
	}
	w.reality.status = nil
	for _, id := range []neon.TenantID{tenantOne, {9}} {
		w.refuses(neon.NotFound, fmt.Sprintf("Tenant %s not found", id),
			func(ctx context.Context) error {
				_, err := tenants.Describe(ctx, id)
				return err
			})
	}
}

func TestLocateNamesThePageserverOfEachShard(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.tenant(tenantOne, 2)
	w.detached(neon.TenantID{2})
	w.log.Must(fsm.RegisterNode{ID: 2, AZ: neon.MakeAZ("a"), Addr: fsm.NodeAddr{
		HTTPHost: "ps", HTTPPort: 9002, PGHost: "ps", PGPort: 6402, HTTPSPort: 9443,
		GRPCHost: "grpc", GRPCPort: 50051,
	}})
	tenants := NewTenants(w.Deps)
	got, err := tenants.Locate(t.Context(), tenantOne)
	if err != nil || len(got.Shards) != 2 || got.Parameters.Count != 2 ||
		got.Parameters.StripeSize != 8 {
		t.Fatalf("%+v, %v", got, err)
	}
	if s := got.Shards[0]; s.Shard != ids[0] || s.Node != 1 || s.PgPort != 6401 ||
		s.HTTPPort != 9001 || s.HTTPSPort != nil || s.GRPCAddr != nil || s.GRPCPort != nil {
		t.Errorf("%+v", s)
	}
	if s := got.Shards[1]; s.Shard != ids[1] || s.Node != 2 || *s.HTTPSPort != 9443 ||
		*s.GRPCAddr != "grpc" || *s.GRPCPort != 50051 {
		t.Errorf("%+v", s)
	}
	locate := func(id neon.TenantID) func(context.Context) error {
		return func(ctx context.Context) error { _, err := tenants.Locate(ctx, id); return err }
	}
	for _, id := range []neon.TenantID{{2}, {9}} {
		w.refuses(neon.NotFound, "No shards for this tenant ID found", locate(id))
	}
	w.log.Must(fsm.DeleteNode{Node: 2})
	w.refuses(neon.BadRequest, "Cannot locate a tenant that is not attached", locate(tenantOne))
	w.unreadable(map[string]func(context.Context) error{
		"locate":   locate(tenantOne),
		"describe": func(ctx context.Context) error { _, err := tenants.Describe(ctx, tenantOne); return err },
		"list":     func(ctx context.Context) error { _, err := tenants.List(ctx, Page{}); return err },
		"config":   func(ctx context.Context) error { _, err := tenants.Config(ctx, tenantOne); return err },
	})
}
