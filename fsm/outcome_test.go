package fsm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"quorate/api/neon"
)

func second(t testing.TB) *State {
	t.Helper()
	s, _ := must(t, small(t), SetLevel{Level: secondLevel})
	return s
}

func outcomesOf(s *State) []Outcome { return slices.Collect(s.Outcomes()) }

// left has more and longer names than are kept.
func left() (l Left) {
	l.Count = 20
	for _, id := range neon.ShardIDs(modelTenant(1), 20) {
		l.Named = append(l.Named, LeftShard{Shard: id, Why: strings.Repeat("x", 600)})
	}
	return l
}

// TestHowAnOperationEndedIsKept: of each ending, bounded, through a snapshot, and after the
// node is gone.
func TestHowAnOperationEndedIsKept(t *testing.T) {
	s, began := second(t), uint64(0)
	begin := func(kind OperationKind) {
		n, _ := s.Node(1)
		var r Result
		s, r = must(t, s, BeginNodeOperation{Node: 1, Kind: kind, Prior: n.Scheduling, At: 5})
		began = r.Index
	}
	end := func(e Ending) {
		s, _ = must(t, s, EndNodeOperation{Node: 1, Begun: began, Ending: e, At: 9, Left: left()})
		s, _ = must(t, s, SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingActive})
	}
	last := func(kind OperationKind, e Ending) {
		t.Helper()
		s = restored(t, s)
		all := outcomesOf(s)
		o := all[len(all)-1]
		want := Outcome{
			Node: 1, Kind: kind, Ending: e, Begun: began, BegunAt: 5, EndedAt: 9, Total: 2,
			Attached: 2, Shards: 2, Left: left().bounded(),
		}
		if !reflect.DeepEqual(o, want) {
			t.Errorf("%s ended as %+v, not %+v", kind, o, want)
		}
		if len(o.Left.Named) != MaxNamed || len(o.Left.Named[0].Why) != MaxWhy {
			t.Errorf("%d are named", len(o.Left.Named))
		}
	}
	begin(OperationDrain)
	end(Finished)
	last(OperationDrain, Finished)
	begin(OperationFill)
	end(Cancelled)
	last(OperationFill, Cancelled)
	begin(OperationFill)
	s, _ = must(t, s, ReAttach{Node: 1})
	end(Finished)
	last(OperationFill, Abandoned)
	begin(OperationDelete)
	end(GaveUp)
	last(OperationDelete, GaveUp)
	begin(OperationDelete)
	s, _ = must(t, s, DeleteNode{Node: 1, Begun: began, At: 9, Left: left()})
	last(OperationDelete, Finished)
	if all := outcomesOf(s); len(all) != 3 {
		t.Errorf("one of each kind should be kept: %+v", all)
	}
	s, _ = must(t, s, ForgetTombstone{Node: 1})
	if len(outcomesOf(restored(t, s))) != 3 {
		t.Error("they have gone with their node")
	}
}

// TestAnOperationThatIsDisplacedHasBeenCancelled, by a deletion by force and by the end of
// its node.
func TestAnOperationThatIsDisplacedHasBeenCancelled(t *testing.T) {
	s, _ := must(t, second(t), BeginNodeOperation{
		Node: 1, Kind: OperationDrain, Prior: neon.SchedulingActive, At: 5,
	})
	s, _ = must(t, s, BeginNodeOperation{
		Node: 2, Kind: OperationFill, Prior: neon.SchedulingActive, At: 6,
	})
	s, _ = must(t, s, BeginNodeOperation{
		Node: 1, Kind: OperationDelete, Force: true, Prior: neon.SchedulingDraining, At: 7,
	})
	s, _ = must(t, s, DeleteNode{Node: 2})
	var got []string
	for _, o := range outcomesOf(s) {
		got = append(got, fmt.Sprint(o.Kind, " of ", o.Node, " ", o.Ending, " at ", o.EndedAt))
	}
	want := []string{"drain of 1 cancelled at 7", "fill of 2 cancelled at 0"}
	if !slices.Equal(got, want) {
		t.Errorf("ended %q, not %q", got, want)
	}
}

// TestOutcomesAreBounded: the oldest goes first.
func TestOutcomesAreBounded(t *testing.T) {
	w := begin(NewState())
	for i := range keptOutcomes + 3 {
		w.outcomes.add(Outcome{Node: neon.NodeID(i + 1), Kind: OperationDrain})
	}
	if all := outcomesOf(w.snapshot()); len(all) != keptOutcomes || all[0].Node != 4 {
		t.Errorf("%d are kept, from node %d on", len(all), all[0].Node)
	}
}

// TestTheFirstLevelKeepsNoOutcome, and is given nothing that it does not know.
func TestTheFirstLevelKeepsNoOutcome(t *testing.T) {
	s, begun := begin1(t, OperationDrain)
	for _, c := range []Command{
		BeginNodeOperation{Node: 2, Kind: OperationDrain, Prior: neon.SchedulingActive, At: 1},
		EndNodeOperation{Node: 1, Begun: begun, At: 1},
		EndNodeOperation{Node: 1, Begun: begun, Left: Left{Count: 1}},
		EndNodeOperation{Node: 1, Begun: begun, Ending: GaveUp},
		DeleteNode{Node: 1, At: 1},
	} {
		if err := Admit(s, c); neon.CodeOf(err) != neon.PreconditionFailed {
			t.Errorf("%+v is admitted: %v", c, err)
		}
	}
	s, _ = must(t, s, EndNodeOperation{Node: 1, Begun: begun})
	if all := outcomesOf(s); len(all) != 0 {
		t.Errorf("kept: %+v", all)
	}
}
