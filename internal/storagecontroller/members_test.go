package storagecontroller

import (
	"strings"
	"testing"

	"quorate/cluster"
)

func TestMembersAreListedWithTheEqualityOfTheirStates(t *testing.T) {
	var out strings.Builder
	printMembers(&out, []cluster.MemberStatus{
		{ID: "a", Leader: true, Self: true, Connected: true, EqualAt: 9},
		{ID: "b", Voter: true, Connected: true, EqualAt: 7, Diverged: "its state is wrong"},
		{ID: "c", EqualAt: 5, LastContact: -1},
		{ID: "d", Connected: true},
	})
	want := []string{"equal", "diverged", "unknown", "unknown"}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	column := strings.Index(lines[0], "STATE")
	if column < 0 || len(lines) != 1+len(want) {
		t.Fatalf("%s", out.String())
	}
	for i, line := range lines[1:] {
		if got := strings.Fields(line[column:])[0]; got != want[i] {
			t.Errorf("%s: %s, want %s", line, got, want[i])
		}
	}
}
