package controller

import (
	"context"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// tryOf is a try of the request of that number.
func tryOf(t *testing.T, n byte) context.Context {
	return decide.WithRequest(t.Context(), [32]byte{n})
}

func TestRepeatedZonesAreOfShardsThatExist(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	ids := w.tenant(tenantOne, 1)
	unknown := neon.ShardID{Tenant: neon.TenantID{9}, Count: 1}
	for try := range 2 {
		resp, err := NewTenants(w.Deps).SetPreferredAZs(tryOf(t, 1), neon.PreferredAZsRequest{
			ids[0]: new(neon.MakeAZ("b")), unknown: new(neon.MakeAZ("b")),
		})
		if err != nil || len(resp.Updated) != 1 {
			t.Errorf("try %d: updated %v, %v", try, resp.Updated, err)
		}
	}
}

func TestADetachByHandIsNotRepeated(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	tenants := NewTenants(w.Deps)
	id := neon.Unsharded(tenantOne)
	hook := func(ctx context.Context, n *neon.NodeID) neon.AttachHookResponse {
		r, err := tenants.AttachHook(ctx, neon.AttachHookRequest{Shard: id, Node: n})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	hook(tryOf(t, 1), new(neon.NodeID(1)))
	hook(tryOf(t, 2), nil)                 // detach; the answer is lost
	hook(tryOf(t, 3), new(neon.NodeID(2))) // acknowledged
	hook(tryOf(t, 2), nil)                 // carried again
	for sh := range w.log.State().TenantShards(tenantOne) {
		if sh.Attached != 2 {
			t.Errorf("the acknowledged attachment to 2 was undone: attached %d", sh.Attached)
		}
	}
}

// The new leader has not applied the creation yet.
func TestACreationIsRecognisedByALeaderThatLags(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	w.log.Must(fsm.SetNodeScheduling{Node: 2, Scheduling: neon.SchedulingPause})
	old := w.log.State()
	w.log.Must(fsm.SetNodeScheduling{Node: 2, Scheduling: neon.SchedulingActive})
	req := neon.TenantCreateRequest{
		Tenant: neon.Unsharded(tenantOne), Placement: new(neon.Attached(1))}
	first, err := NewTenants(w.Deps).Create(tryOf(t, 1), req)
	if err != nil {
		t.Fatal(err)
	}
	w.log.Attach(t, tenantOne)
	w.log.Must(fsm.ReAttach{Node: first.Shards[0].Node})
	w.log.Must(fsm.ReAttach{Node: first.Shards[0].Node})
	sh := w.shard(first.Shards[0].Shard)
	w.log.Lag(old)
	again, err := NewTenants(w.Deps).Create(tryOf(t, 1), req)
	if err != nil {
		t.Errorf("done, and answered with: %v", err)
	}
	if again.Shards[0].Generation != sh.Generation {
		t.Errorf("the generation is %d, answered %+v", sh.Generation, again)
	}
}

// An operation that was begun between two tries does not forbid the second half.
func TestHalfAConfigurationIsRefusedBesideADrain(t *testing.T) {
	w := newWorld(t, 3)
	w.log.Upgrade(t)
	nodes := NewNodes(w.Deps)
	req := neon.NodeConfigure{
		ID: 1, Scheduling: new(neon.SchedulingActive), Availability: new(neon.NodeOffline),
	}
	w.log.After = func(fsm.Command) error {
		w.log.After = nil
		return neon.Errorf(neon.OutcomeUnknown, "died")
	}
	_ = nodes.Configure(tryOf(t, 1), req, Exclusively)
	w.begin(1, fsm.OperationDrain)
	if err := nodes.Configure(tryOf(t, 1), req, Exclusively); err == nil {
		t.Errorf("node made %s during its drain", w.node(1).Availability)
	}
}

// A request about shards that nobody knew is repeated under its key, and changes those that
// were created since.
func TestPreferencesOfUnknownShardsAreNotSetLater(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Upgrade(t)
	prefer := func() {
		az := neon.MakeAZ("other")
		if _, err := NewTenants(w.Deps).SetPreferredAZs(tryOf(t, 1), neon.PreferredAZsRequest{
			neon.Unsharded(tenantOne): &az,
		}); err != nil {
			t.Error(err)
		}
	}
	prefer()
	w.tenant(tenantOne, 0)
	was, _ := w.log.State().Shard(neon.Unsharded(tenantOne))
	prefer()
	if sh, ok := w.log.State().Shard(was.ID); !ok || sh.PreferredAZ != was.PreferredAZ {
		t.Errorf("it prefers %s", sh.PreferredAZ)
	}
}

// Both halves were done and the answer was lost. A drain of another node was begun since.
func TestAWholeConfigurationIsRecognisedBesideADrain(t *testing.T) {
	w := newWorld(t, 3)
	w.log.Upgrade(t)
	nodes := NewNodes(w.Deps)
	req := neon.NodeConfigure{
		ID: 1, Scheduling: new(neon.SchedulingPause), Availability: new(neon.NodeOffline),
	}
	if err := nodes.Configure(tryOf(t, 1), req, Exclusively); err != nil {
		t.Fatal(err)
	}
	w.begin(2, fsm.OperationDrain)
	if err := nodes.Configure(tryOf(t, 1), req, Exclusively); err != nil {
		t.Errorf("done, and answered %v", err)
	}
}

// The creation was done and its answer lost. The owner was replaced, and the new one does not
// have the tenant yet: the timeline was not deleted.
func TestAnOwnerThatDoesNotHaveTheTenantYetHasDeletedNothing(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	w.tenant(tenantOne, 1)
	w.log.Attach(t, tenantOne)
	timelines, _ := w.timelines()
	w.answers("")
	req := neon.TimelineCreateRequest{Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{}}
	if _, err := timelines.Create(tryOf(t, 1), tenantOne, req); err != nil {
		t.Fatal(err)
	}
	w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
		return 0, "", &statusError{404, neon.NotFound, "NotFound: tenant " + tenantOne.String()}
	}
	if _, err := timelines.Create(tryOf(t, 1), tenantOne, req); neon.CodeOf(err) !=
		neon.Unavailable {
		t.Errorf("%v", err)
	}
}
