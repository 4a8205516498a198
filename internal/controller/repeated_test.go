package controller

import (
	"context"
	"net/http"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// try is the first or a further try of a request.
func try(t *testing.T, request byte, further bool) context.Context {
	ctx := decide.WithRequest(t.Context(), fsm.RequestID{request})
	if further {
		decide.Repeat(ctx)
	}
	return ctx
}

// first and again are tries of two requests. Whoever sends the second hears that it was
// done, and then the first is tried once more.
type change struct {
	first, second func(context.Context) error
}

func (c change) play(t *testing.T) {
	t.Helper()
	for i, err := range []error{
		c.first(try(t, 1, false)), c.second(try(t, 2, false)), c.first(try(t, 1, true)),
	} {
		if err != nil {
			t.Errorf("try %d: %v", i, err)
		}
	}
}

func TestAFurtherTryUndoesNothingThatCameAfterTheFirst(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	tenants, nodes, shards := NewTenants(w.Deps), NewNodes(w.Deps), NewShards(w.Deps)
	ids := w.tenant(tenantOne, 1)
	one, _ := neon.TenantConfig{}.With("gc_horizon", []byte("1"))
	two, _ := neon.TenantConfig{}.With("gc_horizon", []byte("2"))
	set := func(conf neon.TenantConfig) func(context.Context) error {
		return func(ctx context.Context) error { return tenants.SetConfig(ctx, tenantOne, conf) }
	}
	change{set(one), set(two)}.play(t)
	if tenant, _ := w.log.State().Tenant(tenantOne); tenant.Config != two {
		t.Errorf("the configuration is %s", tenant.Config.JSON())
	}

	place := func(p neon.Placement) func(context.Context) error {
		return func(ctx context.Context) error {
			return tenants.SetPolicy(ctx, tenantOne, neon.PolicyRequest{Placement: &p})
		}
	}
	change{place(neon.Attached(0)), place(neon.Attached(1))}.play(t)
	change{place(neon.Attached(1)), place(neon.Attached(0))}.play(t)
	if tenant, _ := w.log.State().Tenant(tenantOne); tenant.Policy != neon.Attached(0) {
		t.Errorf("the policy is %v", tenant.Policy)
	}

	policy := func(p neon.NodeScheduling) func(context.Context) error {
		return func(ctx context.Context) error {
			return nodes.Configure(ctx, neon.NodeConfigure{
				ID: 2, Scheduling: &p, Availability: new(neon.NodeActive),
			}, Exclusively)
		}
	}
	change{policy(neon.SchedulingPause), policy(neon.SchedulingActive)}.play(t)
	if n := w.node(2); n.Scheduling != neon.SchedulingActive {
		t.Errorf("node 2 is %s", n.Scheduling)
	}

	to := func(node neon.NodeID) func(context.Context) error {
		return func(ctx context.Context) error {
			return shards.Migrate(ctx, ids[0], neon.MigrateRequest{
				Node: node, Config: neon.MigrationConfig{OverrideScheduler: true},
			})
		}
	}
	change{to(2), to(1)}.play(t)
	if sh := w.shard(ids[0]); sh.Attached != 1 {
		t.Errorf("the shard is on %d", sh.Attached)
	}

	zone := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			resp, err := tenants.SetPreferredAZs(ctx,
				neon.PreferredAZsRequest{ids[0]: new(neon.MakeAZ(name))})
			equal(t, "shards", resp.Updated, ids)
			return err
		}
	}
	change{zone("x"), zone("y")}.play(t)
	if sh := w.shard(ids[0]); sh.PreferredAZ != neon.MakeAZ("y") {
		t.Errorf("the zone is %s", sh.PreferredAZ)
	}
}

func TestAFurtherTryOfACreationBringsNothingBack(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Upgrade(t)
	tenants := NewTenants(w.Deps)
	conf := neon.LocationConfig{Mode: neon.AttachedSingle, Generation: new(neon.Generation(1))}
	for name, create := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error {
			_, err := tenants.Create(ctx,
				neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)})
			return err
		},
		"location": func(ctx context.Context) error {
			_, err := tenants.SetLocation(ctx, neon.Unsharded(tenantOne), conf)
			if neon.CodeOf(err) == neon.NotFound {
				err = nil // there is no location to answer with
			}
			return err
		},
	} {
		drop := func(ctx context.Context) error { return tenants.Drop(ctx, tenantOne) }
		first := []byte(name)[0]
		for _, err := range []error{
			create(try(t, first, false)), drop(try(t, first+1, false)), create(try(t, first, true)),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, ok := w.log.State().Tenant(tenantOne); ok {
			t.Errorf("%s: the dropped tenant is back", name)
			w.log.Must(fsm.DropTenant{ID: tenantOne})
		}
	}
}

// Pageservers are not asked again for what another request has undone since.
func TestAFurtherTryAsksPageserversForNothingThatWasDone(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 2)
	timelines, _ := w.timelines()
	for name, call := range map[string]func(context.Context) error{
		"archive": func(ctx context.Context) error {
			return timelines.Archive(ctx, tenantOne, timelineOne,
				neon.ArchivalRequest{State: neon.Archived})
		},
		"block": func(ctx context.Context) error {
			return timelines.ChangeGC(ctx, tenantOne, timelineOne, neon.BlockGC)
		},
	} {
		request := []byte(name)[0]
		w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
			return 0, "", &statusError{http.StatusInternalServerError, neon.Internal, "broken"}
		}
		if err := call(try(t, request, false)); err == nil {
			t.Errorf("%s: no error", name)
		}
		w.calls.call = nil
		w.calls.took()
		for _, asked := range []int{2, 0} { // what was not done is done
			if err := call(try(t, request, true)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if calls := w.calls.took(); len(calls) != asked {
				t.Errorf("%s: asked %q", name, calls)
			}
		}
	}
}

// A creation that is tried again is refused if the timeline was deleted in between: some
// shards may have had it before, and others would get it after.
func TestAFurtherTryOfACreationSeesADeletionInBetween(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 2)
	timelines, _ := w.timelines()
	w.calls.create = func(
		_ neon.NodeID, id neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		return info(t, req.Timeline, ""), nil
	}
	create := func(ctx context.Context) error {
		_, err := timelines.Create(ctx, tenantOne, neon.TimelineCreateRequest{
			Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
		})
		return err
	}
	for _, again := range []bool{false, true} {
		if err := create(try(t, 1, again)); err != nil {
			t.Fatal(err)
		}
	}
	w.calls.took()
	w.log.Must(fsm.BeginDeleteTimeline{Tenant: tenantOne, Timeline: timelineOne})
	w.log.Must(fsm.DeleteTimeline{Tenant: tenantOne, Timeline: timelineOne})
	if err := create(try(t, 1, true)); neon.CodeOf(err) != neon.Conflict {
		t.Errorf("got %v", err)
	}
	equal(t, "calls", w.calls.took(), nil)
	if err := create(try(t, 2, false)); err != nil {
		t.Errorf("another creation: %v", err)
	}
}

// The numbers of the newest start are never taken from it.
func TestAFurtherTryOfAStartNumbersAgainUnlessAnotherCameSince(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 1)
	u := NewUpcalls(w.Deps)
	start := func(request byte, further bool) (neon.Generation, error) {
		resp, err := u.ReAttach(try(t, request, further), neon.ReAttachRequest{Node: 1})
		if err != nil {
			return 0, err
		}
		return *resp.Tenants[0].Gen, nil
	}
	for want, c := range []struct {
		request byte
		further bool
	}{{1, false}, {1, true}, {1, true}, {2, true}} { // the last was not carried out before
		if g, err := start(c.request, c.further); err != nil || int(g) != want+2 {
			t.Errorf("generation %d, not %d: %v", g, want+2, err)
		}
	}
	if g, err := start(1, true); neon.CodeOf(err) != neon.Conflict {
		t.Errorf("the first process got generation %d, %v", g, err)
	}
	if g, err := start(2, true); err != nil || g != 6 {
		t.Errorf("generation %d, %v", g, err)
	}
}

func TestAFurtherTryOfAnAttachmentByHandUndoesNoOther(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	tenants := NewTenants(w.Deps)
	shard := neon.Unsharded(tenantOne)
	attach := func(request byte, further bool, node neon.NodeID) (neon.Generation, error) {
		req := neon.AttachHookRequest{Shard: shard}
		if node != 0 {
			req.Node = &node
		}
		resp, err := tenants.AttachHook(try(t, request, further), req)
		if err != nil || resp.Generation == nil {
			return 0, err
		}
		return *resp.Generation, nil
	}
	for want, further := range []bool{false, true, true} {
		if g, err := attach(1, further, 1); err != nil || int(g) != want+1 {
			t.Errorf("generation %d, not %d: %v", g, want+1, err)
		}
	}
	if _, err := attach(2, false, 2); err != nil {
		t.Error(err)
	}
	if g, err := attach(1, true, 1); err == nil || w.shard(shard).Attached != 2 {
		t.Errorf("generation %d, attached on %d: %v", g, w.shard(shard).Attached, err)
	}
	if _, err := attach(3, false, 0); err != nil {
		t.Error(err)
	}
	if _, err := attach(4, false, 2); err != nil {
		t.Error(err)
	}
	if _, err := attach(3, true, 0); err != nil || w.shard(shard).Attached != 2 {
		t.Errorf("attached on %d: %v", w.shard(shard).Attached, err)
	}
}
