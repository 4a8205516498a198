package fsm

import (
	"math"
	"strings"
	"testing"

	"quorate/api/neon"
)

var (
	shard0 = neon.ShardID{Tenant: modelTenant(1), Number: 0, Count: 2}
	shard1 = neon.ShardID{Tenant: modelTenant(1), Number: 1, Count: 2}
)

// TestRefusals: what a command needs, and that nothing changes when it lacks it.
// Each starts from the state of small.
func TestRefusals(t *testing.T) {
	s := small(t)
	tenant, _ := s.Tenant(modelTenant(1))
	long := strings.Repeat("x", maxName+1)
	one := []NewShard{{}}
	create := func(f func(*CreateTenant)) Command {
		c := CreateTenant{
			ID: modelTenant(2), Count: 1, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
			Shards: one,
		}
		f(&c)
		return c
	}
	update := func(f func(*UpdateTenant)) Command {
		c := UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence}
		f(&c)
		return c
	}
	for name, c := range map[string]struct {
		c    Command
		code neon.Code
	}{
		"another cluster": {SetCluster{ID: "other"}, neon.Conflict},
		"node 0":          {RegisterNode{}, neon.BadRequest},
		"long host": {
			RegisterNode{ID: 9, Addr: NodeAddr{HTTPHost: long}}, neon.BadRequest,
		},
		"long zone of a node": {RegisterNode{ID: 9, AZ: neon.MakeAZ(long)}, neon.BadRequest},
		"node with another host": {RegisterNode{
			ID: 1, AZ: neon.MakeAZ("a"), Addr: NodeAddr{HTTPHost: "other", HTTPPort: 1},
		}, neon.Conflict},
		"node in another zone": {
			RegisterNode{ID: 1, AZ: neon.MakeAZ("b"), Addr: NodeAddr{HTTPHost: "ps", HTTPPort: 1}},
			neon.Conflict,
		},
		"wish for no node": {
			SetNodeScheduling{Node: 9, Scheduling: neon.SchedulingPause}, neon.NotFound,
		},
		"unknown wish": {
			SetNodeScheduling{Node: 1, Scheduling: "Later"}, neon.BadRequest,
		},
		"re-attach of no node": {ReAttach{Node: 9}, neon.NotFound},
		"tenant exists": {
			create(func(c *CreateTenant) { c.ID = modelTenant(1) }), neon.Conflict,
		},
		"too few shards": {create(func(c *CreateTenant) { c.Count = 2 }), neon.BadRequest},
		"unknown scheduling": {
			create(func(c *CreateTenant) { c.Scheduling = "" }), neon.BadRequest,
		},
		"unknown policy": {
			create(func(c *CreateTenant) { c.Policy.Kind = 9 }), neon.BadRequest,
		},
		"secondaries past count": {
			create(func(c *CreateTenant) { c.Policy.Secondaries = maxSecondaries + 1 }),
			neon.BadRequest,
		},
		"long zone of a shard": {create(func(
			c *CreateTenant,
		) {
			c.Shards = []NewShard{{PreferredAZ: neon.MakeAZ(long)}}
		}), neon.BadRequest},
		"placed on no node": {
			create(func(c *CreateTenant) { c.Shards = []NewShard{{Attached: 9}} }), neon.Conflict,
		},
		"placed twice on one": {create(func(
			c *CreateTenant,
		) {
			c.Shards = []NewShard{{Attached: 1, Secondary: []neon.NodeID{1}}}
		}), neon.Conflict},
		"secondary twice": {create(func(
			c *CreateTenant,
		) {
			c.Shards = []NewShard{{Secondary: []neon.NodeID{2, 2}}}
		}), neon.Conflict},
		"update of no tenant": {UpdateTenant{ID: modelTenant(3)}, neon.NotFound},
		"update from before":  {update(func(c *UpdateTenant) { c.Sequence-- }), neon.Conflict},
		"update, unknown policy": {
			update(func(c *UpdateTenant) { c.Policy = &neon.Placement{Kind: 9} }), neon.BadRequest,
		},
		"update, unknown wish": {
			update(func(c *UpdateTenant) { c.Scheduling = new(neon.ShardScheduling) }),
			neon.BadRequest,
		},
		"update, stale shard": {
			update(func(c *UpdateTenant) { c.Intents = []Intent{{Shard: shard0, Attached: 1}} }),
			neon.Conflict,
		},
		"delete of no tenant": {BeginDeleteTenant{ID: modelTenant(3)}, neon.NotFound},
		"delete not begun":    {FinishDeleteTenant{ID: modelTenant(1)}, neon.PreconditionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			next, r := Apply(s, s.Index+1, RequestID{1}, c.c)
			if r.Err == nil || r.Err.Code != c.code {
				t.Fatalf("got %v, want a %s", r.Err, c.code)
			}
			if !sameRecords(s, next) {
				t.Fatal("something changed")
			}
			if _, again := Apply(next, next.Index+1, RequestID{1}, c.c); again.Duplicate {
				t.Fatal("a refusal is taken for done")
			}
		})
	}
}

// TestOlderTermIsRefused: a deposed leader cannot name itself.
func TestOlderTermIsRefused(t *testing.T) {
	s, _ := must(t, NewState(), SetLeader{Leader{ServerID: "a", Term: 5}})
	next, r := Apply(s, 9, RequestID{}, SetLeader{Leader{ServerID: "b", Term: 4}})
	if r.Err == nil || next.Leader.ServerID != "a" {
		t.Fatalf("%v, leader %+v", r.Err, next.Leader)
	}
}

// TestStaleItemsAreRefused: each item of a batch stands for itself, and one that
// was decided on something older is listed and changes nothing.
func TestStaleItemsAreRefused(t *testing.T) {
	s := small(t)
	sh0, _ := s.Shard(shard0)
	sh1, _ := s.Shard(shard1)
	stale := Intent{Shard: shard0, Sequence: sh0.Sequence - 1, Attached: 3, Issue: true}
	good := Intent{Shard: shard1, Sequence: sh1.Sequence, Attached: 3, Issue: true}
	next, r := Apply(s, s.Index+1, RequestID{}, SetIntents{Intents: []Intent{stale, good, good}})
	if len(r.Refused) != 2 || r.Refused[0] != shard0 || r.Refused[1] != shard1 {
		t.Fatalf("refused %v", r.Refused)
	}
	if len(r.Grants) != 1 || r.Grants[0] != (Grant{Shard: shard1, Generation: 2, Node: 3}) {
		t.Fatalf("granted %v", r.Grants)
	}
	if now, _ := next.Shard(shard0); !sameShard(now, sh0) {
		t.Fatalf("changed to %+v", now)
	}

	issue := Issue{Shard: shard0, Node: 1, Generation: 1}
	for name, it := range map[string]Issue{
		"an older number":         {Shard: shard0, Node: 1, Generation: 0},
		"a node not intended":     {Shard: shard0, Node: 2, Generation: 1},
		"no node":                 {Shard: shard0, Generation: 1},
		"a shard that is not":     {Shard: neon.Unsharded(modelTenant(1)), Node: 1, Generation: 1},
		"the same decision twice": issue,
	} {
		next, r := Apply(s, s.Index+1, RequestID{}, IssueGenerations{Items: []Issue{issue, it}})
		if len(r.Refused) != 1 || r.Refused[0] != it.Shard || len(r.Grants) != 1 {
			t.Errorf("%s: refused %v, granted %v", name, r.Refused, r.Grants)
		}
		if sh, _ := next.Shard(shard0); sh.Generation != 2 {
			t.Errorf("%s: generation %d", name, sh.Generation)
		}
	}
}

// usedUp is a state in which one shard on node 1 has no number left, among others that
// have.
func usedUp(t *testing.T) (*State, neon.ShardID) {
	t.Helper()
	s := small(t)
	first := neon.Generation(math.MaxUint32 - 1)
	s, _ = must(t, s, CreateTenant{
		ID: modelTenant(2), Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Generation: first, Shards: []NewShard{{Attached: 1}},
	})
	id := neon.Unsharded(modelTenant(2))
	s, r := must(t, s, IssueGenerations{Items: []Issue{{Shard: id, Node: 1, Generation: first}}})
	if r.Grants[0].Generation != math.MaxUint32 {
		t.Fatalf("granted %v", r.Grants)
	}
	return s, id
}

// TestUsedUpGenerations: at the end of the numbers nothing wraps around, and what
// is refused is refused whole.
func TestUsedUpGenerations(t *testing.T) {
	s, id := usedUp(t)
	sh, _ := s.Shard(id)
	for _, c := range []Command{
		IssueGenerations{Items: []Issue{{Shard: id, Node: 1, Generation: math.MaxUint32}}},
		SetIntents{Intents: []Intent{{Shard: id, Sequence: sh.Sequence, Attached: 2, Issue: true}}},
		ReAttach{Node: 1}, // as the first version does
	} {
		next, r := Apply(s, s.Index+1, RequestID{}, c)
		if r.Err == nil && len(r.Refused) != 1 || !sameRecords(s, next) {
			t.Errorf("%#v: %+v\n%s", c, r, dump(next))
		}
	}
}

// One shard that has no number left keeps neither its pageserver from starting nor the
// cluster from beginning again.
func TestAShardWithoutNumbersHoldsNothingUp(t *testing.T) {
	s, id := usedUp(t)
	s, _ = must(t, s, SetLevel{Level: Level})
	next, r := must(t, s, ReAttach{Node: 1})
	if len(r.ReAttached) != 2 || len(r.Grants) != 2 || len(r.LeftOut) != 1 || r.LeftOut[0] != id {
		t.Errorf("re-attached %v, left out %v", r.ReAttached, r.LeftOut)
	}
	if sh, _ := next.Shard(id); sh.Generation != math.MaxUint32 {
		t.Errorf("it is in generation %d now", sh.Generation)
	}
	again, err := Recover(restored(t, next), "new")
	if err != nil {
		t.Fatal(err)
	}
	for sh := range again.ShardsFrom(neon.ShardID{}) {
		was, _ := next.Shard(sh.ID)
		if sh.ID != id && sh.Generation != was.Generation+RecoveryGap ||
			sh.ID == id && !sh.Exhausted() {
			t.Errorf("%s jumps from %d to %d", sh.ID, was.Generation, sh.Generation)
		}
	}
	worn := *s
	worn.Epoch = maxEpoch
	if _, err := Recover(&worn, "new"); err == nil || !strings.Contains(err.Error(), "at most 32767 times") {
		t.Errorf("recovered once too often: %v", err)
	}
}

// Numbers near their end are refused at every entrance of the log.
func TestNumbersNearTheirEndAreRefused(t *testing.T) {
	s := small(t)
	s, _ = must(t, s, UpsertSafekeeper{ID: 1, Host: "sk"})
	create := func(g neon.Generation, stripe neon.StripeSize) CreateTenant {
		return CreateTenant{
			ID: modelTenant(2), Stripe: stripe, Policy: neon.Attached(0),
			Scheduling: neon.ShardActive, Generation: g, Shards: []NewShard{{Attached: 1}},
		}
	}
	onboarded := CreateTenant{
		ID: modelTenant(3), Stripe: 1, Policy: neon.Placement{Kind: neon.PlaceSecondary},
		Scheduling: neon.ShardActive, NoGeneration: true,
		Shards: []NewShard{{Secondary: []neon.NodeID{1}}},
	}
	s, _ = must(t, s, onboarded)
	tenant, _ := s.Tenant(modelTenant(3))
	attach := func(g neon.Generation) Command {
		return UpdateTenant{
			ID: tenant.ID, Sequence: tenant.Sequence, Policy: new(neon.Attached(0)), Generation: &g,
		}
	}
	unmanaged := func(g neon.Generation) Command {
		return AttachUnmanaged{Shard: neon.Unsharded(modelTenant(4)), Node: 1, Generation: g}
	}
	whole, _ := s.Tenant(modelTenant(1))
	split := BeginSplit{
		Tenant: whole.ID, Sequence: whole.Sequence, Count: 4, Stripe: neon.MaxStripeSize + 1,
	}
	for _, c := range []struct{ ok, over Command }{
		{create(neon.MaxGeneration, 1), create(neon.MaxGeneration+1, 1)},
		{create(0, neon.MaxStripeSize), create(0, neon.MaxStripeSize+1)},
		{create(0, 1), create(0, 0)},
		{attach(neon.MaxGeneration), attach(neon.MaxGeneration + 1)},
		{unmanaged(neon.MaxGeneration), unmanaged(neon.MaxGeneration + 1)},
		{RegisterNode{ID: neon.MaxNodeID}, RegisterNode{ID: neon.MaxNodeID + 1}},
		{UpsertSafekeeper{ID: neon.MaxNodeID}, UpsertSafekeeper{ID: neon.MaxNodeID + 1}},
		{nil, split},
	} {
		if _, r := Apply(s, s.Index+1, RequestID{}, c.over); r.Err != nil && c.ok != nil {
			t.Errorf("%#v is refused below the level: %v", c.over, r.Err)
		}
		up, _ := must(t, s, SetLevel{Level: Level})
		if c.ok != nil {
			must(t, up, c.ok)
		}
		next, r := Apply(up, up.Index+1, RequestID{}, c.over)
		if neon.CodeOf(r.Err) != neon.BadRequest || !sameRecords(up, next) {
			t.Errorf("%#v: %v", c.over, r.Err)
		}
	}
}

// A tenant whose earlier life has used too many numbers is created under another id.
func TestATenantWhoseNumbersAreUsedUpIsNotCreatedAgain(t *testing.T) {
	s, id := usedUp(t)
	s, _ = must(t, s, SetLevel{Level: Level})
	s, _ = must(t, s, DropTenant{ID: id.Tenant})
	for _, c := range []Command{
		CreateTenant{
			ID: id.Tenant, Stripe: 1, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
			Shards: []NewShard{{Attached: 1}},
		},
		AttachUnmanaged{Shard: id, Node: 1},
	} {
		if next, r := Apply(s, s.Index+1, RequestID{}, c); r.Err == nil ||
			!strings.Contains(r.Err.Error(), "create it under another id") || !sameRecords(s, next) {
			t.Errorf("%#v: %v", c, r.Err)
		}
	}
}

// TestRecreatedTenantCountsOn: a tenant deleted and created again starts above
// every number its shards ever had, also after a restore.
func TestRecreatedTenantCountsOn(t *testing.T) {
	s := small(t)
	for range 3 {
		s, _ = must(t, s, ReAttach{Node: 1})
	}
	s, _ = must(t, s, BeginDeleteTenant{ID: modelTenant(1)})
	if sh, _ := s.Shard(shard0); sh.Attached != 0 || len(sh.Secondary) > 0 || sh.GenNode != 0 {
		t.Fatalf("a tenant that is being deleted still has %+v", sh)
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, SetIntents{
		Intents: []Intent{{Shard: shard0, Sequence: s.Index, Attached: 1}},
	}); len(r.Refused) != 1 {
		t.Fatal("a tenant that is being deleted was placed")
	}
	s, _ = must(t, s, FinishDeleteTenant{ID: modelTenant(1)})
	if s.ShardCount() != 0 || s.TenantCount() != 0 {
		t.Fatalf("left behind:\n%s", dump(s))
	}
	s = restored(t, s)
	s, _ = must(t, s, CreateTenant{
		ID: modelTenant(1), Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		NoGeneration: true, Shards: []NewShard{{Attached: 1}},
	})
	if sh := shardsOf(s, modelTenant(1))[0]; sh.Generation != 4 || !sh.HasGeneration {
		t.Fatalf("it had 4 and starts with %+v", sh)
	}
}

// TestRecoveryJumpsOverLostNumbers: what was issued after the snapshot, to tenants
// that live, that were deleted in it, and that it does not know, stays unique.
func TestRecoveryJumpsOverLostNumbers(t *testing.T) {
	s := small(t)
	create := CreateTenant{
		ID: modelTenant(2), Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []NewShard{{Attached: 1}},
	}
	first := create
	first.Generation = 3 * RecoveryGap // onboarded with a history
	s, _ = must(t, s, first)
	s, _ = must(t, s, ReAttach{Node: 1})
	s, _ = must(t, s, BeginDeleteTenant{ID: modelTenant(2)})
	s, _ = must(t, s, FinishDeleteTenant{ID: modelTenant(2)})
	backup := s

	lost := s
	unknown := create
	unknown.ID = modelTenant(3)
	for _, c := range []Command{create, unknown} {
		lost, _ = must(t, lost, c)
	}
	next, err := Recover(backup, "new")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Command{create, unknown} {
		next, _ = must(t, next, c)
	}
	for sh := range lost.ShardsFrom(neon.ShardID{}) {
		if now, _ := next.Shard(sh.ID); now.Generation < sh.Generation+RecoveryGap {
			t.Errorf("%s had %d and now counts from %d", sh.ID, sh.Generation, now.Generation)
		}
	}
}

// TestPolicyBringsShardsInLine: what UpdateTenant does to intents and owners.
func TestPolicyBringsShardsInLine(t *testing.T) {
	s := small(t)
	tenant, _ := s.Tenant(modelTenant(1))
	s, _ = must(t, s, UpdateTenant{
		ID: tenant.ID, Sequence: tenant.Sequence,
		Policy: &neon.Placement{Kind: neon.PlaceSecondary},
	})
	sh, _ := s.Shard(shard0)
	if sh.Attached != 0 || sh.GenNode != 0 || len(sh.Secondary) != 1 || sh.Generation != 1 ||
		sh.Sequence != s.Index {
		t.Fatalf("as Secondary: %+v", sh)
	}
	tenant, _ = s.Tenant(modelTenant(1))
	s, _ = must(t, s,
		UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Policy: &neon.Placement{}})
	if sh, _ := s.Shard(shard0); len(sh.Secondary) != 0 || sh.Generation != 1 {
		t.Fatalf("as Detached: %+v", sh)
	}
	if n := s.Counts(1); n != (NodeCounts{}) {
		t.Fatalf("node 1 still counts %+v", n)
	}
}

// TestNotificationIsOwedUntilTheNewNodeIsAcknowledged: an acknowledgement counts
// for the node that has the newest number, and moving on owes it again.
func TestNotificationIsOwedUntilTheNewNodeIsAcknowledged(t *testing.T) {
	s := small(t)
	owes := func(want bool, told neon.NodeID) {
		t.Helper()
		if sh, _ := s.Shard(shard0); sh.OwesNotification() != want || sh.AcknowledgedNode != told {
			t.Fatalf("owed: %v, want %v, of %+v", sh.OwesNotification(), want, sh)
		}
	}
	owes(true, 0)
	s, _ = must(t, s, AckNotifications{Acks: []Ack{{Shard: shard0, Node: 2}, {Shard: shard0}}})
	owes(true, 0)
	s, _ = must(t, s, AckNotifications{Acks: []Ack{{Shard: shard0, Node: 1}}})
	owes(false, 1)
	s, _ = must(t, s, ReAttach{Node: 1}) // the same node in a new generation
	owes(false, 1)
	sh, _ := s.Shard(shard0)
	s, _ = must(t, s, SetIntents{
		Intents: []Intent{{Shard: shard0, Sequence: sh.Sequence, Attached: 3, Issue: true}},
	})
	owes(true, 1)
	// late, for the old node
	s, _ = must(t, s, AckNotifications{Acks: []Ack{{Shard: shard0, Node: 1}}})
	owes(true, 1)
}

// TestVerdictsHoldOnlyForWhatWasJudged: a verdict on a process that restarted
// meanwhile is passed over.
func TestVerdictsHoldOnlyForWhatWasJudged(t *testing.T) {
	s := small(t)
	s, _ = must(t, s, ReAttach{Node: 1})
	for _, v := range []Verdict{
		{Node: 1, From: neon.NodeActive, To: neon.NodeOffline, Incarnation: 1},
		{Node: 1, From: neon.NodeWarmingUp, To: neon.NodeOffline, Incarnation: 0},
		{Node: 1, To: "Gone"},
		{Node: 9, To: neon.NodeOffline},
	} {
		if next, _ := must(t, s,
			SetNodeAvailability{Verdicts: []Verdict{v}}); !sameRecords(s, next) {
			t.Errorf("%+v was taken", v)
		}
	}
	s, _ = must(t, s, SetNodeAvailability{Verdicts: []Verdict{
		{Node: 1, From: neon.NodeWarmingUp, To: neon.NodeActive, Incarnation: 1},
	}})
	if n, _ := s.Node(1); !n.Schedulable() {
		t.Fatalf("%+v", n)
	}
}

func TestSilenceEndsWithAnAnswerAVerdictAndARestart(t *testing.T) {
	note := func(since int64, incarnation uint64) Command {
		return NoteSilence{Nodes: []Silence{{Node: 1, Incarnation: incarnation, Since: since}}}
	}
	offline := SetNodeAvailability{Verdicts: []Verdict{{Node: 1, To: neon.NodeOffline}}}
	for name, c := range map[string]struct {
		then []Command
		want int64
	}{
		"it lasts":            {[]Command{note(7, 0)}, 5},
		"it answers":          {[]Command{note(0, 0)}, 0},
		"a verdict":           {[]Command{offline}, 0},
		"after the verdict":   {[]Command{offline, note(7, 0)}, 0},
		"a restart":           {[]Command{ReAttach{Node: 1}}, 0},
		"the one before":      {[]Command{ReAttach{Node: 1}, note(7, 0)}, 0},
		"it was deleted":      {[]Command{DeleteNode{Node: 1}}, 0},
		"no time":             {[]Command{note(0, 0), note(-1, 0)}, 0},
		"it is another again": {[]Command{note(0, 0), note(9, 0)}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			s := small(t)
			for _, cmd := range append([]Command{SetLevel{Level: Level}, note(5, 0)}, c.then...) {
				s, _ = must(t, s, cmd)
			}
			if n, _ := s.Node(1); n.Silent != c.want {
				t.Errorf("silent since %d, want %d", n.Silent, c.want)
			}
			if err := Check(s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReAttachEndsOperationsOfTheNode: operations that a restart ends are ended.
func TestReAttachEndsOperationsOfTheNode(t *testing.T) {
	for was, want := range map[neon.NodeScheduling]neon.NodeScheduling{
		neon.SchedulingActive: neon.SchedulingActive, neon.SchedulingFilling: neon.SchedulingActive,
		neon.SchedulingDraining:        neon.SchedulingActive,
		neon.SchedulingPauseForRestart: neon.SchedulingActive,
		neon.SchedulingPause:           neon.SchedulingPause,
		neon.SchedulingDeleting:        neon.SchedulingPause,
	} {
		s, _ := must(t, small(t), SetNodeScheduling{Node: 1, Scheduling: was})
		s, _ = must(t, s, ReAttach{Node: 1})
		if n, _ := s.Node(1); n.Scheduling != want {
			t.Errorf("%s became %s, not %s", was, n.Scheduling, want)
		}
	}
}

// TestOldestRequestsAreForgotten: the memory of requests is bounded.
func TestOldestRequestsAreForgotten(t *testing.T) {
	w := begin(NewState())
	request := func(
		n int,
	) RequestID {
		return RequestID{0: byte(n >> 16), 1: byte(n >> 8), 2: byte(n), 15: 1}
	}
	for n := range keptRequests + 10 {
		w.run(uint64(n+1), request(n), SetCluster{ID: "c"})
	}
	s := restored(t, w.snapshot())
	if s.done.byAge.Len() != keptRequests || s.done.byKey.Len() != keptRequests {
		t.Fatalf("%d kept", s.done.byAge.Len())
	}
	for n, want := range map[int]bool{0: false, 9: false, 10: true, keptRequests + 9: true} {
		if _, r := Apply(s, 1<<20, request(n), SetCluster{ID: "c"}); r.Duplicate != want {
			t.Errorf("request %d recognised: %v", n, r.Duplicate)
		}
		// Another command of the same client request is another one.
		if _, r := Apply(s, 1<<20, request(n), SetLeader{}); r.Duplicate {
			t.Errorf("request %d: a different command is taken for done", n)
		}
	}
}
