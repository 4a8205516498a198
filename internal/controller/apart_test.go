package controller

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// shardsWith has the pageservers know on which shards timelineOne is.
type shardsWith struct {
	mu  sync.Mutex
	has map[neon.ShardNumber]bool
}

func (w *world) shardsWith(before func(neon.ShardNumber, *shardsWith)) *shardsWith {
	f := &shardsWith{has: map[neon.ShardNumber]bool{}}
	w.calls.create = func(
		_ neon.NodeID, id neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		before(id.Number, f)
		f.has[id.Number] = true
		return info(w.t, req.Timeline, ""), nil
	}
	return f
}

// createTimeline asks for timelineOne.
func (w *world) createTimeline(timelines *Timelines) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := timelines.Create(ctx, tenantOne, neon.TimelineCreateRequest{
			Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
		})
		return err
	}
}

// Another leader has deleted the timeline on all shards between two calls of a creation.
// The shards that the creation had come to before do not have it any more.
func TestACreationThatADeletionHasCrossedIsMadeOnAllShardsAgain(t *testing.T) {
	w := newWorld(t, 3)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 3)
	w.Options.OntoSafekeepers = true
	crossed := false
	f := w.shardsWith(func(n neon.ShardNumber, f *shardsWith) {
		if n == 0 || crossed {
			return
		}
		crossed = true
		c := fsm.BeginDeleteTimeline{Tenant: tenantOne, Timeline: timelineOne}
		w.log.Must(c)
		clear(f.has)
		w.log.Must(fsm.DeleteTimeline(c))
	})
	timelines, keepers := w.timelines()
	if err := w.createTimeline(timelines)(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(f.has) != 3 || len(keepers.created) != 2 {
		t.Errorf("it is acknowledged, and on shards %v, put on safekeepers %d times", f.has,
			len(keepers.created))
	}
}

// A leader that was deposed while it waited for the first shard does not go on with the others.
func TestACreationThatADeletionHasCrossedStopsAtTheNextShard(t *testing.T) {
	w := newWorld(t, 3)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 3)
	gone := neon.Errorf(neon.Unavailable, "no leader")
	w.shardsWith(func(neon.ShardNumber, *shardsWith) {
		c := fsm.BeginDeleteTimeline{Tenant: tenantOne, Timeline: timelineOne}
		w.log.Must(c)
		w.log.Must(fsm.DeleteTimeline(c))
	})
	timelines, _ := w.timelines()
	w.fails(neon.Unavailable, "please retry", w.createTimeline(timelines))
	if calls := w.calls.took(); len(calls) != decide.Tries {
		t.Errorf("asked %q", calls)
	}
	w.shardsWith(func(neon.ShardNumber, *shardsWith) { w.log.FailReads(gone) })
	w.fails(neon.Unavailable, "no leader", w.createTimeline(timelines))
	if calls := w.calls.took(); len(calls) != 1 {
		t.Errorf("asked %q", calls)
	}
}

// A deletion that was recorded meanwhile waits for the creation, and then deletes it.
func TestACreationDuringADeletionIsNotAcknowledged(t *testing.T) {
	for name, last := range map[string]func(*world, func()){
		"at a shard": func(w *world, del func()) {
			w.shardsWith(func(n neon.ShardNumber, _ *shardsWith) {
				if n == 1 {
					del()
				}
			})
		},
		"at the end": func(w *world, del func()) {
			w.shardsWith(func(neon.ShardNumber, *shardsWith) {})
			w.Options.OntoSafekeepers = true
		},
	} {
		w := newWorld(t, 2)
		w.log.Upgrade(t)
		w.tenant(tenantOne, 2)
		del := func() {
			w.log.Must(fsm.BeginDeleteTimeline{Tenant: tenantOne, Timeline: timelineOne})
		}
		last(w, del)
		timelines, keepers := w.timelines()
		if name == "at the end" {
			keepers.during = del
		}
		w.fails(neon.Conflict, "is being deleted", w.createTimeline(timelines))
	}
}

// Deletions of other timelines of the tenant cost a creation more calls, but not for ever.
func TestACreationGivesWayToDeletionsThatNeverEnd(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 1)
	last := 0
	w.shardsWith(func(neon.ShardNumber, *shardsWith) {
		last++
		w.log.Must(fsm.BeginDeleteTimeline{
			Tenant: tenantOne, Timeline: neon.TimelineID{9, byte(last)},
		})
	})
	timelines, _ := w.timelines()
	w.fails(neon.Unavailable, "please retry", w.createTimeline(timelines))
	if last != decide.Tries {
		t.Errorf("%d calls", last)
	}
}

func TestCreationsAndDeletionsOfATimelineTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.tenant(tenantOne, 1)
		ref := neon.TimelineRef{Tenant: tenantOne, Timeline: timelineOne}
		taken := false
		w.shardsWith(func(neon.ShardNumber, *shardsWith) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			release, err := w.creating.Take(ctx, ref, nil)
			if taken = err == nil; taken {
				release()
			}
		})
		timelines, _ := w.timelines()
		if err := w.createTimeline(timelines)(t.Context()); err != nil || taken {
			t.Errorf("%v, a deletion has the turn meanwhile: %v", err, taken)
		}
		release, _ := w.creating.Take(t.Context(), ref, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w.calls.took()
		err := w.createTimeline(timelines)(ctx)
		if calls := w.calls.took(); err == nil || len(calls) > 0 {
			t.Errorf("%v, asked %q while a deletion has the turn", err, calls)
		}
		release()
		w.log.Must(fsm.BeginDeleteTimeline{Tenant: tenantOne, Timeline: timelineOne})
		release, _ = w.creating.Take(t.Context(), ref, nil)
		w.fails(neon.Conflict, "is being deleted", w.createTimeline(timelines)) // at once
		release()
	})
}

// changes are the requests that change a tenant, or create one.
func (w *world) changes() map[string]func(context.Context) error {
	tenants := NewTenants(w.Deps)
	attached := neon.Attached(0)
	return map[string]func(context.Context) error{
		"policy": func(ctx context.Context) error {
			return tenants.SetPolicy(ctx, tenantOne, neon.PolicyRequest{Placement: &attached})
		},
		"config": func(ctx context.Context) error {
			return tenants.PatchConfig(ctx, tenantOne, []byte(`{"gc_horizon":1}`))
		},
		"location": func(ctx context.Context) error {
			_, err := tenants.SetLocation(ctx, neon.Unsharded(tenantOne),
				neon.LocationConfig{Mode: neon.AttachedSingle})
			return err
		},
		"creation": func(ctx context.Context) error {
			_, err := tenants.Create(ctx, neon.TenantCreateRequest{
				Tenant: neon.Unsharded(tenantTwo),
			})
			return err
		},
		"import": func(ctx context.Context) error {
			_, err := tenants.Import(ctx, tenantTwo)
			return err
		},
	}
}

var tenantTwo = neon.TenantID{2}

// As for a split, requests wait for the end of a time travel as long as a client waits.
func TestNothingChangesATenantThatTravelsInTime(t *testing.T) {
	for name := range newWorld(t, 1).changes() {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			w.log.Upgrade(t)
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				return 200, `{"shards":[{"tenant_shard_id":"` + tenantTwo.String() +
					`","generation":3,"stripe_size":null}]}`, nil
			}
			w.log.Must(fsm.CreateTenant{
				ID: tenantOne, Stripe: 8, Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{}},
			})
			began := map[neon.TenantID]uint64{}
			for _, id := range []neon.TenantID{tenantOne, tenantTwo} {
				began[id] = w.log.Must(fsm.BeginTravel{Tenant: id}).Index
			}
			before := w.log.State().Hash()
			begun := time.Now()
			w.fails(neon.Conflict, "is being put back in time", w.changes()[name])
			if took := time.Since(begun); took != decide.LongWait {
				t.Errorf("%s: refused after %s", name, took)
			}
			if calls := w.calls.took(); w.log.State().Hash() != before || len(calls) > 0 {
				t.Errorf("%s: something has changed, asked %q", name, calls)
			}
			time.AfterFunc(time.Second, func() {
				for id, at := range began {
					w.log.Must(fsm.EndTravel{Tenant: id, Began: at})
				}
			})
			if err := w.changes()[name](t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A tenant that is being deleted is not created, and not said to be.
func TestACreationIsRefusedUntilTheDeletionHasEnded(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.log.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	tenants := NewTenants(w.Deps)
	again := func(ctx context.Context) error {
		_, err := tenants.Create(ctx, neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)})
		return err
	}
	w.refuses(neon.Conflict, "is being deleted", again)
	w.log.Must(fsm.FinishDeleteTenant{ID: tenantOne})
	if err := again(t.Context()); err != nil {
		t.Error(err)
	}
}
