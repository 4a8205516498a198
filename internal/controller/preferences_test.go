package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

func TestPreferredZonesAreSetAndCleared(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.tenant(tenantOne, 2)
	tenants := NewTenants(w.Deps)
	unknown := neon.ShardID{Tenant: neon.TenantID{9}, Count: 1}
	before := w.shard(ids[0])
	resp, err := tenants.SetPreferredAZs(t.Context(), neon.PreferredAZsRequest{
		ids[1]: new(neon.MakeAZ("b")), unknown: new(neon.MakeAZ("b")), ids[0]: new(neon.MakeAZ("a")),
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "updated", resp.Updated, ids)
	if a, b := w.shard(ids[0]), w.shard(ids[1]); a.PreferredAZ.String() != "a" ||
		b.PreferredAZ.String() != "b" || a.Attached != before.Attached {
		t.Errorf("shards are %+v, %+v", a, b)
	}
	resp, err = tenants.SetPreferredAZs(t.Context(), neon.PreferredAZsRequest{ids[1]: nil})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "updated", resp.Updated, ids[1:])
	if a, b := w.shard(ids[0]), w.shard(ids[1]); a.PreferredAZ.String() != "a" ||
		b.PreferredAZ.String() != "" {
		t.Errorf("shards are %+v, %+v", a, b)
	}
	w.refuses(neon.BadRequest, fmt.Sprintf("the zone of %s has more than 255 bytes", ids[1]),
		func(ctx context.Context) error {
			_, err := tenants.SetPreferredAZs(ctx, neon.PreferredAZsRequest{
				ids[0]: nil, ids[1]: new(neon.MakeAZ(strings.Repeat("z", 256))),
			})
			return err
		})
}

// A request is as large as its body may be. Its entries are not, whatever the zones are
// called.
func TestManyPreferredZonesAreDividedIntoEntries(t *testing.T) {
	w := newWorld(t, 1)
	const n = 12_000
	long := neon.MakeAZ(strings.Repeat("z", longestAZ))
	req := make(neon.PreferredAZsRequest, n)
	for i := range n {
		id := neon.ShardID{Tenant: neon.TenantID{byte(i >> 8), byte(i)}, Count: 1}
		req[id] = &long
	}
	w.log.Must(fsm.CreateTenant{
		ID: neon.TenantID{0, 7}, Count: 1, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
	})
	resp, err := NewTenants(w.Deps).SetPreferredAZs(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "updated", resp.Updated, neon.ShardIDs(neon.TenantID{0, 7}, 1))
}

func TestTheHealthOfManyShardsIsDividedIntoEntries(t *testing.T) {
	w := newWorld(t, 0)
	ids := make(neon.List[neon.ShardID], 60_000)
	for i := range ids {
		ids[i] = neon.ShardID{Tenant: neon.TenantID{byte(i >> 8), byte(i)}, Number: 255, Count: 255}
	}
	if err := NewTenants(w.Deps).SetHealth(t.Context(),
		neon.MetadataHealthUpdate{Healthy: ids, Unhealthy: ids}); err != nil {
		t.Error(err)
	}
}

func TestTheHealthOfMetadataIsRecorded(t *testing.T) {
	w := newWorld(t, 3)
	ids := w.tenant(tenantOne, 3)
	tenants := NewTenants(w.Deps)
	unknown := neon.ShardID{Tenant: neon.TenantID{9}, Count: 1}
	begun := time.Now().Add(-time.Second)
	if err := tenants.SetHealth(t.Context(), neon.MetadataHealthUpdate{
		Healthy:   neon.List[neon.ShardID]{ids[0]},
		Unhealthy: neon.List[neon.ShardID]{ids[1], unknown},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := tenants.Unhealthy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "unhealthy", got.Unhealthy, ids[1:2])
	// The third one was never scrubbed, and was created without a time.
	old, err := tenants.Outdated(t.Context(),
		neon.OutdatedRequest{NotScrubbedFor: neon.Duration(time.Hour)})
	if err != nil || len(old.Records) != 1 || old.Records[0].Shard != ids[2] ||
		!old.Records[0].Healthy {
		t.Errorf("%+v, %v", old, err)
	}
	all, err := tenants.Outdated(t.Context(),
		neon.OutdatedRequest{NotScrubbedFor: -neon.Duration(time.Hour)})
	if err != nil || len(all.Records) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if r := all.Records[1]; r.Healthy || r.LastScrubbed.Before(begun) ||
		r.LastScrubbed.Location() != time.UTC {
		t.Errorf("%+v", r)
	}
	if err := tenants.SetHealth(t.Context(), neon.MetadataHealthUpdate{
		Healthy: neon.List[neon.ShardID]{ids[1]},
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := tenants.Unhealthy(t.Context()); err != nil || len(got.Unhealthy) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	w.log.LoseProposals(neon.Errorf(neon.NotLeader, "deposed"))
	for _, update := range []neon.MetadataHealthUpdate{{Healthy: ids}, {Unhealthy: ids}} {
		w.fails(neon.NotLeader, "deposed", func(ctx context.Context) error {
			return tenants.SetHealth(ctx, update)
		})
	}
	w.unreadable(map[string]func(context.Context) error{
		"unhealthy": func(ctx context.Context) error { _, err := tenants.Unhealthy(ctx); return err },
		"outdated": func(ctx context.Context) error {
			_, err := tenants.Outdated(ctx, neon.OutdatedRequest{})
			return err
		},
	})
}
