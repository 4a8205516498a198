package controller

import (
	"context"
	"fmt"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

var (
	detachedPolicy  = neon.Placement{}
	secondaryPolicy = neon.Placement{Kind: neon.PlaceSecondary}
)

func TestAPolicyChangesTheIntentsInOneEntry(t *testing.T) {
	for name, c := range map[string]struct {
		from, to    neon.Placement
		attached    bool
		secondaries int
	}{
		"a secondary more": {neon.Attached(0), neon.Attached(1), true, 1},
		"a secondary less": {neon.Attached(1), neon.Attached(0), true, 0},
		"secondary only":   {neon.Attached(0), secondaryPolicy, false, 1},
		"one to spare":     {neon.Attached(1), secondaryPolicy, false, 2},
		"detached":         {neon.Attached(1), detachedPolicy, false, 0},
		"attached again":   {detachedPolicy, neon.Attached(0), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			tenants := NewTenants(w.Deps)
			if _, err := tenants.Create(t.Context(), neon.TenantCreateRequest{
				Tenant: neon.Unsharded(tenantOne), Placement: &c.from,
			}); err != nil {
				t.Fatal(err)
			}
			proposed := len(w.log.Proposed())
			for range 2 { // the second one changes nothing
				if err := tenants.SetPolicy(t.Context(), tenantOne,
					neon.PolicyRequest{Placement: &c.to}); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(w.log.Proposed()) - proposed; n != 1 {
				t.Errorf("%d entries", n)
			}
			tenant, _ := w.log.State().Tenant(tenantOne)
			sh := w.shard(neon.Unsharded(tenantOne))
			if tenant.Policy != c.to || (sh.Attached != 0) != c.attached ||
				len(sh.Secondary) != c.secondaries {
				t.Errorf("tenant is %+v, its shard %+v", tenant, sh)
			}
		})
	}
}

func TestAPolicyThatCannotBeMetIsSetAndSaidToBeSo(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.fails(neon.Conflict, "", func(ctx context.Context) error {
		return NewTenants(w.Deps).SetPolicy(ctx, tenantOne,
			neon.PolicyRequest{Placement: new(neon.Attached(1))})
	})
	if tenant, _ := w.log.State().Tenant(tenantOne); tenant.Policy != neon.Attached(1) {
		t.Errorf("tenant is %+v", tenant)
	}
	equal(t, "kicked", w.reality.kicked, neon.ShardIDs(tenantOne, 1))
}

func TestPoliciesAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.log.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	tenants := NewTenants(w.Deps)
	for _, id := range []neon.TenantID{{9}, tenantOne} {
		w.refuses(neon.NotFound, fmt.Sprintf("Tenant %s not found", id),
			func(ctx context.Context) error {
				return tenants.SetPolicy(ctx, id, neon.PolicyRequest{Placement: &detachedPolicy})
			})
		w.refuses(neon.NotFound, fmt.Sprintf("Tenant %s not found", id),
			func(ctx context.Context) error {
				return tenants.SetPolicy(ctx, id,
					neon.PolicyRequest{Scheduling: new(neon.ShardPause)})
			})
	}
}

// A location becomes the nearest policy of a new tenant, and its answer is where that is.
func TestALocationOfANewTenantBecomesItsPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		nodes      int
		conf       neon.LocationConfig
		policy     neon.Placement
		generation neon.Generation
		stripe     neon.StripeSize
		shards     int
	}{
		"attached": {
			2, neon.LocationConfig{Mode: neon.AttachedSingle, Generation: new(neon.Generation(3))},
			neon.Attached(1), 3, neon.DefaultStripeSize, 1,
		},
		"attached to the only node": {
			1, neon.LocationConfig{Mode: neon.AttachedMulti, StripeSize: 64}, neon.Attached(0), 0,
			64, 1,
		},
		"secondary": {
			1, neon.LocationConfig{Mode: neon.Secondary}, secondaryPolicy, 0,
			neon.DefaultStripeSize, 0,
		},
		"detached": {
			1, neon.LocationConfig{Mode: neon.Detached}, detachedPolicy, 0,
			neon.DefaultStripeSize, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.nodes)
			resp, err := NewTenants(w.Deps).SetLocation(t.Context(), neon.Unsharded(tenantOne),
				c.conf)
			if err != nil {
				t.Fatal(err)
			}
			tenant, _ := w.log.State().Tenant(tenantOne)
			sh := w.shard(neon.Unsharded(tenantOne))
			if tenant.Policy != c.policy || tenant.Stripe != c.stripe ||
				sh.Generation != c.generation {
				t.Errorf("tenant is %+v, its shard %+v", tenant, sh)
			}
			if len(resp.Shards) != c.shards || c.shards > 0 && resp.Shards[0].Node != sh.Attached {
				t.Errorf("answered %+v, it is on %d", resp, sh.Attached)
			}
		})
	}
}

// A tenant that was onboarded without a number takes the first that it is given, and no
// other one after that: numbers are the log's to give.
func TestALocationGivesANumberOnlyToATenantWithoutOne(t *testing.T) {
	w := newWorld(t, 1)
	tenants := NewTenants(w.Deps)
	id := neon.Unsharded(tenantOne)
	set := func(mode neon.LocationMode, g *neon.Generation) neon.LocationConfigResponse {
		t.Helper()
		resp, err := tenants.SetLocation(t.Context(), id,
			neon.LocationConfig{Mode: mode, Generation: g})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	set(neon.Secondary, nil)
	if sh := w.shard(id); sh.HasGeneration {
		t.Errorf("shard is %+v", sh)
	}
	resp := set(neon.AttachedSingle, new(neon.Generation(123)))
	if sh := w.shard(id); sh.Generation != 123 || sh.Attached != 1 {
		t.Errorf("shard is %+v", sh)
	}
	if len(resp.Shards) != 1 || resp.Shards[0].Node != 1 || resp.StripeSize != nil {
		t.Errorf("answered %+v", resp)
	}
	set(neon.AttachedSingle, new(neon.Generation(7)))
	set(neon.AttachedSingle, new(neon.Generation(999)))
	if sh := w.shard(id); sh.Generation != 123 {
		t.Errorf("shard is %+v", sh)
	}
}

func TestALocationOfAShardedTenantIsAnsweredWithItsStripes(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.tenant(tenantOne, 2)
	resp, err := NewTenants(w.Deps).SetLocation(t.Context(), neon.Unsharded(tenantOne),
		neon.LocationConfig{Mode: neon.AttachedSingle})
	if err != nil || resp.StripeSize == nil || *resp.StripeSize != 8 {
		t.Fatalf("%+v, %v", resp, err)
	}
	equal(t, "shards", resp.Shards, neon.List[neon.ShardLocation]{
		{Shard: ids[0], Node: 1}, {Shard: ids[1], Node: 2},
	})
	if tenant, _ := w.log.State().Tenant(tenantOne); tenant.Policy != neon.Attached(1) {
		t.Errorf("tenant is %+v", tenant)
	}
}

func TestLocationsAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.log.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	tenants := NewTenants(w.Deps)
	location := func(id neon.ShardID) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := tenants.SetLocation(ctx, id, neon.LocationConfig{Mode: neon.AttachedSingle})
			return err
		}
	}
	w.refuses(neon.BadRequest, "importing single-sharded or unsharded tenants",
		location(neon.ShardID{Tenant: tenantOne, Count: 1}))
	w.refuses(neon.NotFound, fmt.Sprintf("Tenant %s not found", tenantOne),
		location(neon.Unsharded(tenantOne)))
	w.unreadable(map[string]func(context.Context) error{
		"location": location(neon.Unsharded(neon.TenantID{2})),
	})
}

// A tenant that has no place is changed, and the client hears that it has none.
func TestALocationWithoutARoomIsAConflict(t *testing.T) {
	w := newWorld(t, 2)
	w.tenant(tenantOne, 1)
	w.schedule(2, neon.SchedulingPause)
	w.fails(neon.Conflict, "", func(ctx context.Context) error {
		_, err := NewTenants(w.Deps).SetLocation(ctx, neon.Unsharded(tenantOne),
			neon.LocationConfig{Mode: neon.AttachedSingle})
		return err
	})
	if tenant, _ := w.log.State().Tenant(tenantOne); tenant.Policy != neon.Attached(1) {
		t.Errorf("tenant is %+v", tenant)
	}
	equal(t, "kicked", w.reality.kicked, neon.ShardIDs(tenantOne, 1))
}

// Numbers of attachments by clients go up as all others, and the shard is left alone until
// it is configured here.
func TestAttachmentsByClientsAreNumbered(t *testing.T) {
	w := newWorld(t, 2)
	tenants := NewTenants(w.Deps)
	id := neon.Unsharded(tenantOne)
	conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte("5"))
	for i, c := range []struct {
		req  neon.AttachHookRequest
		want *neon.Generation
		node neon.NodeID
	}{
		{
			neon.AttachHookRequest{
				Node: new(neon.NodeID(1)), GenerationOverride: new(neon.Generation(7)),
				Config: &conf,
			}, new(neon.Generation(8)), 1,
		},
		{neon.AttachHookRequest{Node: new(neon.NodeID(2))}, new(neon.Generation(9)), 2},
		{neon.AttachHookRequest{}, nil, 0},
		{neon.AttachHookRequest{Node: new(neon.NodeID(1))}, new(neon.Generation(10)), 1},
	} {
		c.req.Shard = id
		resp, err := tenants.AttachHook(t.Context(), c.req)
		if err != nil || (resp.Generation == nil) != (c.want == nil) ||
			c.want != nil && *resp.Generation != *c.want {
			t.Errorf("request %d: %+v, %v", i, resp, err)
		}
		if sh := w.shard(id); !sh.Unmanaged || sh.GenNode != c.node {
			t.Errorf("request %d: shard is %+v", i, sh)
		}
	}
	tenant, _ := w.log.State().Tenant(tenantOne)
	if tenant.Config != conf {
		t.Errorf("tenant is %+v", tenant)
	}
	if calls := w.calls.took(); len(calls) > 0 {
		t.Errorf("pageservers were asked: %q", calls)
	}
	// To configure it as it is makes it managed again.
	if err := tenants.SetConfig(t.Context(), tenantOne, conf); err != nil {
		t.Fatal(err)
	}
	if sh := w.shard(id); sh.Unmanaged || sh.Generation != 10 {
		t.Errorf("shard is %+v", sh)
	}
}

// Clients of the hook know no error but that of the server.
func TestRefusedAttachmentsAreErrorsOfTheServer(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	tenants := NewTenants(w.Deps)
	hook := func(id neon.ShardID, node neon.NodeID) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := tenants.AttachHook(ctx, neon.AttachHookRequest{Shard: id, Node: &node})
			return err
		}
	}
	w.refuses(neon.Internal, "Node 0 not registered", hook(neon.Unsharded(tenantOne), 0))
	shard := neon.ShardID{Tenant: tenantOne, Count: 1}
	w.fails(neon.Internal, "Node 9 not registered", hook(shard, 9))
	w.fails(neon.Internal, "not found", hook(neon.ShardID{Tenant: tenantOne, Count: 4}, 1))
	w.log.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	w.fails(neon.Internal, "is being deleted", hook(shard, 1))
	if sh := w.shard(shard); sh.Generation != 1 || sh.Unmanaged {
		t.Errorf("shard is %+v", sh)
	}
	w.log.LoseProposals(neon.Errorf(neon.OutcomeUnknown, "lost"))
	w.fails(neon.OutcomeUnknown, "lost", hook(shard, 1)) // no refusal: it may have happened
}

// The tombstone of a dropped tenant keeps its largest number.
func TestADroppedTenantLeavesNothingButItsNumber(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	tenants := NewTenants(w.Deps)
	for _, id := range []neon.TenantID{tenantOne, tenantOne, {9}} {
		if err := tenants.Drop(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if n := len(w.log.Proposed()); n != 1 || w.log.State().ShardCount() != 0 {
		t.Errorf("%d shards are left after %d proposals", w.log.State().ShardCount(), n)
	}
	if calls := w.calls.took(); len(calls) > 0 {
		t.Errorf("pageservers were asked: %q", calls)
	}
	create(t, tenants, 1)
	if sh := w.shard(neon.ShardID{Tenant: tenantOne, Count: 1}); sh.Generation != 1 {
		t.Errorf("a tenant of that id begins with %+v", sh)
	}
}

// Numbers that leave too few are refused when a location or an attachment brings them.
func TestChosenGenerationsLeaveEnough(t *testing.T) {
	w := newWorld(t, 2)
	tenants := NewTenants(w.Deps)
	over := new(neon.MaxGeneration + 1)
	bare := neon.TenantID{2}
	w.log.Must(fsm.CreateTenant{
		ID: bare, Stripe: 8, Policy: secondaryPolicy, NoGeneration: true,
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Secondary: []neon.NodeID{1}}},
	})
	locate := func(id neon.TenantID) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := tenants.SetLocation(ctx, neon.Unsharded(id),
				neon.LocationConfig{Mode: neon.AttachedSingle, Generation: over})
			return err
		}
	}
	w.refuses(neon.BadRequest, "Generation 2147483648 is too large", locate(tenantOne))
	w.refuses(neon.BadRequest, "Generation 2147483648 is too large", locate(bare))
	w.refuses(neon.BadRequest, "Generation 2147483648 is too large", func(ctx context.Context) error {
		_, err := tenants.AttachHook(ctx, neon.AttachHookRequest{
			Shard: neon.Unsharded(tenantOne), Node: new(neon.NodeID(1)), GenerationOverride: over,
		})
		return err
	})
	// A tenant that has a number keeps it, whatever the location says.
	w.tenant(tenantOne, 1)
	if err := locate(neon.TenantID{3})(t.Context()); neon.CodeOf(err) != neon.BadRequest {
		t.Errorf("%v", err)
	}
}
