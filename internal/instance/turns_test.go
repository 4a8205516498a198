package instance

import (
	"os"
	"path/filepath"
	"testing"
)

// sharing makes the turns of two instances at one directory.
func sharing(t *testing.T) (a, b *turns) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	both := make([]*turns, 2)
	for i, address := range []string{"http://a/", "http://b/"} {
		var err error
		if both[i], err = newTurns(dir, address); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(both[i].withdraw)
	}
	return both[0], both[1]
}

func TestOneInstanceAtATimeAsksForTheNextTurn(t *testing.T) {
	a, b := sharing(t)
	if a.wanted() || b.wanted() {
		t.Error("a turn is wanted that nobody asked for")
	}
	if ok, err := a.ask(); !ok || err != nil || !a.candidate() {
		t.Fatalf("the first to ask: %v, %v", ok, err)
	}
	if ok, err := b.ask(); ok || err != nil || b.candidate() {
		t.Errorf("the second to ask: %v, %v", ok, err)
	}
	if a.wanted() || !b.wanted() {
		t.Errorf("wanted by another one: %v for the one that asks, %v for the other",
			a.wanted(), b.wanted())
	}
	a.withdraw()
	if ok, err := b.ask(); !ok || err != nil || !a.wanted() {
		t.Errorf("after the first has withdrawn: %v, %v, wanted %v", ok, err, a.wanted())
	}
}

func TestLastTurnIsKnownToAll(t *testing.T) {
	a, b := sharing(t)
	if b.last() != (holder{}) {
		t.Errorf("before the first turn: %+v", b.last())
	}
	if err := a.take(); err != nil {
		t.Fatal(err)
	}
	if b.last() != a.self || b.last().Address != "http://a/" || b.last().PID != os.Getpid() {
		t.Errorf("the last turn was that of %+v", b.last())
	}
	if err := os.WriteFile(filepath.Join(a.dir, holderFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.last() != (holder{}) {
		t.Errorf("of a damaged file: %+v", b.last())
	}
}

func TestTurnIsOverOnceASuccessorHasHadItsOwn(t *testing.T) {
	var s successors
	self, other := holder{Name: "a"}, holder{Name: "b", Address: "http://b/"}
	changed := s.Changed()
	told := func() (yes bool) {
		select {
		case <-changed:
			yes = true
		default:
		}
		changed = s.Changed()
		return yes
	}
	if s.begin(self); !told() {
		t.Error("nobody hears of our turn")
	}
	if name, _ := s.Current(); name != "a" || s.Expected() {
		t.Errorf("in our turn: %s leads, another expected: %v", name, s.Expected())
	}
	if s.retire(false); !told() {
		t.Error("nobody hears of the end of our turn")
	}
	if name, _ := s.Current(); name != "" || s.Expected() {
		t.Errorf("after it: %q leads, another expected: %v", name, s.Expected())
	}
	for _, step := range []struct {
		last   holder
		wanted bool
		over   bool
		news   bool
	}{
		{self, false, false, false}, // no other came
		{self, true, false, true},   // another one asks
		{other, false, true, true},  // it had its turn, and may still have it
		{other, false, true, false},
	} {
		if got := s.over(step.last, self, step.wanted); got != step.over {
			t.Errorf("last %q, wanted %v: over %v", step.last.Name, step.wanted, got)
		}
		if got := told(); got != step.news {
			t.Errorf("last %q, wanted %v: told %v", step.last.Name, step.wanted, got)
		}
	}
	if _, address := s.Current(); address != "http://b/" || !s.Expected() {
		t.Errorf("requests go to %q, another expected: %v", address, s.Expected())
	}
}
