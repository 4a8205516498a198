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

func TestTenantsAreCreatedAsAskedFor(t *testing.T) {
	conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte("5"))
	for name, c := range map[string]struct {
		req    neon.TenantCreateRequest
		count  neon.ShardCount
		policy neon.Placement
		// Of each shard: whether it has a generation, and the one that numbering starts from.
		numbered bool
		first    neon.Generation
		stripe   neon.StripeSize
	}{
		"by default": {
			neon.TenantCreateRequest{}, 0, neon.Attached(0), true, 0, neon.DefaultStripeSize,
		},
		"sharded": {
			neon.TenantCreateRequest{
				ShardParameters: &neon.ShardParameters{Count: 4, StripeSize: 16},
			}, 4, neon.Attached(0), true, 0, 16,
		},
		"in a generation": {
			neon.TenantCreateRequest{Generation: new(neon.Generation(7)), Config: conf}, 0,
			neon.Attached(0), true, 7, neon.DefaultStripeSize,
		},
		"with a secondary": {
			neon.TenantCreateRequest{Placement: new(neon.Attached(1))}, 0, neon.Attached(1), true,
			0, neon.DefaultStripeSize,
		},
		"as a secondary": {
			neon.TenantCreateRequest{Placement: &neon.Placement{Kind: neon.PlaceSecondary}}, 0,
			neon.Placement{Kind: neon.PlaceSecondary}, false, 0, neon.DefaultStripeSize,
		},
		"as a secondary in a generation": {
			neon.TenantCreateRequest{
				Placement:  &neon.Placement{Kind: neon.PlaceSecondary},
				Generation: new(neon.Generation(7)),
			}, 0, neon.Placement{Kind: neon.PlaceSecondary}, true, 7, neon.DefaultStripeSize,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			c.req.Tenant = neon.Unsharded(tenantOne)
			resp, err := NewTenants(w.Deps).Create(t.Context(), c.req)
			if err != nil {
				t.Fatal(err)
			}
			tenant, _ := w.log.State().Tenant(tenantOne)
			if tenant.Count != c.count || tenant.Policy != c.policy || tenant.Stripe != c.stripe ||
				tenant.Config != c.req.Config || tenant.Scheduling != neon.ShardActive {
				t.Errorf("tenant is %+v", tenant)
			}
			attached := 0
			for sh := range w.log.State().TenantShards(tenantOne) {
				if sh.HasGeneration != c.numbered || sh.Generation != c.first ||
					len(sh.Secondary) != c.policy.WantedSecondaries() {
					t.Errorf("shard is %+v", sh)
				}
				if sh.Attached != 0 {
					attached++
				}
			}
			if len(resp.Shards) != attached ||
				(attached > 0) != (c.policy.Kind == neon.PlaceAttached) {
				t.Errorf("answered %+v, %d attached", resp, attached)
			}
			for _, sh := range resp.Shards {
				if sh.Generation != c.first {
					t.Errorf("answered %+v", sh)
				}
			}
			equal(t, "awaited", w.reality.awaited, tenant.Shards())
		})
	}
}

// Clients expect the number from before the first attach, however fast that was.
func TestACreationIsAnsweredWithTheNumberFromBeforeTheFirstAttach(t *testing.T) {
	w := newWorld(t, 1)
	tenants := NewTenants(w.Deps)
	w.log.After = func(c fsm.Command) error {
		if _, ok := c.(fsm.CreateTenant); ok {
			w.log.Attach(t, tenantOne)
		}
		return nil
	}
	req := neon.TenantCreateRequest{
		Tenant: neon.Unsharded(tenantOne), Generation: new(neon.Generation(7)),
	}
	for _, want := range []neon.Generation{7, 8} { // then it exists
		resp, err := tenants.Create(t.Context(), req)
		if err != nil || len(resp.Shards) != 1 || resp.Shards[0].Generation != want {
			t.Errorf("answered %+v, %v, want generation %d", resp, err, want)
		}
	}
}

func TestCreationsAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 1)
	tenants := NewTenants(w.Deps)
	create(t, tenants, 1)
	gone := neon.TenantID{2}
	w.tenant(gone, 1)
	w.log.Must(fsm.BeginDeleteTenant{ID: gone})
	for name, c := range map[string]struct {
		req  neon.TenantCreateRequest
		code neon.Code
		text string
	}{
		"a shard": {
			neon.TenantCreateRequest{Tenant: neon.ShardID{Tenant: tenantOne, Count: 2}},
			neon.BadRequest, "Attempted to create a specific shard",
		},
		"stripes of no size": {
			neon.TenantCreateRequest{
				Tenant:          neon.Unsharded(neon.TenantID{3}),
				ShardParameters: &neon.ShardParameters{Count: 2},
			}, neon.BadRequest, "stripe_size must not be zero",
		},
		"too large a stripe": {
			neon.TenantCreateRequest{
				Tenant: neon.Unsharded(neon.TenantID{3}),
				ShardParameters: &neon.ShardParameters{
					Count: 2, StripeSize: neon.MaxStripeSize + 1,
				},
			}, neon.BadRequest,
			"stripe_size 2147483648 is too large: at most 2147483647 can be used",
		},
		"too large a generation": {
			neon.TenantCreateRequest{
				Tenant: neon.Unsharded(neon.TenantID{3}), Generation: new(neon.MaxGeneration + 1),
			}, neon.BadRequest,
			"Generation 2147483648 is too large: at most 2147483647 can be taken over",
		},
		"another number of shards": {
			neon.TenantCreateRequest{
				Tenant:          neon.Unsharded(tenantOne),
				ShardParameters: &neon.ShardParameters{Count: 2, StripeSize: 8},
			}, neon.Conflict,
			fmt.Sprintf("Tenant %s already exists with a different shard count", tenantOne),
		},
		"a tenant that is being deleted": {
			neon.TenantCreateRequest{Tenant: neon.Unsharded(gone)}, neon.Conflict,
			fmt.Sprintf("Tenant %s is being deleted", gone),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refuses(c.code, c.text, func(ctx context.Context) error {
				_, err := tenants.Create(ctx, c.req)
				return err
			})
		})
	}
}

// A tenant that was split after the answer to its creation was lost has another number of
// shards. The repeated request finds it nevertheless.
func TestARepeatedCreationFindsASplitTenant(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Upgrade(t)
	tenants := NewTenants(w.Deps)
	try := func() context.Context { return decide.WithRequest(t.Context(), [32]byte{1}) }
	req := neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)}
	if _, err := tenants.Create(try(), req); err != nil {
		t.Fatal(err)
	}
	w.log.Attach(t, tenantOne)
	sh := w.shard(neon.Unsharded(tenantOne))
	tenant, _ := w.log.State().Tenant(tenantOne)
	w.log.Must(fsm.BeginSplit{
		Tenant: tenantOne, Sequence: tenant.Sequence, Count: 2, Stripe: 8,
		Parents: []fsm.SplitParent{{Shard: sh.ID, Node: 1, Generation: sh.Generation}},
	})
	sp, _ := w.log.State().Split(tenantOne)
	w.log.Must(fsm.CommitSplit{Tenant: tenantOne, Began: sp.Began})
	resp, err := tenants.Create(try(), req)
	if err != nil || len(resp.Shards) != 2 {
		t.Errorf("%+v, %v", resp, err)
	}
	w.refuses(neon.Conflict, "different shard count", func(ctx context.Context) error {
		_, err := tenants.Create(ctx, req)
		return err
	})
}

// What cannot be placed is created, and placed when there is room. The client hears of it.
func TestATenantWithoutRoomIsCreatedNevertheless(t *testing.T) {
	for nodes, text := range map[int]string{
		0: "Failed to schedule shard(s): No pageservers found",
		1: "Failed to schedule shard(s): No pageserver found matching constraint",
	} {
		w := newWorld(t, nodes)
		tenants := NewTenants(w.Deps)
		w.fails(neon.Conflict, text, func(ctx context.Context) error {
			_, err := tenants.Create(ctx, neon.TenantCreateRequest{
				Tenant: neon.Unsharded(tenantOne), Placement: new(neon.Attached(1)),
			})
			return err
		})
		if _, ok := w.log.State().Tenant(tenantOne); !ok {
			t.Errorf("on %d nodes: it was not created", nodes)
		}
		if len(tenants.placing.tenants) > 0 {
			t.Errorf("on %d nodes: the choice is kept", nodes)
		}
	}
}

func TestAFailedCreationLeavesNoChoiceBehind(t *testing.T) {
	w := newWorld(t, 1)
	tenants := NewTenants(w.Deps)
	w.log.LoseProposals(neon.Errorf(neon.NotLeader, "deposed"))
	w.fails(neon.NotLeader, "deposed", func(ctx context.Context) error {
		_, err := tenants.Create(ctx,
			neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)})
		return err
	})
	if left := len(tenants.placing.tenants); left != 0 {
		t.Errorf("%d choices are kept", left)
	}
}

func TestConfigurationsAreReplacedPatchedAndRead(t *testing.T) {
	w := newWorld(t, 1)
	tenants := NewTenants(w.Deps)
	create(t, tenants, 1)
	read := func() string {
		t.Helper()
		got, err := tenants.Config(t.Context(), tenantOne)
		if err != nil || got.Overrides != got.Effective {
			t.Errorf("%+v, %v", got, err)
		}
		return got.Overrides.JSON()
	}
	conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte("5"))
	if err := tenants.SetConfig(t.Context(), tenantOne, conf); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != `{"gc_horizon":5}` {
		t.Errorf("config is %s", got)
	}
	if err := tenants.PatchConfig(t.Context(), tenantOne,
		[]byte(`{"gc_horizon":null,"checkpoint_distance":7}`)); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != `{"checkpoint_distance":7}` {
		t.Errorf("config is %s", got)
	}
	w.refuses(neon.BadRequest, "", func(ctx context.Context) error {
		return tenants.PatchConfig(ctx, tenantOne, []byte(`{"checkpoint_distance":"far"}`))
	})
	w.refuses(neon.NotFound, fmt.Sprintf("Tenant %s not found", neon.TenantID{9}),
		func(ctx context.Context) error {
			return tenants.SetConfig(ctx, neon.TenantID{9}, conf)
		})
	w.detached(neon.TenantID{2})
	for _, id := range []neon.TenantID{{2}, {9}} {
		w.refuses(neon.NotFound, "Tenant not found", func(ctx context.Context) error {
			_, err := tenants.Config(ctx, id)
			return err
		})
	}
	empty := newWorld(t, 0)
	empty.refuses(neon.BadRequest, "No AZ with nodes found to load tenant",
		func(ctx context.Context) error {
			return NewTenants(empty.Deps).SetConfig(ctx, tenantOne, conf)
		})
}

// A change waits for the end of a split, and is refused when that takes too long.
func TestChangesOfATenantWaitForTheEndOfItsSplit(t *testing.T) {
	for name, change := range map[string]func(*Tenants, context.Context) error{
		"config": func(tenants *Tenants, ctx context.Context) error {
			return tenants.PatchConfig(ctx, tenantOne, []byte(`{"gc_horizon":5}`))
		},
		"policy": func(tenants *Tenants, ctx context.Context) error {
			return tenants.SetPolicy(ctx, tenantOne,
				neon.PolicyRequest{Placement: new(neon.Attached(1))})
		},
		"location": func(tenants *Tenants, ctx context.Context) error {
			_, err := tenants.SetLocation(ctx, neon.Unsharded(tenantOne),
				neon.LocationConfig{Mode: neon.Secondary})
			return err
		},
		"migration": func(tenants *Tenants, ctx context.Context) error {
			return NewShards(tenants.Deps).MigrateSecondary(ctx,
				neon.ShardID{Tenant: tenantOne, Count: 1}, neon.MigrateRequest{Node: 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				w.tenant(tenantOne, 1)
				sp := w.beginSplit(tenantOne)
				tenants := NewTenants(w.Deps)
				begun := time.Now()
				w.refuses(neon.Conflict, "is being split", func(ctx context.Context) error {
					return change(tenants, ctx)
				})
				if took := time.Since(begun); took != decide.LongWait {
					t.Errorf("it was refused after %s", took)
				}
				time.AfterFunc(time.Second, func() {
					w.log.Must(fsm.AbortSplit{Tenant: tenantOne, Began: sp.Began})
					w.log.Must(fsm.FinishAbortedSplit{Tenant: tenantOne, Began: sp.Began})
				})
				if err := change(tenants, t.Context()); err != nil {
					t.Error(err)
				}
				if len(w.log.Proposed()) != 1 {
					t.Errorf("proposed %+v", w.log.Proposed())
				}
			})
		})
	}
}
