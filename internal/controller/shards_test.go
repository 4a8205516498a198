package controller

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// An immediate migration waits for its end. One that warms its destination first is
// answered when it is begun.
func TestAGracefulMigrationIsAnsweredWhenItIsBegun(t *testing.T) {
	for _, prewarm := range []bool{false, true} {
		w := newWorld(t, 2)
		id := w.tenant(tenantOne, 1)[0]
		stuck := neon.Errorf(neon.Timeout, "stuck")
		w.reality.await = func(context.Context, uint64, []neon.ShardID) error { return stuck }
		err := NewShards(w.Deps).Migrate(t.Context(), id, neon.MigrateRequest{
			Node: 2, Origin: new(neon.NodeID(1)),
			Config: neon.MigrationConfig{Prewarm: prewarm, OverrideScheduler: true},
		})
		sh := w.shard(id)
		if prewarm {
			if err != nil || sh.Attached != 1 || sh.PreferredNode != 2 || !sh.HasSecondary(2) {
				t.Errorf("%v, shard is %+v", err, sh)
			}
		} else if neon.CodeOf(err) != neon.Timeout || sh.Attached != 2 || sh.PreferredNode != 0 {
			t.Errorf("%v, shard is %+v", err, sh)
		}
		equal(t, "kicked", w.reality.kicked, []neon.ShardID{id})
	}
}

// An operator's order is carried out whatever the policies are that it was given against.
func TestAnOperatorInsistsOnAMigration(t *testing.T) {
	for _, upgraded := range []bool{true, false} {
		w := newWorld(t, 2)
		if upgraded {
			w.log.Upgrade(t)
		}
		id := w.tenant(tenantOne, 1)[0]
		w.log.Must(fsm.SetNodeScheduling{Node: 2, Scheduling: neon.SchedulingPause})
		h := NewShards(w.Deps)
		for _, prewarm := range []bool{true, false} {
			if err := h.Migrate(t.Context(), id, neon.MigrateRequest{
				Node: 2, Config: neon.MigrationConfig{Prewarm: prewarm},
			}); err != nil {
				t.Fatal(err)
			}
			sh := w.shard(id)
			if prewarm && (sh.PreferredNode != 2 || sh.Insisted != upgraded) ||
				!prewarm && sh.Attached != 2 {
				t.Errorf("upgraded %v, prewarm %v: %+v", upgraded, prewarm, sh)
			}
			if at := time.UnixMilli(sh.PlacedAt); upgraded &&
				(sh.PlacedOn != 2 || time.Since(at) > time.Hour) {
				t.Errorf("placed on node %d at %d", sh.PlacedOn, sh.PlacedAt)
			}
		}
	}
}

// To migrate a shard to where it is takes back a move that was begun.
func TestAMigrationToWhereAShardIsTakesItsMoveBack(t *testing.T) {
	w := newWorld(t, 2)
	id := w.tenant(tenantOne, 1)[0]
	h := NewShards(w.Deps)
	prewarm := neon.MigrationConfig{Prewarm: true, OverrideScheduler: true}
	if err := h.Migrate(t.Context(), id,
		neon.MigrateRequest{Node: 2, Config: prewarm}); err != nil {
		t.Fatal(err)
	}
	proposed := len(w.log.Proposed())
	for range 2 {
		if err := h.Migrate(t.Context(), id,
			neon.MigrateRequest{Node: 1, Config: prewarm}); err != nil {
			t.Fatal(err)
		}
	}
	if sh := w.shard(id); sh.Attached != 1 || sh.PreferredNode != 0 ||
		len(w.log.Proposed())-proposed != 1 {
		t.Errorf("shard is %+v after %+v", sh, w.log.Proposed())
	}
	equal(t, "awaited", w.reality.awaited, []neon.ShardID{id, id})
}

// The limits of a migration are for warming by an order that is carried out at once.
func TestLimitsOfAMigrationReachTheReconciler(t *testing.T) {
	w := newWorld(t, 3)
	id := w.tenant(tenantOne, 1)[0]
	h := NewShards(w.Deps)
	warm := neon.Duration(time.Minute)
	for _, req := range []neon.MigrateRequest{
		{Node: 9, Config: neon.MigrationConfig{WarmupTimeout: &warm}}, // refused
		{Node: 2, Config: neon.MigrationConfig{OverrideScheduler: true}},
		{Node: 3, Config: neon.MigrationConfig{WarmupTimeout: &warm, OverrideScheduler: true}},
	} {
		_ = h.Migrate(t.Context(), id, req)
	}
	if l := w.reality.limits; len(l) != 1 || l[0].shard != id || *l[0].warm != time.Minute ||
		l[0].request != nil {
		t.Errorf("limits %+v", l)
	}
}

func TestMigrationsAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 3)
	id := w.tenant(tenantOne, 1)[0]
	put := w.detached(neon.TenantID{2})
	w.verdict(2, neon.NodeOffline)
	w.log.Must(fsm.DeleteNode{Node: 3})
	h := NewShards(w.Deps)
	migrate := func(id neon.ShardID, req neon.MigrateRequest) func(context.Context) error {
		return func(ctx context.Context) error { return h.Migrate(ctx, id, req) }
	}
	unknown := neon.ShardID{Tenant: neon.TenantID{9}, Count: 1}
	w.refuses(neon.BadRequest, "Node 9 not found", migrate(id, neon.MigrateRequest{Node: 9}))
	w.refuses(neon.BadRequest, "Node 3 not found", migrate(id, neon.MigrateRequest{Node: 3}))
	w.refuses(neon.NotFound, "Tenant shard not found", migrate(unknown, neon.MigrateRequest{Node: 1}))
	w.refuses(neon.PreconditionFailed, "is unavailable", migrate(id, neon.MigrateRequest{Node: 2}))
	w.refuses(neon.PreconditionFailed,
		"Migration expected to originate from 2 but shard is on 1",
		migrate(id, neon.MigrateRequest{Node: 2, Origin: new(neon.NodeID(2))}))
	w.refuses(neon.PreconditionFailed,
		"Migration expected to originate from 2 but shard is on no node",
		migrate(put, neon.MigrateRequest{Node: 1, Origin: new(neon.NodeID(2))}))
	w.refuses(neon.BadRequest, "Cannot migrate a tenant that is Detached",
		migrate(put, neon.MigrateRequest{Node: 1}))
	w.refuses(neon.NotFound, "Tenant shard not found", func(ctx context.Context) error {
		return h.MigrateSecondary(ctx, unknown, neon.MigrateRequest{Node: 1})
	})
}

func TestASecondaryIsMigratedInThePlaceOfAllOthers(t *testing.T) {
	w := newWorld(t, 3)
	w.log.Must(fsm.CreateTenant{
		ID: tenantOne, Count: 1, Stripe: 8, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards:     []fsm.NewShard{{Attached: 1, Secondary: []neon.NodeID{2}}},
	})
	id := neon.ShardIDs(tenantOne, 1)[0]
	h := NewShards(w.Deps)
	for _, to := range []neon.NodeID{3, 1} { // to the attached one changes nothing
		if err := h.MigrateSecondary(t.Context(), id,
			neon.MigrateRequest{Node: to}); err != nil {
			t.Fatal(err)
		}
		sh := w.shard(id)
		if sh.Attached != 1 {
			t.Errorf("shard is %+v", sh)
		}
		equal(t, fmt.Sprintf("secondaries after %d", to), sh.Secondary, []neon.NodeID{3})
	}
	equal(t, "awaited", w.reality.awaited, []neon.ShardID{id, id})
}

func TestACancelledReconcileIsWaitedForShortly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		id := w.tenant(tenantOne, 1)[0]
		h := NewShards(w.Deps)
		var asked []neon.ShardID
		w.reality.cancel = func(ctx context.Context, id neon.ShardID) error {
			asked = append(asked, id)
			<-ctx.Done()
			return neon.Errorf(neon.Timeout, "still there")
		}
		begun := time.Now()
		w.refuses(neon.Timeout, "still there", func(ctx context.Context) error {
			return h.Cancel(ctx, id)
		})
		if took := time.Since(begun); took != decide.ShortWait {
			t.Errorf("it was answered after %s", took)
		}
		w.refuses(neon.NotFound, "Tenant shard not found", func(ctx context.Context) error {
			return h.Cancel(ctx, neon.ShardID{Tenant: neon.TenantID{9}})
		})
		equal(t, "cancelled", asked, []neon.ShardID{id})
		w.unreadable(map[string]func(context.Context) error{
			"cancel": func(ctx context.Context) error { return h.Cancel(ctx, id) },
		})
	})
}
