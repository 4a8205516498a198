package fsm

import (
	"testing"

	"quorate/api/neon"
)

func begin1(t *testing.T, kind OperationKind) (*State, uint64) {
	t.Helper()
	s, r := must(t, small(t), BeginNodeOperation{Node: 1, Kind: kind, Prior: neon.SchedulingActive})
	return s, r.Index
}

// An operation sets its policy and its end sets the one that belongs to it.
func TestAnOperationLeavesThePolicyThatBelongsToItsEnding(t *testing.T) {
	for _, c := range []struct {
		kind   OperationKind
		ending Ending
		during neon.NodeScheduling
		after  neon.NodeScheduling
	}{
		{OperationDrain, Finished, neon.SchedulingDraining, neon.SchedulingPauseForRestart},
		{OperationDrain, Cancelled, neon.SchedulingDraining, neon.SchedulingActive},
		{OperationFill, Finished, neon.SchedulingFilling, neon.SchedulingActive},
		{OperationFill, Cancelled, neon.SchedulingFilling, neon.SchedulingActive},
		{OperationDelete, Cancelled, neon.SchedulingDeleting, neon.SchedulingActive},
	} {
		s, begun := begin1(t, c.kind)
		if n, _ := s.Node(1); n.Scheduling != c.during || n.Operation.Total != 2 ||
			n.Operation.Begun != begun {
			t.Errorf("%s begun: %+v", c.kind, n)
		}
		s, _ = must(t, s, EndNodeOperation{Node: 1, Begun: begun, Ending: c.ending})
		if n, _ := s.Node(1); n.Scheduling != c.after || n.Operation != (Operation{}) {
			t.Errorf("%s ended: %+v", c.kind, n)
		}
	}
}

// A decision about an operation that is over does nothing to the next one.
func TestAnEndingIsForOneOperationOnly(t *testing.T) {
	s, first := begin1(t, OperationDrain)
	s, _ = must(t, s, EndNodeOperation{Node: 1, Begun: first, Ending: Cancelled})
	s, _ = must(t, s,
		BeginNodeOperation{Node: 1, Kind: OperationDelete, Prior: neon.SchedulingActive})
	for _, c := range []Command{
		EndNodeOperation{Node: 1, Begun: first, Ending: Finished},
		DeleteNode{Node: 1, Begun: first},
		BeginNodeOperation{Node: 1, Kind: OperationDrain, Prior: neon.SchedulingDeleting},
	} {
		if _, r := Apply(s, s.Index+1, RequestID{}, c); r.Err == nil ||
			r.Err.Code != neon.Conflict {
			t.Errorf("%#v: %v", c, r.Err)
		}
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, SetNodeScheduling{
		Node: 1, Scheduling: neon.SchedulingActive,
	}); r.Err == nil || r.Err.Code != neon.PreconditionFailed {
		t.Errorf("the policy was taken from a running operation: %v", r.Err)
	}
}

// A restart takes the policy away from an operation, which is still one that runs
// until it is ended; no ending changes the policy then.
func TestARestartInterruptsTheOperationOnTheNode(t *testing.T) {
	for kind, after := range map[OperationKind]neon.NodeScheduling{
		OperationDrain: neon.SchedulingActive, OperationFill: neon.SchedulingActive,
		OperationDelete: neon.SchedulingPause,
	} {
		s, begun := begin1(t, kind)
		s, _ = must(t, s, ReAttach{Node: 1})
		if n, _ := s.Node(1); n.Scheduling != after || n.Operation.Kind != kind ||
			!n.Operation.Interrupted {
			t.Errorf("%s: %+v", kind, n)
		}
		if _, r := Apply(s, s.Index+1, RequestID{},
			SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingFilling}); r.Err == nil {
			t.Errorf("%s: configured while the operation is there", kind)
		}
		if _, r := Apply(s, s.Index+1, RequestID{},
			DeleteNode{Node: 1, Begun: begun}); r.Err == nil {
			t.Errorf("%s: an interrupted operation deleted the node", kind)
		}
		for _, ending := range []Ending{Finished, Cancelled, Abandoned} {
			s, _ := must(t, s, EndNodeOperation{Node: 1, Begun: begun, Ending: ending})
			if n, _ := s.Node(1); n.Scheduling != after || n.Operation != (Operation{}) {
				t.Errorf("%s, ended as %d: %+v", kind, ending, n)
			}
		}
	}
}

// Who relies on being alone is refused while another node has an operation.
// TestProgressIsOfOneOperation: it is not that of the one before, and does not go back.
func TestProgressIsOfOneOperation(t *testing.T) {
	s, begun := begin1(t, OperationDrain)
	s, _ = must(t, s, SetLevel{Level: Level})
	first, _ := s.Node(1)
	for _, c := range []struct {
		note NoteProgress
		want int64
	}{
		{NoteProgress{Node: 1, Begun: begun, At: 5}, 5},
		{NoteProgress{Node: 1, Begun: begun, At: 4}, 5},
		{NoteProgress{Node: 1, Begun: begun - 1, At: 9}, 5},
		{NoteProgress{Node: 2, At: 9}, 5},
		{NoteProgress{Node: 9, Begun: begun, At: 9}, 5},
		{NoteProgress{Node: 1, Begun: begun, At: 7}, 7},
	} {
		s, _ = must(t, s, c.note)
		n, _ := s.Node(1)
		if n.Operation.Progress != c.want || n.Sequence != first.Sequence {
			t.Errorf("after %+v: %+v", c.note, n)
		}
		if other, _ := s.Node(2); other.Operation != (Operation{}) {
			t.Errorf("after %+v: %+v", c.note, other)
		}
	}
	s, _ = must(t, s, EndNodeOperation{Node: 1, Begun: begun, Ending: Cancelled})
	s, _ = must(t, s, NoteProgress{Node: 1, Begun: begun, At: 9})
	if n, _ := s.Node(1); n.Operation != (Operation{}) {
		t.Errorf("afterwards: %+v", n)
	}
}

func TestAnOperationMayDemandToBeAlone(t *testing.T) {
	s, begun := begin1(t, OperationDrain)
	c := BeginNodeOperation{
		Node: 2, Kind: OperationDrain, Prior: neon.SchedulingActive, Exclusive: true,
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, c); r.Err == nil || r.Err.Code != neon.Conflict {
		t.Errorf("a second operation began: %v", r.Err)
	}
	together := c
	together.Exclusive = false
	must(t, s, together)
	s, _ = must(t, s, EndNodeOperation{Node: 1, Begun: begun, Ending: Cancelled})
	must(t, s, c)
}

// What a deleted node had is intended there no more, its number is not issued
// again, and its id is free only when its tombstone is forgotten.
func TestADeletedNodeHoldsNothingAndStaysAway(t *testing.T) {
	s := small(t)
	s, _ = must(t, s, DeleteNode{Node: 1})
	for _, sh := range shardsOf(s, modelTenant(1)) {
		if sh.Attached != 0 || sh.Generation != 1 || sh.GenNode != 1 || len(sh.Secondary) != 1 {
			t.Errorf("%+v", sh)
		}
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, ReAttach{Node: 1}); r.Err == nil ||
		r.Err.Msg != "Node 1 is marked as deleted, re-attach is not allowed" {
		t.Errorf("re-attach of a deleted node: %v", r.Err)
	}
	register := RegisterNode{
		ID: 1, Addr: NodeAddr{HTTPHost: "ps", HTTPPort: 1}, AZ: neon.MakeAZ("a"),
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, register); r.Err == nil ||
		r.Err.Code != neon.Conflict {
		t.Errorf("registration of a deleted node: %v", r.Err)
	}
	if _, r := Apply(s, s.Index+1, RequestID{}, ForgetTombstone{Node: 2}); r.Err == nil ||
		r.Err.Code != neon.Conflict {
		t.Errorf("a node in use was forgotten: %v", r.Err)
	}
	s, _ = must(t, s, ForgetTombstone{Node: 1})
	s, _ = must(t, s, ForgetTombstone{Node: 1})
	s, _ = must(t, s, register)
	s, r := must(t, s, ReAttach{Node: 1})
	if len(r.ReAttached) != 0 {
		t.Errorf("a new node with the id of a deleted one got %+v", r.ReAttached)
	}
	id := neon.ShardIDs(modelTenant(1), 2)[0]
	sh, _ := s.Shard(id)
	s, _ = must(t, s,
		SetIntents{Intents: []Intent{{Shard: id, Sequence: sh.Sequence, Attached: 2, Issue: true}}})
	if sh, _ := s.Shard(id); sh.Generation != 2 {
		t.Errorf("after all of it: %+v", sh)
	}
}

// A forced deletion comes before everything, and remembers the policy from before
// what it displaced.
func TestAForcedDeletionTakesThePlaceOfAnotherOperation(t *testing.T) {
	s, _ := begin1(t, OperationDrain)
	s, r := must(t, s, BeginNodeOperation{
		Node: 1, Kind: OperationDelete, Force: true, Prior: neon.SchedulingDraining,
	})
	n, _ := s.Node(1)
	if n.Operation.Kind != OperationDelete || n.Operation.Prior != neon.SchedulingActive {
		t.Errorf("%+v", n)
	}
	s, _ = must(t, s, DeleteNode{Node: 1, Begun: r.Index})
	if n, _ := s.Node(1); !n.Tombstone || n.Operation != (Operation{}) {
		t.Errorf("%+v", n)
	}
}
