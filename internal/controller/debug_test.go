package controller

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// detached creates a tenant of one shard whose policy is Detached.
func (w *world) detached(id neon.TenantID) neon.ShardID {
	w.t.Helper()
	w.log.Must(fsm.CreateTenant{
		ID: id, Count: 1, Stripe: 8, Scheduling: neon.ShardActive, Shards: make([]fsm.NewShard, 1),
	})
	return neon.ShardIDs(id, 1)[0]
}

// beginSplit begins the split of a tenant of newWorld into twice as many shards.
func (w *world) beginSplit(id neon.TenantID) fsm.Split {
	w.t.Helper()
	tenant, _ := w.log.State().Tenant(id)
	c := fsm.BeginSplit{
		Tenant: id, Sequence: tenant.Sequence, Count: 2 * tenant.Count, Stripe: tenant.Stripe,
	}
	for sh := range w.log.State().TenantShards(id) {
		c.Parents = append(c.Parents, fsm.SplitParent{
			Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation,
		})
	}
	w.log.Must(c)
	sp, _ := w.log.State().Split(id)
	return sp
}

// A dump has what the log says and what the leader has seen beyond that.
func TestDumpsOfShardsJoinTheLogAndWhatWasSeen(t *testing.T) {
	w := newWorld(t, 2)
	importing, splitting := w.tenant(neon.TenantID{1}, 1)[0], w.tenant(neon.TenantID{2}, 1)[0]
	w.detached(neon.TenantID{3}) // nothing is left of it
	left, busy := w.detached(neon.TenantID{4}), w.detached(neon.TenantID{5})
	w.log.Must(fsm.BeginImport{Tenant: importing.Tenant, Timeline: neon.TimelineID{1}})
	w.beginSplit(splitting.Tenant)
	conf := &neon.LocationConfig{Mode: neon.AttachedSingle}
	w.reality.status = map[neon.ShardID]decide.ShardStatus{
		importing: {
			Observed:  map[neon.NodeID]*neon.LocationConfig{1: conf, 2: nil},
			LastError: "slow", Failures: 3, PendingNotify: true,
		},
		left: {Observed: map[neon.NodeID]*neon.LocationConfig{2: nil}, Failures: -1},
		busy: {Reconciling: true},
	}
	d := NewDebug(w.Deps)
	all, err := d.Shards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []neon.ShardID
	for _, e := range all {
		ids = append(ids, e.Shard)
	}
	equal(t, "shards", ids, []neon.ShardID{importing, splitting, left, busy})
	first := all[0]
	if first.Importing != neon.ImportImporting || first.Splitting != neon.SplitIdle ||
		all[1].Importing != neon.ImportIdle || all[1].Splitting != neon.SplitSplitting {
		t.Errorf("%+v\n%+v", first, all[1])
	}
	if *first.Generation != 1 || *first.Intent.Attached != 1 || first.PreferredNode != nil ||
		first.DelayedReconcile || first.LastError != "slow" || !first.PendingComputeNotification ||
		first.ConsecutiveReconciles != 3 || first.Identity.Count != 1 ||
		first.Identity.StripeSize != 8 || first.Identity.Layout != neon.ShardLayoutV1 {
		t.Errorf("%+v", first)
	}
	want := neon.Table[neon.NodeID, neon.ObservedLocation]{1: {Config: conf}, 2: {}}
	if got := first.Observed.Locations; !reflect.DeepEqual(got, want) {
		t.Errorf("observed %+v", got)
	}
	if all[2].Intent.Attached != nil || all[2].ConsecutiveReconciles != 0 {
		t.Errorf("%+v", all[2])
	}
	seen := d.Observed()
	if len(seen) != 2 || !reflect.DeepEqual(seen[importing].Locations, want) ||
		len(seen[left].Locations) != 1 {
		t.Errorf("observed %+v", seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := d.Shards(ctx); err == nil {
		t.Errorf("a client that has gone gets %d shards", len(all))
	}
}

func TestSchedulerDumpCountsWhatPlacementCounts(t *testing.T) {
	w := newWorld(t, 2)
	w.tenant(tenantOne, 1)
	w.log.Must(fsm.CreateTenant{
		ID: neon.TenantID{2}, Count: 1, Stripe: 8, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{
			{Attached: 2, Secondary: []neon.NodeID{1}, PreferredAZ: neon.MakeAZ("a")},
		},
	})
	w.schedule(2, neon.SchedulingPause)
	u := neon.Utilization{ShardCount: 9}
	w.reality.utilization = map[neon.NodeID]neon.Utilization{1: u, 2: u}
	got, err := NewDebug(w.Deps).Scheduler(t.Context())
	if err != nil || len(got.Nodes) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if n := got.Nodes[1]; n.Shards != 2 || n.AttachedShards != 1 || n.AZ != "a" ||
		n.MaySchedule.Load == nil || *n.MaySchedule.Load != u {
		t.Errorf("node 1 is %+v", n)
	}
	// A node that takes nothing is said to be so, however empty it is.
	if n := got.Nodes[2]; n.Shards != 1 || n.AttachedShards != 1 || n.HomeShards != 1 ||
		n.MaySchedule.Load != nil {
		t.Errorf("node 2 is %+v", n)
	}
}

func TestInspectNamesTheNodeOfTheNewestGeneration(t *testing.T) {
	w := newWorld(t, 1)
	attached, detached := w.tenant(tenantOne, 1)[0], w.detached(neon.TenantID{2})
	w.log.Must(fsm.ReAttach{Node: 1})
	d := NewDebug(w.Deps)
	for id, want := range map[neon.ShardID]*Attachment{
		attached: {Generation: 2, Node: 1}, detached: nil, {Tenant: neon.TenantID{9}}: nil,
	} {
		if got, err := d.Inspect(t.Context(), id); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
}

func TestExplainSaysOfEachNodeWhy(t *testing.T) {
	w := newWorld(t, 2)
	shard := w.tenant(tenantOne, 1)[0]
	w.schedule(2, neon.SchedulingPause)
	d := NewDebug(w.Deps)
	e, err := d.Explain(t.Context(), shard)
	if err != nil || e.Shard != shard || len(e.Nodes) != 2 {
		t.Errorf("%+v, %v", e, err)
	}
	w.refuses(neon.NotFound, "Tenant shard not found", func(ctx context.Context) error {
		_, err := d.Explain(ctx, neon.ShardID{Tenant: neon.TenantID{9}})
		return err
	})
}

func TestAPassOverAllShardsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.reality.pass = func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 3, context.Cause(ctx)
		}
		begun := time.Now()
		n, err := NewDebug(w.Deps).ReconcileAll(t.Context())
		if n != 3 || err == nil || time.Since(begun) != decide.LongWait {
			t.Errorf("%d, %v after %s", n, err, time.Since(begun))
		}
	})
}

func TestTheLeaderAndTheInvariantsAreReadFromTheLog(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	leader := fsm.Leader{ServerID: "two", Address: "http://two", Term: 4}
	w.log.Must(fsm.SetLeader{Leader: leader})
	d := NewDebug(w.Deps)
	if got, err := d.Leader(t.Context()); err != nil || got != leader {
		t.Errorf("%+v, %v", got, err)
	}
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
	w.unreadable(map[string]func(context.Context) error{
		"leader":    func(ctx context.Context) error { _, err := d.Leader(ctx); return err },
		"check":     d.Check,
		"shards":    func(ctx context.Context) error { _, err := d.Shards(ctx); return err },
		"scheduler": func(ctx context.Context) error { _, err := d.Scheduler(ctx); return err },
		"inspect": func(ctx context.Context) error {
			_, err := d.Inspect(ctx, neon.ShardID{})
			return err
		},
		"explain": func(ctx context.Context) error {
			_, err := d.Explain(ctx, neon.ShardID{})
			return err
		},
	})
}
