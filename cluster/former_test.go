package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/internal/datadir"
	"quorate/internal/logbuffer"
)

// grownFromOne is a founder of one whose cluster has grown to three, with a write.
func grownFromOne(t *testing.T) *founders {
	f := lone(t)
	for i := 1; i <= 2; i++ {
		f.newcomer(i, "h0:1")
		if err := f.nodes[0].AddMember(t.Context(), f.nodes[i].member()); err != nil {
			t.Fatal(err)
		}
	}
	f.nodes[0].mustPropose(t, "a")
	pass(t, time.Second)
	return f
}

// wipedFirst stops all, empties the disk of the founder, and starts that alone.
func (f *founders) wipedFirst() (wiped *node, log *logbuffer.Buffer) {
	f.stopAll()
	f.stop(0, true)
	log = &logbuffer.Buffer{}
	f.nodes[0].cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	return f.start(0), log
}

// silent demands that a server answers nothing, takes nothing, and says why.
func (nd *node) silent(t *testing.T, when string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if nd.IsLeader() {
		t.Errorf("%s: it leads", when)
	}
	if err := nd.ReadBarrier(ctx); err == nil {
		t.Errorf("%s: it answers a read", when)
	}
	if _, err := nd.Propose(ctx, []byte("b")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("%s: it takes a write: %v", when, err)
	}
	if err := nd.AddMember(ctx, Member{"n9", "h9:1"}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("%s: it adds a member: %v", when, err)
	}
	for _, w := range words {
		if why := nd.OutOfService(); !strings.Contains(why, w) {
			t.Errorf("%s: the reason lacks %q: %s", when, w, why)
		}
		if why := nd.Leaderless(); !strings.Contains(why, w) {
			t.Errorf("%s: why there is no leader lacks %q: %s", when, w, why)
		}
	}
}

// A founder of one whose cluster has grown, that lost its disk and starts before the others,
// may found another cluster. It does not serve that beside the others.
func TestAWipedFounderThatStartsFirstServesNothing(t *testing.T) {
	for _, tc := range []struct {
		late   time.Duration // when others come
		others []int
		founds bool
	}{
		{2 * time.Second, []int{1, 2}, false},
		{2900 * time.Millisecond, []int{1}, false},
		{10 * time.Second, []int{1, 2}, true},
		{10 * time.Second, []int{2}, true},
	} {
		t.Run(tc.late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := grownFromOne(t)
				defer f.stopAll()
				old := f.nodes[1].ClusterID()
				wiped, log := f.wipedFirst()
				pass(t, tc.late)
				if wiped.IsLeader() != tc.founds {
					t.Fatalf("it founded a cluster: %v", wiped.IsLeader())
				}
				for _, i := range tc.others {
					f.start(i)
				}
				pass(t, 2*time.Second)
				way := []string{old, "lost its disk", "n0", "--server-id", "--join h", ":1",
					"cluster replace n0 NEW-ID"}
				wiped.silent(t, "when others are there", way...)
				if tc.founds {
					way = append(way, wiped.ClusterID(), "rescue")
				}
				for _, w := range way {
					if !strings.Contains(log.String(), w) {
						t.Errorf("the log lacks %q:\n%s", w, log.String())
					}
				}
				// What it has heard holds when the others are away, and it starts anew.
				for _, i := range tc.others {
					f.stop(i, false)
				}
				pass(t, time.Minute)
				wiped.silent(t, "when the others are away again", way...)
				f.stop(0, false)
				f.start(0)
				pass(t, time.Minute)
				wiped.silent(t, "after a restart", way...)
			})
		})
	}
}

// A list of members need not have those who know that a server of it has lost its disk. They
// call it all the same.
func TestAWipedMemberFoundsNothingWithOthers(t *testing.T) {
	for name, other := range map[string]string{
		"it would found":    "n2",
		"it would be asked": "a", // by the first of the list
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := lone(t)
				defer f.stopAll()
				f.newcomer(1, "h0:1")
				if err := f.nodes[0].AddMember(t.Context(), f.nodes[1].member()); err != nil {
					t.Fatal(err)
				}
				old := f.nodes[1].ClusterID()
				f.stop(0, true)
				fresh := f.empty(2)
				fresh.cfg.ID = other
				list := []Member{f.nodes[0].member(), fresh.member()}
				for _, i := range []int{0, 2} {
					f.nodes[i].cfg.Members = list
					f.start(i)
				}
				pass(t, time.Minute)
				for _, i := range []int{0, 2} {
					if f.foundedAnew(i) || f.nodes[i].ClusterID() != "" {
						t.Errorf("%s founded another cluster", f.nodes[i].cfg.ID)
					}
				}
				if why := f.nodes[0].OutOfService(); !strings.Contains(why, old) ||
					!strings.Contains(why, "cluster replace n0 NEW-ID") {
					t.Errorf("no way out: %s", why)
				}
			})
		})
	}
}

// The way out that a wiped founder names, at the address that it had.
func TestAWipedFounderIsReplacedAtItsAddress(t *testing.T) {
	for _, standby := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := grownFromOne(t)
			defer f.stopAll()
			old := 0
			if standby {
				old = 3
				f.newcomer(3, "h0:1")
				if err := f.leader().AddStandby(t.Context(), f.nodes[3].member()); err != nil {
					t.Fatal(err)
				}
			}
			f.stop(old, true)
			id, at := f.nodes[old].cfg.ID, f.nodes[old].cfg
			by := f.empty(4, "h1:1")
			by.cfg.RaftListen, by.cfg.Network = at.RaftListen, at.Network
			by = f.start(len(f.nodes) - 1)
			pass(t, 3*time.Second)
			lead := f.leader()
			if err := lead.AddMember(t.Context(), by.member()); !errors.Is(err, ErrRefused) ||
				!strings.Contains(err.Error(), "cluster replace "+id+" n4") {
				t.Errorf("added at the address of a member: %v", err)
			}
			if err := lead.ReplaceMember(t.Context(), id, by.member()); err != nil {
				t.Fatal(err)
			}
			if m := f.leader().listed("n4"); m.ID == "" || m.Voter == standby {
				t.Errorf("it is listed as %+v", m)
			}
			if m := f.leader().listed(id); m.ID != "" {
				t.Error("the old one is a member")
			}
			if !standby { // it can be repeated
				if err := f.leader().ReplaceMember(t.Context(), id, by.member()); err != nil {
					t.Error(err)
				}
			}
			eventually(t, "it has the state", func() bool { return by.machine.count("a") == 1 })
			if err := by.ReadBarrier(t.Context()); err != nil || by.OutOfService() != "" {
				t.Errorf("it does not serve: %v, %s", err, by.OutOfService())
			}
		})
	}
}

// dialAsMember greets a server as one of another cluster that has a member there.
func (f *founders) dialAsMember(addr, expects string) {
	f.t.Helper()
	c, err := f.net.Host("h8").Dial(f.t.Context(), addr)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	if err := writeGreeting(c, append([]byte(preambleMagic), tagPeer), greeting{
		Cluster: "another", ID: "n8", Raft: "h8:1", Disk: "d", Expects: expects,
	}); err != nil {
		f.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c)
}

// Only a cluster that was founded here, and never had another member, is concerned.
func TestWhoHasHadOtherMembersIsNotTakenForAWipedFounder(t *testing.T) {
	serves := func(t *testing.T, nd *node) {
		t.Helper()
		pass(t, 5*time.Second)
		if err := nd.ReadBarrier(t.Context()); err != nil || nd.OutOfService() != "" {
			t.Errorf("it is out of service: %v, %s", err, nd.OutOfService())
		}
		nd.mustPropose(t, "b")
	}
	t.Run("it has members", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := grownFromOne(t)
			defer f.stopAll()
			f.dialAsMember("h0:1", "n0")
			serves(t, f.leader())
		})
	})
	t.Run("it had members", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := grownFromOne(t)
			defer f.stopAll()
			for i := 1; i <= 2; i++ {
				if err := f.nodes[0].RemoveMember(t.Context(), f.nodes[i].cfg.ID); err != nil {
					t.Fatal(err)
				}
				f.stop(i, false)
			}
			f.dialAsMember("h0:1", "n0")
			serves(t, f.nodes[0])
			f.stop(0, false)
			f.start(0)
			eventuallyVirtual(t, f.nodes[0].IsLeader)
			f.dialAsMember("h0:1", "n0")
			serves(t, f.nodes[0])
		})
	})
	t.Run("the stranger has no member there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := lone(t)
			defer f.stopAll()
			f.dialAsMember("h0:1", "")
			f.dialAsMember("h0:1", "not an id")
			other := f.newcomer(1)
			eventuallyVirtual(t, other.IsLeader)
			if err := other.AddMember(t.Context(), f.nodes[0].member()); err == nil {
				t.Error("a server of another cluster was added")
			}
			serves(t, f.nodes[0])
		})
	})
	t.Run("it was founded by several", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, lead := threeFounders(t)
			defer f.stopAll()
			for _, nd := range f.nodes {
				f.dialAsMember(nd.cfg.RaftListen, nd.cfg.ID)
			}
			serves(t, lead)
		})
	})
	t.Run("it was made of a survivor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := grownFromOne(t)
			defer f.stopAll()
			f.stopAll()
			f.rescue(0)
			f.start(0)
			f.start(1) // it has n0 as its member
			serves(t, f.nodes[0])
			f.dialAsMember("h0:1", "n0")
			serves(t, f.nodes[0])
		})
	})
}

// rescue makes a cluster of one of what a server has on its disk.
func (f *founders) rescue(i int) {
	f.t.Helper()
	s, err := OpenSurvivor(f.nodes[i].cfg.DataDir)
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.Close()
	m := &ledger{}
	if err := s.Replay(f.t.Context(), m); err != nil {
		f.t.Fatal(err)
	}
	state, err := m.Snapshot()
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := s.Found(NewCluster{ClusterID: "rescued", State: state}); err != nil {
		f.t.Fatal(err)
	}
}

// A stranger that lies takes a cluster of one out of service. Nothing of it is lost: what
// is on the disk can be saved, and a rescue brings it back for good.
func TestAClusterThatAStrangerTakesForItsOwnIsRescued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.nodes[0].mustPropose(t, "a")
		f.dialAsMember("h0:1", "n0")
		f.nodes[0].silent(t, "after the lie", "rescue")
		if _, err := f.nodes[0].OpenSnapshot(t.Context(), SaveNewest); !errors.Is(err,
			ErrFormerMember) {
			t.Errorf("saved as if it were the state of the cluster: %v", err)
		}
		if s, err := f.nodes[0].OpenSnapshot(t.Context(), SaveStale); err != nil {
			t.Error(err)
		} else {
			s.Close()
		}
		f.stop(0, false)
		s, err := OpenSurvivor(f.nodes[0].cfg.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckOthersGone(nil); !errors.Is(err, ErrMembersAnswer) ||
			!strings.Contains(err.Error(), "n8 at h8:1 of cluster another") {
			t.Errorf("nobody is warned: %v", err)
		}
		s.Close()
		f.rescue(0)
		f.start(0)
		eventuallyVirtual(t, f.nodes[0].IsLeader)
		f.dialAsMember("h0:1", "n0")
		f.nodes[0].mustPropose(t, "b")
		if f.nodes[0].machine.count("a") != 1 || f.nodes[0].OutOfService() != "" {
			t.Error("the state is not there, or not served")
		}
	})
}

// With certificates only a server that its own one names is believed.
func TestOnlyAProvedServerTakesAnotherForItsMember(t *testing.T) {
	ca := newAuthority(t)
	c, err := Open(t.Context(), Config{
		ID: "n0", DataDir: t.TempDir(), RaftListen: "127.0.0.1:0", TLS: ca.of("n0"),
	}, &ledger{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	eventually(t, "it leads", c.IsLeader)
	eventually(t, "its founding is applied", c.former.concerned)
	lie := greeting{Cluster: "another", ID: "n8", Raft: "127.0.0.1:1", Expects: "n0"}
	for _, tc := range []struct {
		certificate *tls.Config
		heard       bool
	}{
		{ca.of("x"), false},
		{newAuthority(t).of("n8"), false},
		{ca.of("n8"), true},
	} {
		s := strangersStreams(lie, tc.certificate)
		if _, _, err := s.dial(t.Context(), c.streams.Addr().String(), tagPeer); err == nil {
			t.Error("a server of another cluster is welcome")
		}
		if why := c.OutOfService(); (why != "") != tc.heard || c.IsLeader() == tc.heard {
			t.Errorf("leads: %v, out of service: %q, and should be heard: %v", c.IsLeader(), why,
				tc.heard)
		}
	}
}

func TestAFormerClusterIsReadBack(t *testing.T) {
	dir, err := datadir.Lock(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if of, err := dir.FormerCluster(); of != nil || err != nil {
		t.Errorf("%v, %v", of, err)
	}
	want := datadir.FormerCluster{
		Own: "x", Cluster: "c", Member: "n0", Server: "n1", RaftAddr: "h1:1",
	}
	if err := dir.SetFormerCluster(want); err != nil {
		t.Fatal(err)
	}
	if of, err := dir.FormerCluster(); err != nil || *of != want {
		t.Errorf("%v, %v", of, err)
	}
	name := filepath.Join(dir.Path(), "former_cluster.json")
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.FormerCluster(); !errors.Is(err, datadir.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}
