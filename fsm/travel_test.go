package fsm

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// remoteModel knows who works on remote data, by what was accepted alone.
type remoteModel struct {
	removing map[neon.TenantID]Remover // who was asked, and has not ended for all that is known
}

// check demands that a tenant has one remover at a time, and that none is created before
// it has ended; and that nothing changes, or is created, while it travels in time.
func (m *remoteModel) check(t *rapid.T, before, after *State, c Command, r Result) {
	if m.removing == nil {
		m.removing = map[neon.TenantID]Remover{}
	}
	if r.Err == nil && !r.Duplicate {
		m.follow(t, before, c)
	}
	for tenant := range after.TenantsFrom(neon.TenantID{}) {
		was, had := before.Tenant(tenant.ID)
		if by, ok := m.removing[tenant.ID]; ok && (!had || !tenant.Deleting) {
			t.Fatalf("%#v makes tenant %s while %+v removes its data", c, tenant.ID, by)
		}
		if _, ok := before.Travel(tenant.ID); !ok {
			continue
		}
		if !had || was.Sequence != tenant.Sequence || was.Policy != tenant.Policy ||
			was.Config != tenant.Config || was.Deleting != tenant.Deleting {
			t.Fatalf("%#v changes tenant %s, which travels in time", c, tenant.ID)
		}
		for sh := range after.TenantShards(tenant.ID) {
			if sh.Attached != 0 || len(sh.Secondary) > 0 || sh.GenNode != 0 {
				t.Fatalf("%#v places %+v, which travels in time", c, sh)
			}
		}
	}
}

func (m *remoteModel) follow(t *rapid.T, before *State, c Command) {
	end := func(node neon.NodeID) {
		for id, by := range m.removing {
			if by.Node == node {
				delete(m.removing, id)
			}
		}
	}
	switch c := c.(type) {
	case NoteRemover:
		if by, ok := m.removing[c.ID]; ok && by.Node != c.Ended {
			t.Fatalf("%#v beside %+v", c, by)
		}
		n, _ := before.Node(c.Node)
		m.removing[c.ID] = Remover{Node: n.ID, Incarnation: n.Incarnation}
	case FinishDeleteTenant:
		delete(m.removing, c.ID) // the proposer has seen the end
	case ReAttach:
		end(c.Node)
	case DeleteNode:
		end(c.Node)
	}
}

// remoteWork draws a command about remote data.
func (m *machine) remoteWork(t *rapid.T, id neon.TenantID) Command {
	switch rapid.IntRange(0, 5).Draw(t, "remote") {
	case 0, 1:
		return BeginTravel{
			Tenant: id, To: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "to"),
			Counts: []neon.ShardCount{drawCount.Draw(t, "count")},
		}
	case 2:
		r, _ := m.s.Travel(id)
		return EndTravel{Tenant: id, Began: sequence(t, r.Began)}
	}
	tenant, _ := m.s.Tenant(id)
	return NoteRemover{
		ID: id, Sequence: sequence(t, tenant.Sequence), Node: drawNode.Draw(t, "node"),
		Ended: rapid.SampledFrom([]neon.NodeID{0, 0, tenant.Remover.Node}).Draw(t, "ended"),
		Term:  sequence(t, m.s.Leader.Term),
	}
}

// travelHistory is the part of the golden history about remote data.
func travelHistory(id neon.TenantID, last uint64) []Command {
	travel := BeginTravel{
		Tenant: id, To: "2026-01-01T00:00:00Z", DoneIfAfter: "2026-01-02T00:00:00Z",
		Counts: []neon.ShardCount{0, 2},
	}
	other := travel
	other.Tenant = neon.TenantID{4, 15: 4}
	again := travel
	again.To = "2025-01-01T00:00:00Z"
	begun := last + 1
	create := CreateTenant{
		ID: id, Stripe: 2048, Scheduling: neon.ShardActive, Shards: []NewShard{{}},
	}
	return []Command{
		travel, travel,
		again, create, // refused
		EndTravel{Tenant: id, Began: begun},
		create,
		BeginDeleteTenant{ID: id},
		travel, // refused
		NoteRemover{ID: id, Sequence: begun + 6, Node: 1},
		NoteRemover{ID: id, Sequence: begun + 6, Node: 2}, // refused
		NoteRemover{ID: id, Sequence: begun + 6, Node: 2, Ended: 1},
		DropTenant{ID: id}, // refused
		other,
	}
}

// travelling has a tenant whose data is being removed, one that travels in time, and one
// that has lost a timeline.
func travelling(t testing.TB) *State {
	s, _ := must(t, withSafekeepers(t), SetLevel{Level: Level})
	s, _ = must(t, s, BeginDeleteTimeline{Tenant: modelTenant(1), Timeline: modelTimeline(1)})
	for _, c := range travelHistory(neon.TenantID{9, 15: 9}, s.Index) {
		s, _ = Apply(s, s.Index+1, RequestID{}, c)
	}
	if err := Check(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func dumpRemote(b []byte, t Tenant) []byte {
	if t.Remover != (Remover{}) {
		b = fmt.Appendf(b, "its data is removed by %+v\n", t.Remover)
	}
	if t.TimelineDeleted != 0 {
		b = fmt.Appendf(b, "it lost a timeline at %d\n", t.TimelineDeleted)
	}
	return b
}

func dumpTravels(b []byte, s *State) []byte {
	for r := range s.Travels() {
		b = fmt.Appendf(b, "travel %+v\n", r)
	}
	return b
}

func TestRemoteWorkSurvivesASnapshot(t *testing.T) {
	s := travelling(t)
	if got := dump(restored(t, s)); got != dump(s) || !strings.Contains(got, "travel {") ||
		!strings.Contains(got, "its data is removed by {Node:2") ||
		!strings.Contains(got, "it lost a timeline") {
		t.Errorf("got %s", got)
	}
}

// deleting is small, with its tenant being deleted and its data removed by node 1.
func deleting(t testing.TB) (s *State, note NoteRemover) {
	s, _ = must(t, small(t), SetLevel{Level: Level})
	s, _ = must(t, s, BeginDeleteTenant{ID: modelTenant(1)})
	note = NoteRemover{ID: modelTenant(1), Sequence: s.Index, Node: 1}
	s, _ = must(t, s, note)
	return s, note
}

// The slower of two would remove the data of the next tenant of that id.
func TestATenantHasOneRemover(t *testing.T) {
	s, note := deleting(t)
	if tenant, _ := s.Tenant(note.ID); tenant.Remover != (Remover{Node: 1}) ||
		tenant.Sequence != note.Sequence {
		t.Fatalf("%+v", tenant)
	}
	other := note
	other.Node = 2
	ended, ofBefore, unknown := other, other, other
	ended.Ended, ofBefore.Ended, unknown.Ended, unknown.Node = 1, 1, 1, 9
	ofBefore.Sequence--
	deposed := ended
	deposed.Term++
	for name, c := range map[string]struct {
		c    Command
		code neon.Code
	}{
		"another one":         {other, neon.Conflict},
		"the same once more":  {note, neon.Conflict},
		"an earlier deletion": {ofBefore, neon.Conflict},
		"another term":        {deposed, neon.Conflict},
		"no node":             {unknown, neon.NotFound},
		"no deletion": {
			NoteRemover{ID: modelTenant(2), Node: 1}, neon.Conflict,
		},
		"a drop": {DropTenant{ID: note.ID}, neon.Conflict},
		"a creation": {CreateTenant{
			ID: note.ID, Scheduling: neon.ShardActive, Shards: []NewShard{{}},
		}, neon.Conflict},
		"an attachment": {AttachUnmanaged{Shard: shard0, Node: 2}, neon.Conflict},
	} {
		if next, r := Apply(s, s.Index+1, RequestID{}, c.c); code(r) != c.code ||
			!sameRecords(s, next) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	must(t, s, ended)
	must(t, s, FinishDeleteTenant{ID: note.ID, Sequence: note.Sequence})
	begin := BeginNodeOperation{Node: 1, Kind: OperationDelete, Prior: neon.SchedulingActive}
	graceful, _ := must(t, s, begin)
	for _, s := range []*State{s, graceful} {
		if _, r := Apply(s, s.Index+1, RequestID{}, DeleteNode{Node: 1}); code(r) != neon.Conflict {
			t.Errorf("deleted while it may go on: %+v", r)
		}
	}
	begin.Force = true
	forced, _ := must(t, s, begin)
	for _, c := range []Command{ReAttach{Node: 1}, DeleteNode{Node: 1}} {
		free, _ := must(t, forced, c)
		if tenant, _ := free.Tenant(note.ID); tenant.Remover.Node != 1 {
			t.Errorf("%#v: %+v", c, tenant)
		}
		must(t, free, DropTenant{ID: note.ID})
		if next, _ := must(t, free, other); next.Index > 0 {
			if tenant, _ := next.Tenant(note.ID); tenant.Remover != (Remover{Node: 2}) {
				t.Errorf("after %#v: %+v", c, tenant)
			}
		}
	}
	if first, _ := must(t, small(t), BeginDeleteTenant{ID: note.ID}); Admit(first, note) == nil {
		t.Error("the first version is told of removers")
	}
}

// What travels in time is not attached, changed, deleted, nor created.
func TestNothingChangesATenantThatTravelsInTime(t *testing.T) {
	id := modelTenant(1)
	s, _ := must(t, small(t), SetLevel{Level: Level})
	travel := BeginTravel{Tenant: id, To: "then", Counts: []neon.ShardCount{2}}
	if _, r := Apply(s, s.Index+1, RequestID{}, travel); code(r) != neon.Conflict {
		t.Errorf("an attached one: %+v", r)
	}
	tenant, _ := s.Tenant(id)
	s, _ = must(t, s, UpdateTenant{
		ID: id, Sequence: tenant.Sequence, Policy: new(neon.Placement{}),
	})
	tenant, _ = s.Tenant(id)
	gone, _ := must(t, s, BeginDeleteTenant{ID: id})
	if _, r := Apply(gone, gone.Index+1, RequestID{}, travel); code(r) != neon.Conflict {
		t.Errorf("one that is being deleted: %+v", r)
	}
	s, _ = must(t, s, travel)
	unknown := travel
	unknown.Tenant = modelTenant(2)
	begun := s.Index
	s, _ = must(t, s, unknown)
	s, _ = must(t, s, travel) // once more
	another := travel
	another.To = "before"
	long := travel
	long.To = strings.Repeat("x", maxName+1)
	for name, c := range map[string]struct {
		c    Command
		code neon.Code
	}{
		"another travel": {another, neon.Conflict},
		"too long":       {long, neon.BadRequest},
		"a policy": {UpdateTenant{
			ID: id, Sequence: tenant.Sequence, Policy: new(neon.Attached(0)),
		}, neon.Conflict},
		"a configuration": {UpdateTenant{
			ID: id, Sequence: tenant.Sequence, Config: new(neon.TenantConfig),
		}, neon.Conflict},
		"a deletion":    {BeginDeleteTenant{ID: id}, neon.Conflict},
		"an attachment": {AttachUnmanaged{Shard: shard0, Node: 1}, neon.Conflict},
		"a detachment":  {AttachUnmanaged{Shard: shard0}, neon.Conflict},
		"an attachment of a new one": {
			AttachUnmanaged{Shard: neon.Unsharded(modelTenant(2)), Node: 1}, neon.Conflict,
		},
		"a creation": {CreateTenant{
			ID: modelTenant(2), Scheduling: neon.ShardActive, Shards: []NewShard{{}},
		}, neon.Conflict},
	} {
		if next, r := Apply(s, s.Index+1, RequestID{}, c.c); code(r) != c.code ||
			!sameRecords(s, next) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s, _ = must(t, s, EndTravel{Tenant: id, Began: begun - 1})
	if r, ok := s.Travel(id); !ok || r.Began != begun {
		t.Errorf("ended by somebody who meant another one, or recorded again: %+v", r)
	}
	s, _ = must(t, s, EndTravel{Tenant: id, Began: begun})
	must(t, s, EndTravel{Tenant: id, Began: begun})
	must(t, s, BeginDeleteTenant{ID: id})
}

// Who has begun a time travel has it done, whoever makes it, unless it has failed. Who has
// joined it has to note that it was made.
func TestATimeTravelIsDoneByWhoBeganIt(t *testing.T) {
	travel := BeginTravel{Tenant: modelTenant(2), Counts: []neon.ShardCount{2}}
	one, other := RequestID{1}, RequestID{2}
	s, _ := must(t, small(t), SetLevel{Level: Level})
	for _, id := range []RequestID{one, other, one} {
		s, _ = Apply(s, s.Index+1, id, travel)
	}
	r, _ := s.Travel(travel.Tenant)
	for _, failed := range []bool{false, true} {
		after, _ := must(t, s, EndTravel{Tenant: r.Tenant, Began: r.Began, Failed: failed})
		index, done := after.Done(one)
		if _, joined := after.Done(other); done == failed || done && index != r.Began || joined {
			t.Errorf("failed %v: done %v at %d, joined %v", failed, done, index, joined)
		}
	}
}

// A deletion that was recorded before a time travel, and has not ended, must not take away
// what that has brought back. It has not been made.
func TestATimeTravelEndsTheDeletionsOfTimelines(t *testing.T) {
	ref := neon.TimelineRef{Tenant: modelTenant(1), Timeline: modelTimeline(1)}
	s, _ := must(t, small(t), SetLevel{Level: Level})
	s, _ = Apply(s, s.Index+1, RequestID{1}, BeginDeleteTimeline(ref))
	tenant, _ := s.Tenant(ref.Tenant)
	s, _ = must(t, s, UpdateTenant{
		ID: ref.Tenant, Sequence: tenant.Sequence, Policy: new(neon.Placement{}),
	})
	s, _ = must(t, s, BeginTravel{Tenant: ref.Tenant, Counts: []neon.ShardCount{2}})
	r, _ := s.Travel(ref.Tenant)
	for _, failed := range []bool{false, true} {
		after, _ := must(t, s, EndTravel{Tenant: ref.Tenant, Began: r.Began, Failed: failed})
		_, recorded := after.TimelineDelete(ref)
		if _, done := after.Done(RequestID{1}); recorded != failed || done != failed {
			t.Errorf("failed %v: recorded %v, done %v", failed, recorded, done)
		}
	}
}

// A creation that has begun before finds it, also after the end of the deletion.
func TestATenantKeepsWhenATimelineWasDeleted(t *testing.T) {
	del := BeginDeleteTimeline{Tenant: modelTenant(1), Timeline: modelTimeline(1)}
	old, _ := must(t, small(t), del)
	if tenant, _ := old.Tenant(del.Tenant); tenant.TimelineDeleted != 0 {
		t.Errorf("in the first level: %+v", tenant)
	}
	s, _ := must(t, small(t), SetLevel{Level: Level})
	was, _ := s.Tenant(del.Tenant)
	s, _ = must(t, s, del)
	begun := s.Index
	s, _ = must(t, s, del)
	s, _ = must(t, s, DeleteTimeline(del))
	if tenant, _ := s.Tenant(del.Tenant); tenant.TimelineDeleted != begun ||
		tenant.Sequence != was.Sequence {
		t.Errorf("%+v, begun at %d", tenant, begun)
	}
}
