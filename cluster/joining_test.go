package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
	"quorate/internal/logbuffer"
)

// newcomer starts an empty server that is to join through the given addresses.
func (f *founders) newcomer(i int, join ...string) *node {
	f.t.Helper()
	f.empty(i, join...)
	return f.start(len(f.nodes) - 1)
}

// empty is a newcomer that has not been started.
func (f *founders) empty(i int, join ...string) *node {
	host := fmt.Sprintf("h%d", i)
	nd := &node{cfg: Config{
		ID: fmt.Sprintf("n%d", i), RaftListen: host + ":1", HTTPAddr: "http://" + host,
		Network: f.net.Host(host), DataDir: f.t.TempDir(), Join: join, Version: "v1",
	}}
	f.nodes = append(f.nodes, nd)
	return nd
}

// lone is a cluster of one.
func lone(t *testing.T) *founders {
	f := newFounders(t)
	f.nodes = f.nodes[:1]
	f.nodes[0].cfg.Members = nil
	f.start(0)
	eventuallyVirtual(t, f.nodes[0].IsLeader)
	return f
}

func (nd *node) member() Member { return Member{ID: nd.cfg.ID, RaftAddr: nd.cfg.RaftListen} }

func (nd *node) listed(id string) MemberStatus {
	for _, m := range nd.Members() {
		if m.ID == id {
			return m
		}
	}
	return MemberStatus{}
}

func TestANewcomerWaitsForItsInvitation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.nodes[0].mustPropose(t, "a")
		var log logbuffer.Buffer
		late := &node{cfg: Config{
			ID: "n1", RaftListen: "h1:1", HTTPAddr: "http://h1", Network: f.net.Host("h1"),
			DataDir: t.TempDir(), Disk: clustertest.NewMemoryDisk(),
			Join: []string{"h7:1", "h0:1"}, Version: "v1",
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}}
		f.nodes = append(f.nodes, late)
		f.start(1)
		pass(t, 3*time.Minute)
		if f.foundedAnew(1) || late.ClusterID() != "" || len(f.nodes[0].Members()) != 1 {
			t.Fatal("it became a member of something without an invitation")
		}
		for _, want := range []string{
			"waiting for an invitation", "cluster add n1 h1:1", f.nodes[0].ClusterID(), "h7:1",
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if n := strings.Count(log.String(), "waiting for an invitation"); n > 4 {
			t.Errorf("said %d times in three minutes what it waits for", n)
		}
		want := []Applicant{{Member: late.member(), HTTPAddr: "http://h1"}}
		if got := f.nodes[0].Applicants(); !slices.Equal(got, want) {
			t.Errorf("the member knows of %v", got)
		}
		if err := f.nodes[0].AddMember(t.Context(), late.member()); err != nil {
			t.Fatal(err)
		}
		if err := late.ReadBarrier(t.Context()); err != nil || late.machine.count("a") != 1 {
			t.Errorf("it lacks the state: %v", err)
		}
		pass(t, time.Minute)
		got := f.nodes[0].listed("n1")
		if !got.Voter || got.Version != "v1" || got.Uptime < 4*time.Minute {
			t.Errorf("listed as %+v", got)
		}
		if len(f.nodes[0].Applicants()) > 0 || !strings.Contains(log.String(), "is a voter now") {
			t.Error("it still waits, or does not say that it has joined")
		}
	})
}

// The leader need not be named: a server that waits tells all members.
func TestANewcomerIsKnownToMembersThatItWasNotToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFounders(t)
		defer f.stopAll()
		for i := range 3 {
			f.start(i)
		}
		lead := f.leader()
		follower := slices.IndexFunc(f.nodes, func(nd *node) bool { return nd != lead })
		f.newcomer(3, f.nodes[follower].cfg.RaftListen)
		pass(t, 3*time.Second)
		if got := lead.Applicants(); len(got) != 1 || got[0].ID != "n3" {
			t.Errorf("the leader knows of %v", got)
		}
		f.stop(3, false)
		pass(t, 2*applicationKept)
		if got := lead.Applicants(); len(got) != 0 {
			t.Errorf("one that is gone still waits: %v", got)
		}
	})
}

func TestAServerWithAStateJoinsNoOtherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.newcomer(1)
		eventuallyVirtual(t, f.nodes[1].IsLeader)
		f.stop(1, false)
		cfg := f.nodes[1].cfg
		cfg.Join = []string{"h9:1", "h0:1"}
		begun := time.Now()
		c, err := Open(context.Background(), cfg, &ledger{})
		if !errors.Is(err, ErrClusterMismatch) || !strings.Contains(err.Error(), "without --join") {
			t.Errorf("started with the state of another cluster: %v", err)
		}
		if c != nil {
			_ = c.Close(context.Background())
		}
		if d := time.Since(begun); d > 2*contradictionLimit {
			t.Errorf("looked for %s", d)
		}
		// A member may be restarted with the flag that it joined with.
		f.newcomer(2, "h0:1")
		if err := f.nodes[0].AddMember(t.Context(), f.nodes[2].member()); err != nil {
			t.Fatal(err)
		}
		f.stop(2, false)
		f.start(2)
		if err := f.nodes[2].ReadBarrier(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Ids that a disk contradicts are refused with a way out.
func TestIdsThatTheDiskContradictsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.stop(0, false)
		cfg := f.nodes[0].cfg
		for flag, change := range map[string]func(*Config){
			"--server-id":  func(c *Config) { c.ID = "n7" },
			"--cluster-id": func(c *Config) { c.ClusterID = "another" },
		} {
			wrong := cfg
			change(&wrong)
			c, err := Open(context.Background(), wrong, &ledger{})
			if err == nil {
				_ = c.Close(context.Background())
				t.Fatalf("%s is not refused", flag)
			}
			if !strings.Contains(err.Error(), "correct "+flag) ||
				!strings.Contains(err.Error(), "empty directory") {
				t.Errorf("%s: no way out: %v", flag, err)
			}
		}
	})
}

func TestFoundingAndJoiningContradictEachOther(t *testing.T) {
	_, err := Open(context.Background(), Config{
		ID: "n0", DataDir: t.TempDir(), RaftListen: "127.0.0.1:0", Join: []string{"127.0.0.1:1"},
		Members: []Member{{ID: "n0", RaftAddr: "127.0.0.1:0"}},
	}, &ledger{})
	if !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("got %v", err)
	}
}
