package fsm

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

var drawImport = rapid.SampledFrom([]neon.ShardImport{
	{}, {Progress: neon.ImportProgress{
		Jobs: 9, Completed: 4, PlanHash: math.MaxUint64, JobSize: 1 << 20,
	}}, {State: neon.ShardImportDone},
	{State: neon.ShardImportDone}, {State: neon.ShardImportFailed, Error: "broken"}, {State: 7},
	{State: neon.ShardImportDone, Error: "what?"},
})

// timelineWork draws a command about imports and deletions.
func (m *machine) timelineWork(t *rapid.T) Command {
	tenant, id := drawTenant.Draw(t,
		"tenant"), modelTimeline(rapid.IntRange(1, 2).Draw(t, "timeline"))
	switch rapid.IntRange(0, 11).Draw(t, "work") {
	case 9, 10, 11:
		return m.remoteWork(t, tenant)
	case 0, 1:
		return BeginImport{Tenant: tenant, Timeline: id}
	case 2:
		return FinishImport{Tenant: tenant, Timeline: id}
	case 3:
		return BeginDeleteTimeline{Tenant: tenant, Timeline: id}
	case 4:
		d, _ := m.s.TimelineDelete(neon.TimelineRef{Tenant: tenant, Timeline: id})
		return CancelDeleteTimeline{Tenant: tenant, Timeline: id, Sequence: sequence(t, d.Sequence)}
	case 5:
		return CreateTimeline{
			Tenant: tenant, Timeline: id, Set: drawKeepers.Draw(t, "set"), Imported: true,
		}
	}
	sh, _ := m.s.Shard(m.anyShard(t))
	return UpdateImport{
		Shard: sh.ID, Timeline: id, Generation: neon.Generation(sequence(t, uint64(sh.Generation))),
		Status: drawImport.Draw(t, "status"),
	}
}

// imports demands that a terminal report never changes, and that a finished import
// stays finished, for as long as there is a record.
func (m *machine) imports(t *rapid.T, before, after *State) {
	for is := range after.Imports() {
		was, ok := before.Import(is.Ref())
		if !ok {
			continue
		}
		if was.Finished && !is.Finished {
			t.Fatalf("the import of %s was finished and is %+v", is.Ref(), is)
		}
		for n, s := range was.Shards {
			if s.Terminal() && is.Shards[n] != s {
				t.Fatalf("the import of %s had ended on shard %d as %+v and says %+v", is.Ref(), n,
					s, is.Shards[n])
			}
		}
	}
}

func code(r Result) neon.Code {
	if r.Err == nil {
		return ""
	}
	return r.Err.Code
}

// TestImportIsReportedOnlyByTheNewestOwner: and a terminal report is final.
func TestImportIsReportedOnlyByTheNewestOwner(t *testing.T) {
	tenant, id := modelTenant(1), modelTimeline(1)
	ref := neon.TimelineRef{Tenant: tenant, Timeline: id}
	done, failed := neon.ShardImport{
		State: neon.ShardImportDone,
	}, neon.ShardImport{State: neon.ShardImportFailed, Error: "no"}
	report := func(shard neon.ShardID, g neon.Generation, s neon.ShardImport) UpdateImport {
		return UpdateImport{Shard: shard, Timeline: id, Generation: g, Status: s}
	}
	s := small(t)
	if _, r := Apply(s, s.Index+1, RequestID{}, report(shard0, 1, done)); code(r) != neon.NotFound {
		t.Fatalf("without an import: %+v", r)
	}
	s, _ = must(t, s, BeginImport{Tenant: tenant, Timeline: id})
	if !s.Importing(tenant) || s.Importing(modelTenant(2)) {
		t.Fatal("the wrong tenant imports")
	}
	s, _ = must(t, s, ReAttach{Node: 1})
	other := shard0
	other.Count = 4
	for name, c := range map[string]struct {
		c    Command
		want neon.Code
	}{
		"stale":         {report(shard0, 1, done), neon.PreconditionFailed},
		"too new":       {report(shard0, 3, done), neon.PreconditionFailed},
		"unknown shard": {report(other, 2, done), neon.Internal},
		"unfinished":    {FinishImport{Tenant: tenant, Timeline: id}, neon.PreconditionFailed},
	} {
		if next, r := Apply(s, s.Index+1, RequestID{}, c.c); code(r) != c.want ||
			!sameRecords(s, next) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s, _ = must(t, s, report(shard0, 2, neon.ShardImport{Progress: neon.ImportProgress{Jobs: 2}}))
	s, _ = must(t, s, report(shard0, 2, done))
	s, _ = must(t, s, report(shard0, 2, done))
	for _, status := range []neon.ShardImport{{}, failed} {
		if _, r := Apply(s, s.Index+1, RequestID{},
			report(shard0, 2, status)); code(r) != neon.Internal {
			t.Errorf("%+v after the end: %+v", status, r)
		}
	}
	shard1 := shard0
	shard1.Number = 1
	s, _ = must(t, s, report(shard1, 2, failed))
	s, _ = must(t, s, FinishImport{Tenant: tenant, Timeline: id})
	if i, ok := s.Import(ref); !ok || !i.Finished || s.Importing(tenant) {
		t.Fatalf("%+v", i)
	}
	// A repeated creation does not begin it again, and a repeated report is heard.
	s, _ = must(t, s, BeginImport{Tenant: tenant, Timeline: id})
	s, _ = must(t, s, report(shard1, 2, failed))
	if s.Importing(tenant) {
		t.Fatal("a finished import has begun again")
	}
	s = restored(t, s)
	s, _ = must(t, s, DeleteTimeline{Tenant: tenant, Timeline: id})
	if _, ok := s.Import(ref); ok {
		t.Fatal("the import has outlived its timeline")
	}
}

// TestDeletionEndsAnImport: in the same entry, and nothing of the timeline is
// created while its deletion is recorded.
func TestDeletionEndsAnImport(t *testing.T) {
	tenant, id := modelTenant(1), modelTimeline(2)
	ref := neon.TimelineRef{Tenant: tenant, Timeline: id}
	s, _ := must(t, withSafekeepers(t), BeginImport{Tenant: tenant, Timeline: id})
	s, _ = must(t, s, BeginDeleteTimeline{Tenant: tenant, Timeline: id})
	begun := s.Index
	if _, ok := s.Import(ref); ok || s.Importing(tenant) {
		t.Fatal("the import goes on")
	}
	for _, c := range []Command{
		BeginImport{Tenant: tenant, Timeline: id},
		CreateTimeline{Tenant: tenant, Timeline: id, Set: []neon.NodeID{1}},
	} {
		if _, r := Apply(s, s.Index+1, RequestID{}, c); code(r) != neon.Conflict {
			t.Errorf("%#v: %+v", c, r)
		}
	}
	if _, r := Apply(s, s.Index+1, RequestID{},
		CreateTimeline{Tenant: tenant, Timeline: id, Imported: true}); code(r) != neon.NotFound {
		t.Errorf("put on safekeepers after the import was ended: %+v", r)
	}
	again, _ := must(t, s, BeginDeleteTimeline{Tenant: tenant, Timeline: id})
	if d, _ := again.TimelineDelete(ref); d.Sequence != begun {
		t.Errorf("recorded at %d and again at %d", begun, d.Sequence)
	}
	kept, _ := must(t, s, CancelDeleteTimeline{Tenant: tenant, Timeline: id, Sequence: begun - 1})
	if _, ok := kept.TimelineDelete(ref); !ok {
		t.Error("cancelled by somebody who meant another one")
	}
	s, _ = must(t, restored(t, s),
		CancelDeleteTimeline{Tenant: tenant, Timeline: id, Sequence: begun})
	if _, ok := s.TimelineDelete(ref); ok {
		t.Error("it was cancelled and is recorded")
	}
	s, _ = must(t, s, BeginDeleteTimeline{Tenant: tenant, Timeline: id})
	s, _ = must(t, s, BeginDeleteTenant{ID: tenant})
	if s.deletes.Len()+s.imports.Len() != 0 {
		t.Error("work on timelines has outlived the tenant")
	}
}

// workHistory is the part of the golden history about imports and deletions.
func workHistory(tenant neon.TenantID) []Command {
	id := func(n byte) neon.TimelineID { return neon.TimelineID{0: 0xbb, 15: n} }
	ids := neon.ShardIDs(tenant, 2)
	progress := neon.ShardImport{
		Progress: neon.ImportProgress{Jobs: 300, Completed: 7, PlanHash: 1 << 63, JobSize: 1 << 26},
	}
	done := neon.ShardImport{State: neon.ShardImportDone}
	var commands []Command
	for n := byte(1); n <= 3; n++ {
		commands = append(commands, BeginImport{Tenant: tenant, Timeline: id(n)})
	}
	return append(commands,
		// refused: not its generation
		UpdateImport{Shard: ids[0], Timeline: id(1), Generation: 3, Status: progress},
		UpdateImport{Shard: ids[0], Timeline: id(1), Generation: 4, Status: progress},
		UpdateImport{Shard: ids[0], Timeline: id(2), Generation: 4, Status: done},
		UpdateImport{
			Shard: ids[1], Timeline: id(2), Generation: 2,
			Status: neon.ShardImport{State: neon.ShardImportFailed, Error: "no such bucket"},
		},
		CreateTimeline{
			Tenant: tenant, Timeline: id(1), StartLsn: 0x169AD58, Set: []neon.NodeID{1},
			Imported: true,
		},
		// refused
		CreateTimeline{
			Tenant: tenant, Timeline: id(4), StartLsn: 0x169AD58, Set: []neon.NodeID{1},
			Imported: true,
		},
		// refused: still running
		FinishImport{Tenant: tenant, Timeline: id(1)},
		FinishImport{Tenant: tenant, Timeline: id(2)},
		BeginDeleteTimeline{Tenant: tenant, Timeline: id(3)},
		BeginDeleteTimeline{Tenant: tenant, Timeline: id(5)},
		CancelDeleteTimeline{Tenant: tenant, Timeline: id(5), Sequence: 1},
	)
}

func dumpWork(b []byte, s *State) []byte {
	for i := range s.Imports() {
		b = fmt.Appendf(b, "import %s count=%d finished=%v sequence=%d %+v\n", i.Ref(), i.Count,
			i.Finished, i.Sequence, i.Shards)
	}
	for d := range s.TimelineDeletes() {
		b = fmt.Appendf(b, "deletion of timeline %s sequence=%d\n", d.Ref(), d.Sequence)
	}
	return b
}
