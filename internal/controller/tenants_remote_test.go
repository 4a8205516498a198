package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

func TestTimeTravelAsksForEveryShardThatEverWas(t *testing.T) {
	w := newWorld(t, 1)
	w.detached(tenantOne)
	counts := []neon.ShardCount{2, 0, 2}
	ctx := decide.WithRequest(t.Context(), [32]byte{1})
	if err := NewTenants(w.Deps).TimeTravel(ctx, tenantOne,
		neon.TimeTravel{To: "then", DoneIfAfter: "later"}, counts); err != nil {
		t.Fatal(err)
	}
	if !decide.HasActed(ctx) {
		t.Error("a later error may say that nothing was done")
	}
	equal(t, "counts of the caller", counts, []neon.ShardCount{2, 0, 2})
	const call = "PUT time_travel_remote_storage?done_if_after=later&travel_to=then"
	equal(t, "calls", w.calls.took(), []string{
		"shard 0 on 1: " + call, "shard 0 on 1: " + call, "shard 1 on 1: " + call,
	})
}

func TestRemoteDataIsAskedOfAPageserverThatAnswers(t *testing.T) {
	w := newWorld(t, 2)
	w.detached(tenantOne)
	w.reality.silent = []neon.NodeID{1}
	if err := NewTenants(w.Deps).TimeTravel(t.Context(), tenantOne, neon.TimeTravel{},
		[]neon.ShardCount{1}); err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", w.calls.took(), []string{
		"shard 0 on 2: PUT time_travel_remote_storage?done_if_after=&travel_to=",
	})
}

// What a pageserver writes to is not put back in time.
func TestTimeTravelIsRefusedForATenantThatIsOnAPageserver(t *testing.T) {
	travel := func(w *world) func(context.Context) error {
		return func(ctx context.Context) error {
			return NewTenants(w.Deps).TimeTravel(ctx, tenantOne, neon.TimeTravel{},
				[]neon.ShardCount{1})
		}
	}
	observed := func(w *world, conf *neon.LocationConfig) {
		w.reality.status = map[neon.ShardID]decide.ShardStatus{
			w.detached(tenantOne): {Observed: map[neon.NodeID]*neon.LocationConfig{1: conf}},
		}
	}
	for name, c := range map[string]struct {
		given func(*world)
		code  neon.Code
		text  string
	}{
		"it should be attached": {
			func(w *world) { w.tenant(tenantOne, 1) }, neon.Internal,
			"We want tenant to be attached in shard with tenant_shard_id=",
		},
		"it should be a secondary": {
			func(w *world) {
				w.log.Must(fsm.CreateTenant{
					ID: tenantOne, Stripe: 8, Policy: secondaryPolicy,
					Scheduling: neon.ShardActive, NoGeneration: true,
					Shards: []fsm.NewShard{{Secondary: []neon.NodeID{1}}},
				})
			}, neon.Internal, "We want tenant to be attached in shard with tenant_shard_id=",
		},
		"it was seen": {
			func(w *world) { observed(w, &neon.LocationConfig{Mode: neon.AttachedStale}) },
			neon.Internal, "We observed attached=AttachedStale tenant in node_id=1 shard with",
		},
		"no node is available": {
			func(w *world) {
				w.detached(tenantOne)
				w.verdict(1, neon.NodeOffline)
			}, neon.Conflict, "Scheduling error: No pageservers found",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			c.given(w)
			w.refuses(c.code, c.text, travel(w))
			if calls := w.calls.took(); len(calls) > 0 {
				t.Errorf("pageservers were asked: %q", calls)
			}
		})
	}
	w := newWorld(t, 1)
	observed(w, &neon.LocationConfig{Mode: neon.Detached})
	if err := travel(w)(t.Context()); err != nil {
		t.Error(err)
	}
	// It is looked at before each shard, so that one that is attached meanwhile stops it.
	w = newWorld(t, 1)
	w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
		if _, ok := w.log.State().Tenant(tenantOne); !ok {
			w.tenant(tenantOne, 1)
		}
		return 200, "null", nil
	}
	w.fails(neon.Internal, "We want tenant to be attached", func(ctx context.Context) error {
		return NewTenants(w.Deps).TimeTravel(ctx, tenantOne, neon.TimeTravel{},
			[]neon.ShardCount{4})
	})
	if calls := w.calls.took(); len(calls) != 1 {
		t.Errorf("calls %q", calls)
	}
	w = newWorld(t, 1)
	w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
		return 0, "", errors.New("broken")
	}
	w.fails(neon.Internal, fmt.Sprintf(
		"Error doing time travel recovery for shard %s-0001 on node 1 (ps): broken", tenantOne),
		travel(w))
	w.unreadable(map[string]func(context.Context) error{"travel": travel(w)})
}

func TestAnImportedTenantCountsAboveAllThatIsFound(t *testing.T) {
	shard := func(number, count int, g, stripe string) string {
		id := neon.ShardID{
			Tenant: tenantOne, Number: neon.ShardNumber(number), Count: neon.ShardCount(count),
		}
		return fmt.Sprintf(`{"tenant_shard_id":"%s","generation":%s,"stripe_size":%s}`, id, g,
			stripe)
	}
	for name, c := range map[string]struct {
		found  string
		count  neon.ShardCount
		first  neon.Generation
		stripe neon.StripeSize
	}{
		"unsharded": {shard(0, 0, "4", "null"), 0, 4, unsplitStripe},
		"before there were generations": {
			shard(0, 0, "null", "16"), 0, 0, 16,
		},
		"parents have the largest number": {
			shard(0, 0, "12", "64") + "," + shard(0, 2, "9", "16") + "," + shard(1, 2, "3", "32"), 2,
			12, unsplitStripe,
		},
		"the newest child has the stripe": {
			shard(0, 0, "2", "64") + "," + shard(0, 2, "9", "16") + "," + shard(1, 2, "3", "32"), 2,
			9, 16,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				return 200, `{"shards":[` + c.found + `]}`, nil
			}
			resp, err := NewTenants(w.Deps).Import(t.Context(), tenantOne)
			if err != nil || len(resp.Shards) != c.count.Shards() {
				t.Fatalf("%+v, %v", resp, err)
			}
			tenant, _ := w.log.State().Tenant(tenantOne)
			if tenant.Count != c.count || tenant.Stripe != c.stripe ||
				tenant.Policy != neon.Attached(0) {
				t.Errorf("tenant is %+v", tenant)
			}
			w.log.Attach(t, tenantOne)
			for sh := range w.log.State().TenantShards(tenantOne) {
				if sh.Generation != c.first+1 {
					t.Errorf("shard is %+v", sh)
				}
			}
			equal(t, "calls", w.calls.took(), []string{"shard 0 on 1: GET scan_remote_storage"})
		})
	}
}

func TestImportsOfTenantsAreRefusedWithoutATrace(t *testing.T) {
	for name, c := range map[string]struct {
		nodes int
		body  string
		err   error
		code  neon.Code
		text  string
	}{
		"no nodes":      {0, "", nil, neon.BadRequest, "No nodes available"},
		"nothing found": {1, `{"shards":[]}`, nil, neon.NotFound, "No shards found"},
		"used up numbers": {
			1, fmt.Sprintf(`{"shards":[{"tenant_shard_id":"%s","generation":4294967294,"stripe_size":null}]}`,
				neon.Unsharded(tenantOne)), nil, neon.PreconditionFailed,
			"cannot be imported: Generation 4294967294 is too large",
		},
		"a broken answer": {1, `{"shards":`, nil, neon.Internal, "error decoding body"},
		"no answer": {
			1, "", neon.Errorf(neon.Unavailable, "no answer"), neon.Unavailable, "no answer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.nodes)
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				return 200, c.body, c.err
			}
			load := func(ctx context.Context) error {
				_, err := NewTenants(w.Deps).Import(ctx, tenantOne)
				return err
			}
			w.refuses(c.code, c.text, load)
			w.unreadable(map[string]func(context.Context) error{"import": load})
		})
	}
}
