package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
	"quorate/internal/logbuffer"
)

// threeFounders is a cluster of three, and its leader.
func threeFounders(t *testing.T) (*founders, *node) {
	f := newFounders(t)
	for i := range 3 {
		f.start(i)
	}
	lead := f.leader()
	lead.mustPropose(t, "a")
	return f, lead
}

func (f *founders) followers(lead *node) (out []int) {
	for i, nd := range f.nodes {
		if nd != lead {
			out = append(out, i)
		}
	}
	return out
}

// Each refusal comes within seconds, has its class, and changes nothing.
func TestWrongAdditionsAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		lead := f.nodes[0]
		f.newcomer(1, "h0:1")
		alone := f.newcomer(2) // founds a cluster of its own
		eventuallyVirtual(t, alone.IsLeader)
		for _, tc := range []struct {
			what string
			m    Member
			want error
		}{
			{"nobody there", Member{"n7", "h7:1"}, ErrPeerUnreachable},
			{"another id", Member{"n7", "h1:1"}, ErrOtherServer},
			{"another cluster", Member{"n2", "h2:1"}, ErrClusterMismatch},
			{"the leader's address", Member{"n7", "h0:1"}, ErrOtherServer},
			{"a wrong new address of a member", Member{"n0", "h1:1"}, ErrOtherServer},
			{"a silent new address of a member", Member{"n0", "h7:1"}, ErrPeerUnreachable},
		} {
			begun := time.Now()
			err := lead.AddMember(t.Context(), tc.m)
			if !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", tc.what, err, tc.want)
			}
			if d := time.Since(begun); d > greetingTimeout {
				t.Errorf("%s: after %s", tc.what, d)
			}
			if m := lead.Members(); len(m) != 1 || m[0].RaftAddr != "h0:1" {
				t.Fatalf("%s: the members are %+v", tc.what, m)
			}
		}
		if err := lead.RemoveMember(t.Context(), "n0"); !errors.Is(err, ErrLastVoter) {
			t.Errorf("removed the last voter: %v", err)
		}
		err := lead.RemoveMember(t.Context(), "n9")
		if !errors.Is(err, ErrUnknownMember) || !strings.Contains(err.Error(), "n0") {
			t.Errorf("removed a stranger: %v", err)
		}
		if err := lead.ReplaceMember(t.Context(), "n9", Member{"n1", "h1:1"}); !errors.Is(err,
			ErrUnknownMember) {
			t.Errorf("replaced a stranger: %v", err)
		}
		if err := lead.ReplaceMember(t.Context(), "n0", Member{"n0", "h1:1"}); !errors.Is(err,
			ErrRefused) {
			t.Errorf("replaced a member by itself: %v", err)
		}
	})
}

// A member that comes back with an empty disk is no member, whoever adds it again.
func TestAWipedMemberIsNotAddedUnderItsId(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead := threeFounders(t)
		defer f.stopAll()
		i := f.followers(lead)[0]
		wiped := f.nodes[i]
		f.stop(i, false)
		if err := lead.AddMember(t.Context(), wiped.member()); err != nil {
			t.Errorf("repeated while the member is down: %v", err)
		}
		f.stop(i, true)
		wiped.cfg.Disk, wiped.cfg.Members = clustertest.NewMemoryDisk(), nil
		wiped.cfg.Join = []string{lead.cfg.RaftListen, "h9:1"}
		var log logbuffer.Buffer
		wiped.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f.start(i)
		pass(t, 5*time.Second)
		for _, want := range []string{
			"another --server-id", "cluster replace " + wiped.cfg.ID + " NEW-ID", "cluster add NEW-ID",
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, log.String())
			}
		}
		err := lead.AddMember(t.Context(), wiped.member())
		if !errors.Is(err, ErrRefused) {
			t.Errorf("added with an empty disk: %v", err)
		}
	})
}

// A newcomer that goes away before it has caught up would hold up the feature level.
func TestAFailedAdditionIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead := threeFounders(t)
		defer f.stopAll()
		late := f.empty(3, "h0:1")
		disk := clustertest.NewMemoryDisk()
		late.cfg.Disk = disk
		f.start(3)
		disk.Hang()
		added := make(chan error, 1)
		go func() { added <- lead.AddMember(t.Context(), late.member()) }()
		pass(t, 2*longestSilence)
		if m := lead.listed("n3"); m.ID == "" || m.Voter || len(added) > 0 {
			t.Errorf("one that answers and does not catch up is listed as %+v", m)
		}
		f.net.Partition([]string{"h3"})
		pass(t, 2*longestSilence)
		select {
		case err := <-added:
			if !errors.Is(err, ErrPeerUnreachable) || !strings.Contains(err.Error(), "taken back") {
				t.Errorf("got %v", err)
			}
		default:
			t.Error("it is still waited for")
		}
		if n := len(lead.Members()); n != 3 {
			t.Errorf("%d members", n)
		}
		disk.Resume()
		f.net.Heal()
		pass(t, time.Second)
		err := lead.AddMember(t.Context(), late.member())
		if n := voters(lead.Cluster); err != nil || n != 4 {
			t.Errorf("another try: %v, %d voters", err, n)
		}
	})
}

func TestAStandbyHasTheStateAndNoVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead := threeFounders(t)
		defer f.stopAll()
		late := f.newcomer(3, "h0:1", "h1:1", "h2:1")
		if err := lead.AddStandby(t.Context(), late.member()); err != nil {
			t.Fatal(err)
		}
		pass(t, time.Minute)
		if lead.listed("n3").Voter || late.machine.count("a") != 1 {
			t.Error("it has a vote, or not the state")
		}
		if err := lead.AddMember(t.Context(), late.member()); err != nil {
			t.Fatal(err)
		}
		if !lead.listed("n3").Voter {
			t.Error("it has no vote although it was asked for")
		}
	})
}

// replaceUntilDone repeats a replacement at the leader of the moment, as a client does.
func (f *founders) replaceUntilDone(old string, by Member) {
	f.t.Helper()
	for range 100 {
		err := f.leader().ReplaceMember(f.t.Context(), old, by)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrOutcomeUnknown) &&
			!errors.Is(err, context.DeadlineExceeded) {
			f.t.Fatal(err)
		}
	}
	f.t.Fatal("never done")
}

func (f *founders) memberIDs() (out []string) {
	for _, m := range f.leader().Members() {
		if m.Voter {
			out = append(out, m.ID)
		}
	}
	slices.Sort(out)
	return out
}

func TestAReplacementIsFinishedWhoeverDies(t *testing.T) {
	for _, old := range []string{"follower", "leader", "dead", "wiped"} {
		t.Run(old, func(t *testing.T) {
			// The leader dies after so much of the replacement.
			for _, after := range []time.Duration{
				0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, time.Second,
			} {
				synctest.Test(t, func(t *testing.T) {
					f, lead := threeFounders(t)
					defer f.stopAll()
					gone := f.followers(lead)[0]
					late := f.empty(3, "h0:1", "h1:1", "h2:1")
					if old == "wiped" { // its successor is at its address
						late.cfg.RaftListen = f.nodes[gone].cfg.RaftListen
						late.cfg.Network = f.nodes[gone].cfg.Network
						f.stop(gone, false)
					}
					f.start(3)
					if old == "leader" {
						gone = slices.Index(f.nodes, lead)
					}
					id := f.nodes[gone].cfg.ID
					if old == "dead" {
						f.stop(gone, false)
						pass(t, 3*time.Second)
					}
					by := f.nodes[3].member()
					first := make(chan error, 1)
					c := lead.Cluster
					go func() { first <- c.ReplaceMember(t.Context(), id, by) }()
					pass(t, after)
					f.stop(slices.Index(f.nodes, lead), false)
					<-first
					if old == "dead" || old == "wiped" { // two of three are away: none can lead
						f.start(slices.Index(f.nodes, lead))
					}
					f.replaceUntilDone(id, by)
					if got := f.memberIDs(); len(got) != 3 || slices.Contains(got, id) ||
						!slices.Contains(got, "n3") {
						t.Errorf("after %s the voters are %v", after, got)
					}
					f.replaceUntilDone(id, by) // once more changes nothing
					f.leader().mustPropose(t, "b")
				})
			}
		})
	}
}

// One server hands its whole cluster over to another one.
func TestALoneMemberIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.nodes[0].mustPropose(t, "a")
		late := f.newcomer(1, "h0:1")
		f.replaceUntilDone("n0", late.member())
		f.stop(0, false)
		if got := f.memberIDs(); !slices.Equal(got, []string{"n1"}) {
			t.Errorf("the voters are %v", got)
		}
		late.mustPropose(t, "b")
		if late.machine.count("a") != 1 {
			t.Error("the state was lost")
		}
	})
}

// A removal is repeated by a client that does not know that it was done.
func TestARemovalThatIsRepeatedSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead := threeFounders(t)
		defer f.stopAll()
		follower := f.followers(lead)
		id := f.nodes[follower[0]].cfg.ID
		if err := lead.RemoveMember(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		pass(t, 2*time.Second)
		next := f.nodes[follower[1]]
		if err := lead.TransferLeadership(t.Context(), next.cfg.ID); err != nil {
			t.Fatal(err)
		}
		for _, nd := range []*node{next, f.leader()} {
			if err := nd.RemoveMember(t.Context(), id); err != nil {
				t.Errorf("the second time: %v", err)
			}
		}
		pass(t, 5*time.Second)
		f.stopAll()
		for _, i := range []int{slices.Index(f.nodes, lead), follower[1]} {
			f.start(i)
		}
		if err := f.leader().RemoveMember(t.Context(), id); err != nil {
			t.Errorf("long after, when all have been restarted: %v", err)
		}
		if err := f.leader().RemoveMember(t.Context(), "n9"); !errors.Is(err, ErrUnknownMember) {
			t.Errorf("a server that was no member: %v", err)
		}
	})
}

// Two removals that are both safe may not be safe together.
func TestChangesAtTheSameTimeLeaveALiveMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 4)
		lead := tr.leader()
		lead.mustPropose(t, "a")
		var others []string
		for _, nd := range tr.nodes {
			if nd != lead {
				others = append(others, nd.cfg.ID)
			}
		}
		dead := slices.IndexFunc(tr.nodes, func(nd *node) bool { return nd.cfg.ID == others[2] })
		_ = tr.nodes[dead].kill()
		pass(t, 2*time.Second)
		lead.membership.changing <- struct{}{} // another change is between its check and its end
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := lead.RemoveMember(ctx, others[0]); !errors.Is(err, context.DeadlineExceeded) ||
			voters(lead.Cluster) != 4 {
			t.Errorf("beside another change: %v", err)
		}
		<-lead.membership.changing
		removed := make(chan error, 2)
		for _, id := range others[:2] {
			go func() { removed <- lead.RemoveMember(t.Context(), id) }()
		}
		first, second := <-removed, <-removed
		// While the first one takes effect the leader may hear too few to be sure of itself.
		if refused := errors.Join(first, second); (first == nil) == (second == nil) ||
			!errors.Is(refused, ErrNoMajority) && !errors.Is(refused, ErrNotLeader) {
			t.Errorf("%v, %v", first, second)
		}
		pass(t, 5*time.Second)
		if n := voters(lead.Cluster); n != 3 {
			t.Errorf("%d voters are left", n)
		}
		lead.mustPropose(t, "b")
	})
}

// An addition that fails takes nobody's vote, whoever has given it meanwhile.
func TestAnAdditionThatFailsLateTakesNoVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		if err := lead.membership.takeBack(tr.follower().cfg.ID); err != nil {
			t.Error(err)
		}
		if n := voters(lead.Cluster); n != 3 {
			t.Errorf("%d voters", n)
		}
	})
}
