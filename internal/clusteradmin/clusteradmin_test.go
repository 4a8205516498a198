package clusteradmin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/decide"
)

// fake is a Raft member whose answers a test sets.
type fake struct {
	status     cluster.Status
	members    []cluster.MemberStatus
	applicants []cluster.Applicant
	err        error // of every change
	barrier    error

	calls []string
}

func (f *fake) call(format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) AddMember(_ context.Context, m cluster.Member) error {
	return f.call("add %s %s", m.ID, m.RaftAddr)
}

func (f *fake) AddStandby(_ context.Context, m cluster.Member) error {
	return f.call("standby %s %s", m.ID, m.RaftAddr)
}

func (f *fake) RemoveMember(_ context.Context, id string) error { return f.call("remove %s", id) }

func (f *fake) ReplaceMember(_ context.Context, old string, m cluster.Member) error {
	return f.call("replace %s %s %s", old, m.ID, m.RaftAddr)
}

func (f *fake) TransferLeadership(_ context.Context, to string) error {
	return f.call("transfer %s", to)
}

func (f *fake) ReadBarrier(context.Context) error { return f.barrier }

func (f *fake) Members() []cluster.MemberStatus { return f.members }

func (f *fake) Status() cluster.Status { return f.status }

func (f *fake) Applicants() []cluster.Applicant { return f.applicants }

// two is a leader and a follower.
func two() *fake {
	return &fake{
		status: cluster.Status{ID: "c1", Leader: "c1", ClusterID: "x"},
		members: []cluster.MemberStatus{
			{ID: "c1", RaftAddr: "h1:1", Leader: true, Voter: true, Self: true, Connected: true,
				EqualAt: 4, Uptime: time.Hour},
			{ID: "c2", RaftAddr: "h2:1", Voter: true, Connected: true,
				LastContact: 1500 * time.Microsecond},
		},
	}
}

func TestMembersAreShownAsTheyAreKnown(t *testing.T) {
	f := two()
	f.members[1].Diverged, f.members[1].Sick, f.members[1].SickReason = "at 4", true, "is full"
	f.members = append(f.members, cluster.MemberStatus{
		ID: "c3", LastContact: -1, Uptime: time.Hour, EqualAt: 3, Level: 2,
	})
	f.applicants = []cluster.Applicant{{Member: cluster.Member{ID: "c5"}}, {
		Member: cluster.Member{ID: "c4", RaftAddr: "h4:1"},
	}}
	got := New(Options{Cluster: f, Level: func() uint64 { return 7 }}).List(t.Context())
	want := []neon.ClusterMember{
		{ID: "c1", RaftAddr: "h1:1", Role: "leader", Connected: true, LastContact: "0s",
			Equality: "equal", Disk: "healthy", Uptime: "1h0m0s"},
		{ID: "c2", RaftAddr: "h2:1", Role: "voter", Connected: true, LastContact: "2ms",
			Equality: "diverged", Divergence: "at 4", Disk: "unhealthy", DiskReason: "is full",
			Uptime: "0s"},
		{ID: "c3", Role: "learner", LastContact: "never", Equality: "unknown", Disk: "unknown",
			Level: 2},
	}
	if !slices.Equal(got.Members, want) || !got.Current || got.Level != 7 || got.ID != "x" {
		t.Errorf("got %+v", got)
	}
	if len(got.Waiting) != 2 || got.Waiting[0].ID != "c4" {
		t.Errorf("waiting: %v", got.Waiting)
	}
	f.barrier = cluster.ErrNotLeader
	if New(Options{Cluster: f}).List(t.Context()).Current {
		t.Error("a list that no leader confirms is said to be current")
	}
}

func TestAdditionsFindTheirAddress(t *testing.T) {
	f := two()
	f.applicants = []cluster.Applicant{{Member: cluster.Member{ID: "c4", RaftAddr: "h4:1"}}}
	a := New(Options{Cluster: f, TLS: true})
	for _, r := range []neon.MemberAdd{
		{ID: "c3", RaftAddr: "h3:1"}, {ID: "c4"}, {ID: "c2"}, {ID: "c4", Standby: true},
	} {
		if _, err := a.Add(t.Context(), r); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := a.Replace(t.Context(), "c1", neon.MemberAdd{ID: "c4"}); err != nil {
		t.Error(err)
	}
	want := []string{
		"add c3 h3:1", "add c4 h4:1", "add c2 h2:1", "standby c4 h4:1", "replace c1 c4 h4:1",
	}
	if !slices.Equal(f.calls, want) {
		t.Errorf("asked for %q", f.calls)
	}
	for text, r := range map[string]neon.MemberAdd{
		"has an id": {RaftAddr: "h:1"}, "where is c9": {ID: "c9"}, "not host:port": {ID: "9", RaftAddr: "h"},
	} {
		if _, err := a.Add(t.Context(), r); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if len(f.calls) != len(want) {
		t.Error("nonsense reached the cluster")
	}
}

func TestTheFlagsOfANewcomerAreTold(t *testing.T) {
	f := two()
	a := New(Options{Cluster: f, TLS: true})
	got, err := a.Add(t.Context(), neon.MemberAdd{ID: "c2"})
	if err != nil {
		t.Fatal(err)
	}
	want := "--server-id c2 --raft-listen h2:1 --join h1:1 --raft-tls-cert FILE " +
		"--raft-tls-key FILE --raft-tls-ca FILE"
	if strings.Join(got.Start, " ") != want || got.Role != "voter" {
		t.Errorf("got %+v", got)
	}
	if !strings.HasPrefix(got.Note, "2 voters survive the loss of no more members than 1") {
		t.Errorf("note %q", got.Note)
	}
	f.err = fmt.Errorf("c3 cannot join: %w", cluster.ErrPeerUnreachable)
	_, err = a.Add(t.Context(), neon.MemberAdd{ID: "c3", RaftAddr: "h3:1"})
	if err == nil || !strings.Contains(err.Error(),
		"--server-id c3 --raft-listen h3:1 --join h1:1,h2:1") {
		t.Errorf("one that does not run: %v", err)
	}
}

func TestRefusalsHaveACodeAndAWayOut(t *testing.T) {
	for _, tc := range []struct {
		err    error
		class  neon.Code
		reason string
		text   string
	}{
		{cluster.ErrNotLeader, neon.NotLeader, "not_leader", "not the leader"},
		{cluster.ErrOutcomeUnknown, neon.OutcomeUnknown, "outcome_unknown", "outcome"},
		{cluster.ErrClosed, neon.ShuttingDown, "shutting_down", ""},
		{cluster.ErrNotEmpty, neon.PreconditionFailed, "not_empty", "an empty --data-dir"},
		{cluster.ErrClusterMismatch, neon.PreconditionFailed, "foreign_cluster",
			"start it on an empty --data-dir"},
		{cluster.ErrOtherServer, neon.PreconditionFailed, "other_server", "cluster list"},
		{cluster.ErrRefused, neon.PreconditionFailed, "refused", "new --server-id"},
		{cluster.ErrNoMajority, neon.PreconditionFailed, "no_majority", "majority"},
		{cluster.ErrLastVoter, neon.PreconditionFailed, "last_voter", "last voter"},
		{cluster.ErrTooManyMembers, neon.PreconditionFailed, "too_many_members", "too many"},
		{cluster.ErrPeerUnreachable, neon.PreconditionFailed, "unreachable", "Start it with"},
		{cluster.ErrUnknownMember, neon.NotFound, "unknown_member", "unknown member"},
		{errors.New("another change is under way"), neon.Conflict, "", "another change"},
		{context.DeadlineExceeded, neon.Timeout, "", ""},
	} {
		f := two()
		f.err = fmt.Errorf("add c3: %w", tc.err)
		_, err := New(Options{Cluster: f}).Add(t.Context(), neon.MemberAdd{ID: "c3", RaftAddr: "h3:1"})
		var e *neon.Error
		if !errors.As(err, &e) || e.Code != tc.class || e.Reason != tc.reason ||
			!strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "cluster:") {
			t.Errorf("%v: %+v", tc.err, e)
		}
		if !errors.Is(err, tc.err) {
			t.Errorf("%v is lost", tc.err)
		}
	}
}

// A leader that has handed over may have made a part of the change before.
func TestAChangeThatALeaderBeganMayBeDone(t *testing.T) {
	for leader, acted := range map[string]bool{"c1": true, "c2": false} {
		f := two()
		f.err, f.status.Leader = cluster.ErrNotLeader, leader
		ctx := decide.WithRequest(t.Context(), [32]byte{1})
		if err := New(Options{Cluster: f}).Remove(ctx, "c1"); neon.Classify(err) != neon.NotLeader {
			t.Errorf("got %v", err)
		}
		if decide.HasActed(ctx) != acted {
			t.Errorf("%s led: acted %v", leader, !acted)
		}
	}
}

func TestLeadershipStaysWithWhoHasIt(t *testing.T) {
	f := two()
	a := New(Options{Cluster: f})
	for _, to := range []string{"c1", "c2", ""} {
		if err := a.Transfer(t.Context(), to); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"transfer c2", "transfer "}; !slices.Equal(f.calls, want) {
		t.Errorf("asked for %q", f.calls)
	}
}
