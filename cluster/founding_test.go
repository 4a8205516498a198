package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
	"quorate/cluster/internal/store"
	"quorate/internal/logbuffer"
	"quorate/internal/wait"
)

// founders are three servers of one list, with data directories that can be wiped.
type founders struct{ *trio }

func newFounders(t *testing.T) *founders {
	tr := &trio{t: t, net: clustertest.NewNetwork()}
	for i := range 3 {
		nd := &node{cfg: memoryConfig(tr.net, 3, i)}
		nd.cfg.DataDir = t.TempDir()
		tr.nodes = append(tr.nodes, nd)
	}
	return &founders{tr}
}

// stop ends a server, and wipes its disk if that is wanted.
func (f *founders) stop(i int, wipe bool) {
	if nd := f.nodes[i]; nd.Cluster != nil {
		_ = nd.kill()
		nd.Cluster = nil
	}
	if wipe {
		if err := os.RemoveAll(f.nodes[i].cfg.DataDir); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *founders) stopAll() {
	for i := range f.nodes {
		f.stop(i, false)
	}
}

// A founder of one that comes back with an empty disk, after its cluster has grown, founds no
// other cluster beside it.
func TestAFounderOfOneThatLostItsDiskFoundsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.nodes[0].cfg.Members = []Member{f.nodes[0].member()}
		for i := 1; i <= 2; i++ {
			f.newcomer(i, "h0:1")
			if err := f.nodes[0].AddMember(t.Context(), f.nodes[i].member()); err != nil {
				t.Fatal(err)
			}
		}
		f.stop(0, true)
		var log logbuffer.Buffer
		f.nodes[0].cfg.Disk = clustertest.NewMemoryDisk()
		f.nodes[0].cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f.start(0)
		pass(t, 2*time.Minute)
		if f.foundedAnew(0) || f.nodes[0].ClusterID() != "" {
			t.Error("it founded another cluster")
		}
		for _, want := range []string{"lost its disk", "cluster replace", f.nodes[1].ClusterID()} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, log.String())
			}
		}
		// It is replaced, and goes on founding nothing.
		by := f.newcomer(3, "h1:1")
		if err := f.leader().ReplaceMember(t.Context(), "n0", by.member()); err != nil {
			t.Fatal(err)
		}
		pass(t, time.Minute)
		if f.foundedAnew(0) {
			t.Error("it founded another cluster after it was replaced")
		}
	})
}

// foundedAnew reports whether a server leads, or has any entry.
func (f *founders) foundedAnew(i int) bool {
	return f.nodes[i].IsLeader() || !f.nodes[i].node.empty()
}

func pass(t *testing.T, d time.Duration) {
	if err := wait.Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func TestThreeEmptyServersFoundOneCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFounders(t)
		defer f.stopAll()
		f.start(0)
		f.start(1)
		pass(t, time.Minute)
		if f.foundedAnew(0) || f.foundedAnew(1) {
			t.Fatal("two of three founded a cluster")
		}
		f.start(2)
		begun := time.Now()
		f.leader().mustPropose(t, "a")
		if d := time.Since(begun); d > listenFirst+time.Second {
			t.Errorf("founded %s after the last member came", d)
		}
		id := f.nodes[0].ClusterID()
		for _, nd := range f.nodes {
			if nd.ClusterID() != id || id == "" {
				t.Errorf("%s is of cluster %q, not %q", nd.cfg.ID, nd.ClusterID(), id)
			}
		}
	})
}

// A wiped majority must not found an empty cluster beside the state of the minority.
func TestWipedServersFoundNothing(t *testing.T) {
	for name, away := range map[string]bool{"third is there": false, "third is away": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFounders(t)
				defer f.stopAll()
				for i := range 3 {
					f.start(i)
				}
				f.leader().mustPropose(t, "a")
				pass(t, time.Second)
				id := f.nodes[2].ClusterID()
				f.stop(0, true)
				f.stop(1, true)
				if away {
					f.stop(2, false)
				}
				f.start(0)
				f.start(1)
				pass(t, time.Minute)
				if away {
					f.start(2)
				}
				pass(t, 10*time.Minute)
				for i := range 2 {
					if f.foundedAnew(i) || f.nodes[i].ClusterID() == id {
						t.Errorf("%s serves an empty state", f.nodes[i].cfg.ID)
					}
				}
				if f.nodes[2].machine.count("a") != 1 && !away {
					t.Error("the survivor has lost its state")
				}
			})
		})
	}
}

// A server with the state of a cluster of one is not overruled by empty ones that name it.
func TestAnOldStateIsNotPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFounders(t)
		defer f.stopAll()
		list := f.nodes[0].cfg.Members
		f.nodes[0].cfg.Members = nil
		f.start(0)
		eventuallyVirtual(t, func() bool { return f.nodes[0].IsLeader() })
		f.nodes[0].mustPropose(t, "a")
		f.stop(0, false)
		f.nodes[0].cfg.Members = list
		for i := range 3 {
			f.start(i)
		}
		pass(t, time.Minute)
		if f.foundedAnew(1) || f.foundedAnew(2) {
			t.Fatal("the empty servers founded a cluster without the old state")
		}
		old := f.nodes[0]
		if !old.IsLeader() {
			t.Fatal("the server with the state does not lead its cluster of one")
		}
		// The cluster of one grows to three without a restore.
		for i := 1; i < 3; i++ {
			if err := old.AddMember(t.Context(), list[i]); err != nil {
				t.Fatal(err)
			}
		}
		old.mustPropose(t, "b")
		if err := f.nodes[2].ReadBarrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.nodes[2].machine.count("a") != 1 || f.nodes[2].machine.count("b") != 1 {
			t.Error("the newcomer lacks entries")
		}
	})
}

func eventuallyVirtual(t *testing.T, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		pass(t, 10*time.Millisecond)
	}
	t.Fatal("not within ten seconds")
}

// A server with a state of its own cannot be added: raft would take the two logs for one.
func TestAServerWithStateIsNotAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFounders(t)
		defer f.stopAll()
		list := f.nodes[0].cfg.Members
		for i := range 2 {
			f.nodes[i].cfg.Members = nil
			f.start(i)
			eventuallyVirtual(t, f.nodes[i].IsLeader)
		}
		begun := time.Now()
		err := f.nodes[0].AddMember(t.Context(), list[1])
		if !errors.Is(err, ErrClusterMismatch) {
			t.Errorf("added a server of another cluster: %v", err)
		}
		if err := f.nodes[0].AddMember(t.Context(), list[2]); err == nil {
			t.Error("added a server that is not there")
		}
		if d := time.Since(begun); d > 2*greetingTimeout {
			t.Errorf("answered after %s", d)
		}
		if n := len(f.nodes[0].Members()); n != 1 {
			t.Errorf("%d members", n)
		}
	})
}

func TestAnEmptyDiskDoesNotFoundANamedCluster(t *testing.T) {
	for _, members := range [][]Member{nil, {{ID: "n0", RaftAddr: "127.0.0.1:0"}}} {
		_, err := Open(context.Background(), Config{
			ID: "n0", DataDir: t.TempDir(), RaftListen: "127.0.0.1:0", ClusterID: "another",
			Members: members,
		}, &ledger{})
		if !errors.Is(err, ErrClusterMismatch) {
			t.Errorf("founded the cluster of somebody else: %v", err)
		}
	}
}

// The removal of a healthy voter while another is dead, or does not answer, would end the
// cluster. A connection to a host that is gone without a word stays up for long.
func TestNoChangeTakesTheLiveMajorityAway(t *testing.T) {
	for name, lose := range map[string]func(f *founders, i int){
		"dead":    func(f *founders, i int) { f.stop(i, false) },
		"cut off": func(f *founders, i int) { f.net.Partition([]string{fmt.Sprintf("h%d", i)}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, lead := threeFounders(t)
				defer f.stopAll()
				lead.mustPropose(t, "a")
				others := f.followers(lead)
				healthy, lost := f.nodes[others[0]].cfg.ID, others[1]
				lose(f, lost)
				pass(t, 5*time.Second)
				err := lead.RemoveMember(t.Context(), healthy)
				if !errors.Is(err, ErrNoMajority) {
					t.Fatalf("removed the other living voter: %v", err)
				}
				if err := lead.RemoveMember(t.Context(), f.nodes[lost].cfg.ID); err != nil {
					t.Fatal(err)
				}
				if err := lead.RemoveMember(t.Context(), healthy); err != nil {
					t.Fatal(err)
				}
				lead.mustPropose(t, "b")
				f.net.Heal()
			})
		})
	}
}

// A member that is connected, and says that it cannot take part, counts for no majority,
// until it says something else.
func TestWhoSaysThatItCannotWriteIsNoMajority(t *testing.T) {
	for name, c := range map[string]struct {
		report peerReport
		refuse bool
	}{
		"well": {peerReport{}, false}, "sick": {peerReport{Sick: true}, true},
		"diverged": {peerReport{Diverged: "it differs"}, true}, "empty": {peerReport{Empty: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &link{id: "b", out: newOutbox()}
				m := &membership{
					node:  &raftNode{id: "a"},
					peers: &peers{links: map[string]*peerLink{"b": {link: l}}},
				}
				check := func() error {
					l.seen.Store(time.Now().Add(2 * reportInterval).UnixNano())
					return m.checkMajority(t.Context(), []string{"a", "b"})
				}
				l.report.Store(&c.report)
				if err := check(); errors.Is(err, ErrNoMajority) != c.refuse {
					t.Error(err)
				}
				time.AfterFunc(reportInterval, func() { l.report.Store(&peerReport{}) })
				if err := check(); err != nil {
					t.Errorf("a moment before it takes part: %v", err)
				}
			})
		})
	}
}

// A server that lost its log has forgotten its votes and entries, whatever else of its
// directory is there.
func TestALostLogIsNoEmptyDisk(t *testing.T) {
	for name, lose := range map[string]func(file string) error{
		"removed": os.Remove,
		"emptied": func(file string) error { return os.Truncate(file, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir(), RaftListen: "127.0.0.1:0"}
			c, err := Open(context.Background(), cfg, &ledger{})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "leads", c.IsLeader)
			if err := c.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := lose(filepath.Join(cfg.DataDir, store.LogFile)); err != nil {
				t.Fatal(err)
			}
			if err := openDirErr(t, cfg); !errors.Is(err, ErrCorrupt) {
				t.Errorf("founded a cluster over a lost log: %v", err)
			}
		})
	}
}
