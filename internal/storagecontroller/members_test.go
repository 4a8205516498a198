package storagecontroller

import (
	"strings"
	"testing"

	"quorate/api/neon"
)

func TestMembersAreListedWithTheEqualityOfTheirStates(t *testing.T) {
	var out strings.Builder
	want := []string{"equal", "diverged", "unknown"}
	view := neon.Cluster{Current: true}
	for _, equality := range want {
		view.Members = append(view.Members, neon.ClusterMember{
			ID: "a", RaftAddr: "r", HTTPAddr: "h", Role: "voter", Equality: equality,
		})
	}
	printMembers(&out, view)
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

func TestAListThatNobodyConfirmsSaysSo(t *testing.T) {
	var out strings.Builder
	printMembers(&out, neon.Cluster{Waiting: []neon.ClusterApplicant{{ID: "c4", RaftAddr: "h4:1"}}})
	for _, want := range []string{"No leader confirms", "c4 at h4:1 waits"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
}

func TestAnAdditionTellsHowTheNewcomerIsStarted(t *testing.T) {
	var out strings.Builder
	printAdded(&out, neon.MemberAdded{
		ID: "c4", Role: "voter", Start: []string{"--server-id", "c4"}, Note: "4 voters",
	})
	want := "c4 is a voter. It is started with: --server-id c4\n4 voters\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}
