package fsm

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// beginSplit draws a split that is mostly possible.
func (m *machine) beginSplit(t *rapid.T) Command {
	id := drawTenant.Draw(t, "tenant")
	tenant, _ := m.s.Tenant(id)
	c := BeginSplit{
		Tenant: id, Sequence: sequence(t, tenant.Sequence), Stripe: tenant.Stripe,
		Count: neon.ShardCount(
			tenant.Count.Shards() * rapid.SampledFrom([]int{2, 2, 4, 1, 3}).Draw(t, "times")),
	}
	for sh := range m.s.TenantShards(id) {
		p := SplitParent{Shard: sh.ID, Node: sh.GenNode, Generation: sh.Generation}
		if rapid.IntRange(0, 9).Draw(t, "stale parent") == 0 {
			p.Generation--
		}
		c.Parents = append(c.Parents, p)
	}
	return c
}

// moveSplit draws any command about a split that is under way.
func (m *machine) moveSplit(t *rapid.T) Command {
	id := drawTenant.Draw(t, "tenant")
	sp, _ := m.s.Split(id)
	began := sequence(t, sp.Began)
	switch rapid.IntRange(0, 4).Draw(t, "split command") {
	case 0:
		return AbortSplit{Tenant: id, Began: began, Code: neon.Conflict, Reason: "why not"}
	case 1, 2:
		return FinishAbortedSplit{Tenant: id, Began: began}
	case 3:
		return ForgetLeftovers{Tenant: id, Leftovers: sp.Leftovers[:len(sp.Leftovers)/2]}
	}
	c := CommitSplit{Tenant: id, Began: began}
	for range rapid.IntRange(0, 4).Draw(t, "secondaries") {
		c.Secondary = append(c.Secondary, drawNodes(t, 2))
	}
	return c
}

// splitOf begins the split of tenant 1 of small from 2 to 4 shards.
func splitOf(t testing.TB, s *State) (*State, Result) {
	t.Helper()
	tenant, _ := s.Tenant(modelTenant(1))
	c := BeginSplit{Tenant: tenant.ID, Sequence: tenant.Sequence, Count: 4, Stripe: tenant.Stripe}
	for sh := range s.TenantShards(tenant.ID) {
		c.Parents = append(c.Parents,
			SplitParent{Shard: sh.ID, Node: sh.GenNode, Generation: sh.Generation})
	}
	return must(t, s, c)
}

func TestCommittedSplitKeepsNodeAndGenerationOfTheParents(t *testing.T) {
	s := small(t)
	s, _ = must(t, s, ReAttach{Node: 1})
	s, _ = must(t, s,
		AckNotifications{Acks: []Ack{{Shard: shardsOf(s, modelTenant(1))[1].ID, Node: 1}}})
	s, r := splitOf(t, s)
	if len(r.Grants) != 4 || r.Grants[0] != (Grant{
		Shard: neon.ShardID{Tenant: modelTenant(1), Count: 4}, Generation: 2, Node: 1,
	}) {
		t.Errorf("granted %+v", r.Grants)
	}
	if !s.Splitting(modelTenant(1)) || s.ShardCount() != 2 {
		t.Errorf("before the commit there are %d shards", s.ShardCount())
	}
	sp, _ := s.Split(modelTenant(1))
	s, _ = must(t, s, CommitSplit{
		Tenant: modelTenant(1), Began: sp.Began,
		Secondary: [][]neon.NodeID{{2}, {3}, {2}, {1, 3, 3, 9}},
	})
	shards := shardsOf(s, modelTenant(1))
	if len(shards) != 4 {
		t.Fatalf("there are %d shards", len(shards))
	}
	for i, want := range [][]neon.NodeID{{2}, {3}, {2}, {3}} {
		sh := shards[i]
		if sh.Generation != 2 || sh.GenNode != 1 || sh.Attached != 1 || !sh.OwesNotification() ||
			sh.AcknowledgedNode != 1 ||
			sh.PreferredAZ != neon.MakeAZ("a") || !slices.Equal(sh.Secondary, want) {
			t.Errorf("child %d is %+v", i, sh)
		}
	}
	sp, _ = s.Split(modelTenant(1))
	if sp.Active() || len(sp.Leftovers) != 4 {
		t.Errorf("after the commit: %+v", sp)
	}
	s, _ = must(t, s, ForgetLeftovers{Tenant: modelTenant(1), Leftovers: sp.Leftovers})
	if _, ok := s.Split(modelTenant(1)); ok {
		t.Error("a split without leftovers is remembered")
	}
}

// What a pageserver says may be long, cut in the middle of a letter, or no text at all.
func TestAnyReasonOfASplitIsReadable(t *testing.T) {
	for _, reason := range []string{strings.Repeat("x", maxReason-1) + "ä", "\xff\x00"} {
		s, _ := must(t, small(t), ReAttach{Node: 1})
		s, _ = splitOf(t, s)
		sp, _ := s.Split(modelTenant(1))
		c := AbortSplit{Tenant: sp.Tenant, Began: sp.Began, Code: neon.Conflict, Reason: reason}
		entry, err := Encode(RequestID{}, c)
		if err != nil {
			t.Fatal(err)
		}
		_, read, err := Decode(entry)
		if err != nil || read != Command(c) {
			t.Errorf("written %q, read %v: %v", reason[len(reason)-2:], read, err)
		}
		s, _ = must(t, s, c)
		restored(t, s)
	}
}

func TestSplitFreezesItsTenantAndNoOther(t *testing.T) {
	s := small(t)
	s, _ = must(t, s, CreateTenant{
		ID: modelTenant(2), Stripe: 1, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []NewShard{{Attached: 1}},
	})
	s, _ = splitOf(t, s)
	tenant, _ := s.Tenant(modelTenant(1))
	sh := shardsOf(s, modelTenant(1))[0]
	for _, c := range []Command{
		UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Scheduling: new(neon.ShardPause)},
		BeginDeleteTenant{ID: tenant.ID},
		BeginSplit{Tenant: tenant.ID, Sequence: tenant.Sequence, Count: 8, Stripe: tenant.Stripe},
	} {
		if _, r := Apply(s, s.Index+1, RequestID{}, c); r.Err == nil ||
			r.Err.Code != neon.Conflict {
			t.Errorf("%#v: %v", c, r.Err)
		}
	}
	for _, c := range []Command{
		SetIntents{Intents: []Intent{{Shard: sh.ID, Sequence: sh.Sequence, Attached: 3}}},
		IssueGenerations{
			Items: []Issue{{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation}},
		},
	} {
		if _, r := Apply(s, s.Index+1, RequestID{}, c); len(r.Refused) != 1 {
			t.Errorf("%#v: %+v", c, r)
		}
	}
	must(t, s, IssueGenerations{Items: []Issue{{Shard: neon.Unsharded(modelTenant(2)), Node: 1}}})
	must(t, s, BeginDeleteTenant{ID: modelTenant(2)})
}

func TestRestartOfAPageserverAbortsTheSplitsOfItsShards(t *testing.T) {
	s, _ := splitOf(t, small(t))
	other, _ := must(t, s, ReAttach{Node: 3})
	if sp, _ := other.Split(modelTenant(1)); sp.Phase != SplitAsking {
		t.Errorf("the start of a node without its shards made the split %s", sp.Phase)
	}
	s, r := must(t, s, ReAttach{Node: 1})
	if len(r.ReAttached) != 2 {
		t.Errorf("children are re-attached before the commit: %+v", r.ReAttached)
	}
	sp, _ := s.Split(modelTenant(1))
	if sp.Phase != SplitAborting || sp.Reason == "" {
		t.Fatalf("the split is %+v", sp)
	}
	if _, r := Apply(s, s.Index+1, RequestID{},
		CommitSplit{Tenant: sp.Tenant, Began: sp.Began}); r.Err == nil {
		t.Error("a split that was aborted is committed")
	}
	s, r = must(t, s, FinishAbortedSplit{Tenant: sp.Tenant, Began: sp.Began})
	if len(r.Grants) != 0 || s.Splitting(sp.Tenant) {
		t.Errorf("parents that were re-attached got %+v", r.Grants)
	}
}

func TestAbortedSplitRenewsEveryParent(t *testing.T) {
	s, _ := splitOf(t, small(t))
	sp, _ := s.Split(modelTenant(1))
	if _, r := Apply(s, s.Index+1, RequestID{},
		FinishAbortedSplit{Tenant: sp.Tenant, Began: sp.Began}); r.Err == nil {
		t.Error("a split that is asking ends as aborted")
	}
	s, _ = must(t, s,
		AbortSplit{Tenant: sp.Tenant, Began: sp.Began, Code: neon.Conflict, Reason: "x"})
	if !s.Splitting(sp.Tenant) {
		t.Error("the tenant is unfrozen before the children are removed")
	}
	before := shardsOf(s, sp.Tenant)
	s, r := must(t, s, FinishAbortedSplit{Tenant: sp.Tenant, Began: sp.Began})
	if len(r.Grants) != 2 {
		t.Errorf("granted %+v", r.Grants)
	}
	for i, sh := range shardsOf(s, sp.Tenant) {
		if sh.Generation != before[i].Generation+1 || sh.GenNode != before[i].GenNode ||
			sh.ID != before[i].ID {
			t.Errorf("%+v became %+v", before[i], sh)
		}
	}
	if _, ok := s.Split(sp.Tenant); ok {
		t.Error("the split is remembered")
	}
	// The next try is another one: what was late for the first does not count.
	s, _ = splitOf(t, s)
	if _, r := Apply(s, s.Index+1, RequestID{},
		CommitSplit{Tenant: sp.Tenant, Began: sp.Began}); r.Err == nil {
		t.Error("a late commit of the first try is accepted for the second")
	}
}

func TestRecoveryAbortsSplits(t *testing.T) {
	s, _ := splitOf(t, small(t))
	s, err := Recover(restored(t, s), "again")
	if err != nil {
		t.Fatal(err)
	}
	if sp, _ := s.Split(modelTenant(1)); sp.Phase != SplitAborting {
		t.Errorf("the split is %s", sp.Phase)
	}
	if err := Check(s); err != nil {
		t.Error(err)
	}
}

func TestNewTermAbortsTheSplitsOfTheOldOne(t *testing.T) {
	leader := func(term uint64) SetLeader { return SetLeader{Leader{ServerID: "n", Term: term}} }
	s, _ := must(t, small(t), leader(3))
	s, _ = splitOf(t, s)
	s, _ = must(t, s, leader(3))
	sp, _ := s.Split(modelTenant(1))
	if sp.Phase != SplitAsking {
		t.Fatalf("the leader that said again that it leads made its split %s", sp.Phase)
	}
	s, _ = must(t, s, leader(4))
	if sp, _ = s.Split(modelTenant(1)); sp.Phase != SplitAborting || sp.Code != neon.Conflict {
		t.Fatalf("the split is %+v", sp)
	}
	if _, r := Apply(s, s.Index+1, RequestID{},
		CommitSplit{Tenant: sp.Tenant, Began: sp.Began}); r.Err == nil {
		t.Error("a deposed leader commits a split")
	}
}

func TestDeletedNodeAbortsTheSplitsOfItsShards(t *testing.T) {
	s, _ := splitOf(t, small(t))
	node := shardsOf(s, modelTenant(1))[0].Attached
	s, _ = must(t, s, DeleteNode{Node: node})
	sp, _ := s.Split(modelTenant(1))
	if sp.Phase != SplitAborting {
		t.Fatalf("the split is %s", sp.Phase)
	}
	s, _ = must(t, s, ForgetTombstone{Node: node})
	if err := Check(s); err != nil {
		t.Error(err)
	}
	s, r := must(t, s, FinishAbortedSplit{Tenant: sp.Tenant, Began: sp.Began})
	for _, g := range r.Grants {
		if g.Node == node {
			t.Errorf("a deleted node was granted %+v", g)
		}
	}
	if s.Splitting(sp.Tenant) {
		t.Error("the tenant stays frozen")
	}
	if err := Check(s); err != nil {
		t.Error(err)
	}
}
