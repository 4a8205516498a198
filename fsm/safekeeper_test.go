package fsm

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

type timelineKey struct {
	tenant   neon.TenantID
	timeline neon.TimelineID
}

// configurations demands of every timeline that one generation never stands for
// two configurations and that generations do not fall (I27, I28).
func (m *machine) configurations(t *rapid.T, s *State) {
	here := map[timelineKey]bool{}
	for tl := range s.Timelines() {
		key := timelineKey{tl.Tenant, tl.ID}
		here[key] = true
		known := m.configured[key]
		if known == nil {
			known = map[neon.SafekeeperGeneration]string{}
			m.configured[key] = known
		}
		conf := fmt.Sprint(tl.Set, tl.NewSet)
		if was, ok := known[tl.Generation]; ok && was != conf {
			t.Fatalf("generation %d of timeline %s was %s and is %s", tl.Generation, tl.ID, was,
				conf)
		}
		for g := range known {
			if g > tl.Generation {
				t.Fatalf("timeline %s fell from generation %d to %d", tl.ID, g, tl.Generation)
			}
		}
		known[tl.Generation] = conf
	}
	for key := range m.configured {
		if !here[key] {
			delete(m.configured, key) // gone; it may come back and begin anew
		}
	}
}

var (
	drawKeeper = rapid.Map(rapid.SampledFrom([]int{1, 1, 2, 2, 3, 3, 4, 0, 9}),
		func(n int) neon.NodeID { return neon.NodeID(n) })
	drawKeepers = rapid.SliceOfN(drawKeeper, 0, 3)
	drawUse     = rapid.SampledFrom([]neon.SafekeeperScheduling{
		neon.SafekeeperActive, neon.SafekeeperActivating, neon.SafekeeperPause,
		neon.SafekeeperDecomissioned, "nonsense",
	})
)

func modelTimeline(n int) neon.TimelineID { return neon.TimelineID{0: 7, 15: byte(n)} }

// safekeeping draws a command about safekeepers and their timelines.
func (m *machine) safekeeping(t *rapid.T) Command {
	if len(m.s.safekeepers) < 3 || rapid.IntRange(0, 15).Draw(t, "register") == 0 {
		return UpsertSafekeeper{
			ID: drawKeeper.Draw(t, "safekeeper"), Host: "sk", AZ: drawZone.Draw(t, "zone"),
			Port: 5454, HTTPPort: 7676, HTTPSPort: uint16(rapid.IntRange(0, 1).Draw(t, "port")),
			Version: 1,
		}
	}
	tenant, id := drawTenant.Draw(t,
		"tenant"), modelTimeline(rapid.IntRange(1, 2).Draw(t, "timeline"))
	tl, _ := m.s.Timeline(tenant, id)
	generation := neon.SafekeeperGeneration(sequence(t, uint64(tl.Generation)))
	switch rapid.IntRange(0, 12).Draw(t, "safekeeping") {
	case 12:
		return SettleSafekeeper{Safekeeper: drawKeeper.Draw(t, "safekeeper")}
	case 0:
		return SetSafekeeperScheduling{
			Safekeeper: drawKeeper.Draw(t, "safekeeper"), To: drawUse.Draw(t, "to"),
			From: rapid.SampledFrom([]neon.SafekeeperScheduling{"", neon.SafekeeperActivating}).
				Draw(t, "from"),
		}
	case 1, 2, 3:
		return CreateTimeline{
			Tenant: tenant, Timeline: id, StartLsn: 8, Set: drawKeepers.Draw(t, "set"),
		}
	case 4:
		return PullTimeline{
			Tenant: tenant, Timeline: id, Generation: generation,
			Safekeepers: drawKeepers.Draw(t, "set"),
		}
	case 5:
		return DeleteTimeline{Tenant: tenant, Timeline: id}
	case 6:
		return ImportTimeline{
			Tenant: tenant, Timeline: id, StartLsn: 16, Set: drawKeepers.Draw(t, "set"),
		}
	case 7, 8:
		return BeginMembership{
			Tenant: tenant, Timeline: id, Generation: generation,
			NewSet: drawKeepers.Draw(t, "set"),
		}
	case 9:
		return EndMembership{
			Tenant: tenant, Timeline: id, Generation: generation,
			Verdict: MembershipVerdict(rapid.IntRange(0, 2).Draw(t, "verdict")),
		}
	case 10:
		return AckMembership{
			Tenant: tenant, Timeline: id, Compute: generation,
			Set: neon.SafekeeperGeneration(rapid.IntRange(0, 9).Draw(t, "told")),
		}
	}
	if m.s.ops.Len() == 0 {
		return FinishSafekeeperOps{
			Ops: []SafekeeperOp{{Safekeeper: 1, Tenant: tenant, Timeline: id, Kind: OpDelete}},
		}
	}
	at, _ := m.s.ops.tree.GetAt(rapid.IntRange(0, m.s.ops.Len()-1).Draw(t, "op"))
	op := *at.record
	if rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
		op.Generation++
	}
	return FinishSafekeeperOps{Ops: []SafekeeperOp{op}}
}

// withSafekeepers is small with four safekeepers and a timeline on the first three.
func withSafekeepers(t testing.TB) *State {
	t.Helper()
	s := small(t)
	for id := neon.NodeID(1); id <= 4; id++ {
		s, _ = must(t, s,
			UpsertSafekeeper{ID: id, Host: "sk", Port: 5454, HTTPPort: 7676, AZ: neon.MakeAZ("a")})
	}
	s, _ = must(t, s, CreateTimeline{
		Tenant: modelTenant(1), Timeline: modelTimeline(1), StartLsn: 8,
		Set: []neon.NodeID{1, 2, 3},
	})
	return s
}

func opsOf(s *State) (all []SafekeeperOp) {
	for k := range s.Safekeepers() {
		all = slices.AppendSeq(all, s.SafekeeperOps(k.ID, SafekeeperOp{}))
	}
	return all
}

// TestRepeatedCreateKeepsTheFirstSet: the set that was committed first is the one
// that all clients find (I30).
func TestRepeatedCreateKeepsTheFirstSet(t *testing.T) {
	s := withSafekeepers(t)
	s, _ = must(t, s, CreateTimeline{
		Tenant: modelTenant(1), Timeline: modelTimeline(1), StartLsn: 99,
		Set: []neon.NodeID{2, 3, 4},
	})
	if tl, _ := s.Timeline(modelTenant(1),
		modelTimeline(1)); !slices.Equal(tl.Set, []neon.NodeID{1, 2, 3}) || tl.StartLsn != 8 {
		t.Fatalf("%+v", tl)
	}
}

// TestMigrationEndsOnce: of a commit and an abort one comes true, it owes exactly
// the exclusion of those that leave, and one that returns is not excluded.
func TestMigrationEndsOnce(t *testing.T) {
	tenant, id := modelTenant(1), modelTimeline(1)
	joint, _ := must(t, withSafekeepers(t), BeginMembership{
		Tenant: tenant, Timeline: id, Generation: 1, NewSet: []neon.NodeID{1, 2, 4},
	})
	for verdict, leaves := range map[MembershipVerdict]neon.NodeID{
		MembershipCommit: 3, MembershipAbort: 4,
	} {
		s, _ := must(t, joint,
			EndMembership{Tenant: tenant, Timeline: id, Generation: 2, Verdict: verdict})
		want := []SafekeeperOp{
			{Safekeeper: leaves, Tenant: tenant, Timeline: id, Kind: OpExclude, Generation: 3},
		}
		if got := opsOf(s); !slices.Equal(got, want) {
			t.Fatalf("verdict %d: owed %+v", verdict, got)
		}
		if _, r := Apply(s, s.Index+1, RequestID{}, EndMembership{
			Tenant: tenant, Timeline: id, Generation: 2, Verdict: 1 - verdict,
		}); r.Err == nil || r.Err.Code != neon.Conflict {
			t.Fatalf("verdict %d: the other one was accepted: %v", verdict, r.Err)
		}
		s, _ = must(t, s, BeginMembership{
			Tenant: tenant, Timeline: id, Generation: 3, NewSet: []neon.NodeID{1, leaves},
		})
		if got := opsOf(s); len(got) > 0 {
			t.Fatalf("verdict %d: one that returns owes %+v", verdict, got)
		}
	}
}

// TestDeletedTimelineIsForgottenWithItsLastOp: and not before, and its id is not
// given again until then.
func TestDeletedTimelineIsForgottenWithItsLastOp(t *testing.T) {
	tenant, id := modelTenant(1), modelTimeline(1)
	s, _ := must(t, withSafekeepers(t),
		PullTimeline{Tenant: tenant, Timeline: id, Generation: 1, Safekeepers: []neon.NodeID{2, 4}})
	s, _ = must(t, s, DeleteTimeline{Tenant: tenant, Timeline: id})
	owed := opsOf(s)
	if len(owed) != 3 || owed[1].Kind != OpDelete {
		t.Fatalf("owed %+v", owed)
	}
	for i, op := range owed {
		if _, r := Apply(s, s.Index+1, RequestID{},
			CreateTimeline{Tenant: tenant, Timeline: id, Set: []neon.NodeID{4}}); r.Err == nil {
			t.Fatal("created again with operations left")
		}
		stale := op
		stale.Kind = OpPull
		s, _ = must(t, s, FinishSafekeeperOps{Ops: []SafekeeperOp{stale, op}})
		if _, there := s.Timeline(tenant, id); there == (i == len(owed)-1) {
			t.Fatalf("after %d of %d operations: there %v", i+1, len(owed), there)
		}
	}
}

// TestForgottenTenantIsDroppedBySafekeepers: in the same entry that forgets it, and
// a tenant of the same id is not put where that is still to be done.
func TestForgottenTenantIsDroppedBySafekeepers(t *testing.T) {
	tenant := modelTenant(1)
	s, _ := must(t, withSafekeepers(t), DeleteTimeline{Tenant: tenant, Timeline: modelTimeline(1)})
	s, _ = must(t, s,
		CreateTimeline{Tenant: tenant, Timeline: modelTimeline(2), Set: []neon.NodeID{3, 4}})
	s, _ = must(t, s, BeginDeleteTenant{ID: tenant})
	s, _ = must(t, s, FinishDeleteTenant{ID: tenant})
	var want []SafekeeperOp
	for id := neon.NodeID(1); id <= 4; id++ {
		want = append(want, SafekeeperOp{
			Safekeeper: id, Tenant: tenant, Kind: OpDelete, Generation: lastGeneration,
		})
	}
	if got := opsOf(s); !slices.Equal(got, want) {
		t.Fatalf("owed %+v", got)
	}
	if n := s.timelines.Len(); n != 0 {
		t.Fatalf("%d timelines are left", n)
	}
	s, _ = must(t, s, CreateTenant{
		ID: tenant, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []NewShard{{Attached: 1}},
	})
	s, _ = must(t, s, FinishSafekeeperOps{Ops: want[:1]})
	if _, r := Apply(s, s.Index+1, RequestID{}, CreateTimeline{
		Tenant: tenant, Timeline: modelTimeline(1), Set: []neon.NodeID{2},
	}); r.Err == nil {
		t.Fatal("placed where the old tenant is still to be deleted")
	}
	must(t, s, CreateTimeline{Tenant: tenant, Timeline: modelTimeline(1), Set: []neon.NodeID{1}})
}

// safekeeperHistory is the part of the golden history about safekeepers.
func safekeeperHistory(tenant neon.TenantID) []Command {
	id := func(n byte) neon.TimelineID { return neon.TimelineID{0: 0xaa, 15: n} }
	all := []neon.NodeID{1, 2, 3}
	var commands []Command
	for n, zone := range []string{"zone-a", "zone-b", "zone-c", "zone-c"} {
		commands = append(commands, UpsertSafekeeper{
			ID: neon.NodeID(n + 1), Region: "region", Version: 5957, Host: "sk.example", Port: 5454,
			HTTPPort:  7676,
			HTTPSPort: uint16(n), AZ: neon.MakeAZ(zone),
		})
	}
	return append(commands,
		SetSafekeeperScheduling{
			Safekeeper: 1, From: neon.SafekeeperActivating, To: neon.SafekeeperActive,
		},
		SetSafekeeperScheduling{Safekeeper: 9, To: neon.SafekeeperPause}, // refused
		CreateTimeline{Tenant: tenant, Timeline: id(1), StartLsn: 0x169AD58, Set: all},
		CreateTimeline{Tenant: tenant, Timeline: id(2), StartLsn: 1, Set: all},
		CreateTimeline{Tenant: tenant, Timeline: id(3), StartLsn: 2},
		PullTimeline{Tenant: tenant, Timeline: id(1), Generation: 1, Safekeepers: []neon.NodeID{2}},
		ImportTimeline{Tenant: tenant, Timeline: id(4), StartLsn: 3, Set: []neon.NodeID{4}},
		BeginMembership{
			Tenant: tenant, Timeline: id(2), Generation: 1, NewSet: []neon.NodeID{1, 2, 4},
		},
		EndMembership{Tenant: tenant, Timeline: id(2), Generation: 2, Verdict: MembershipCommit},
		AckMembership{Tenant: tenant, Timeline: id(2), Compute: 3, Set: 2},
		BeginMembership{Tenant: tenant, Timeline: id(4), Generation: 1, NewSet: []neon.NodeID{1}},
		EndMembership{Tenant: tenant, Timeline: id(4), Generation: 2},
		FinishSafekeeperOps{Ops: []SafekeeperOp{
			{Safekeeper: 1, Tenant: tenant, Timeline: id(4), Kind: OpExclude, Generation: 3},
		}},
		DeleteTimeline{Tenant: tenant, Timeline: id(1)},
		SetSafekeeperScheduling{Safekeeper: 2, To: neon.SafekeeperDecomissioned},
	)
}

func dumpSafekeeping(b []byte, s *State) []byte {
	for k := range s.Safekeepers() {
		b = fmt.Appendf(b, "safekeeper {ID:%d Region:%s Version:%d Host:%s Port:%d HTTPPort:%d "+
			"HTTPSPort:%d AZ:%s Scheduling:%s Sequence:%d}\n", k.ID, k.Region, k.Version, k.Host,
			k.Port, k.HTTPPort, k.HTTPSPort, k.AZ, k.Scheduling, k.Sequence)
		if k.Gone {
			b = fmt.Appendf(b, "safekeeper %d is gone\n", k.ID)
		}
	}
	for t := range s.Timelines() {
		b = fmt.Appendf(b,
			"timeline %s/%s start=%s generation=%d set=%v new=%v told=%d,%d deleted=%v sequence=%d\n",
			t.Tenant, t.ID, t.StartLsn, t.Generation, t.Set, t.NewSet, t.ComputeAcknowledged,
			t.QuorumAcknowledged,
			t.Deleted, t.Sequence)
	}
	for _, o := range opsOf(s) {
		b = fmt.Appendf(b, "safekeeper %d owes %s of %s/%s generation=%d\n", o.Safekeeper, o.Kind,
			o.Tenant, o.Timeline, o.Generation)
	}
	return b
}
