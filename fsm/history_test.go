package fsm

import (
	"testing"

	"quorate/api/neon"
)

// A deletion that pageservers have refused, and a split that was rolled back, were not done:
// who has asked for it may ask again under the same id, and under no other one that was
// recorded before.
func TestWhatIsTakenBackWasNotDone(t *testing.T) {
	s, tenant := withSafekeepers(t), modelTenant(1)
	if s.AgreedLevel() < Level {
		s, _ = must(t, s, SetLevel{Level: Level})
	}
	other, begin := RequestID{1}, RequestID{2}
	id := neon.TimelineID{9}
	apply := func(by RequestID, c Command) Result {
		t.Helper()
		next, r := Apply(s, s.Index+1, by, c)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		s = next
		return r
	}
	apply(other, BeginDeleteTimeline{Tenant: tenant, Timeline: neon.TimelineID{8}})
	apply(begin, BeginDeleteTimeline{Tenant: tenant, Timeline: id})
	if _, done := s.Done(begin); !done {
		t.Error("it was not remembered")
	}
	d, _ := s.TimelineDelete(neon.TimelineRef{Tenant: tenant, Timeline: id})
	apply(RequestID{}, CancelDeleteTimeline{Tenant: tenant, Timeline: id, Sequence: d.Sequence})
	if _, done := s.Done(begin); done {
		t.Error("what was taken back is remembered")
	}
	if _, done := s.Done(other); !done {
		t.Error("what was not taken back is not remembered")
	}
	if r := apply(begin, BeginDeleteTimeline{Tenant: tenant, Timeline: id}); r.Duplicate {
		t.Error("it cannot be asked for again")
	}
}

// A later try of a request may come to decide on another command than the one that was
// committed, since it does not know of that one yet.
func TestARequestIdNamesOneChange(t *testing.T) {
	for _, level := range []uint64{firstLevel, secondLevel} {
		s := NewState()
		if level > firstLevel {
			s, _ = must(t, s, SetLevel{Level: level})
		}
		s, first := must(t, s, SetCluster{ID: "a"})
		s, _ = Apply(s, s.Index+1, RequestID{1}, SetLeader{Leader{ServerID: "b", Term: 4}})
		_, again := Apply(s, s.Index+1, RequestID{1}, SetLeader{Leader{ServerID: "c", Term: 5}})
		_, otherwise := Apply(s, s.Index+1, RequestID{1}, SetCluster{ID: "a"})
		if !again.Duplicate || again.Index != first.Index+1 ||
			otherwise.Duplicate != (level > firstLevel) {
			t.Errorf("level %d: %+v, %+v", level, again, otherwise)
		}
	}
}
