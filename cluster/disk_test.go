package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/clustertest"
	"quorate/cluster/internal/store"
)

func TestHungDiskGivesWayWithinASecondAndDoesNotWinWhileSick(t *testing.T) {
	for _, load := range []string{"idle", "writing"} {
		t.Run(load, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := startMemory(t, 3)
				old := tr.leader()
				lost := make(chan time.Time, 1)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go func() {
					_ = old.RunWhileLeader(ctx, func(lctx context.Context, _ uint64) error {
						<-lctx.Done()
						lost <- time.Now()
						return nil
					})
				}()
				synctest.Wait()
				began := time.Now()
				old.disk.Hang()
				if load == "writing" {
					c := old.Cluster
					go func() {
						if _, err := c.Propose(ctx, []byte("in flight")); !errors.Is(err,
							ErrOutcomeUnknown) && !errors.Is(err, ErrNotLeader) {
							t.Errorf("a write on a hung disk returned %v", err)
						}
					}()
				}
				var next *node
				eventually(t, "another leader", func() bool {
					for _, nd := range tr.nodes {
						if nd != old && nd.IsLeader() {
							_, err := nd.Propose(ctx, []byte("after"))
							if err == nil {
								next = nd
							}
						}
					}
					return next != nil
				})
				took := time.Since(began)
				t.Logf("the next leader wrote after %v, the lead ended after %v", took,
					(<-lost).Sub(began))
				if took > time.Second {
					t.Errorf("giving way took %v", took)
				}
				// The healthy leader goes; the sick one must not follow it.
				for range 20 {
					time.Sleep(100 * time.Millisecond)
					if old.IsLeader() || old.node.raft().State() == raft.Leader {
						t.Fatal("the sick server leads")
					}
				}
				old.disk.Resume()
				eventually(t, "the sick server catches up",
					func() bool { return old.machine.count("after") == 1 })
				if n := next.machine.count("in flight"); n > 1 ||
					n != old.machine.count("in flight") {
					t.Errorf("replicas differ about the write that hung")
				}
			})
		})
	}
}

// When all disks hang at once no server is healthier, and waiting for the recovery
// time would only make the outage longer.
func TestServersWhoseDisksAllHungForAMomentElectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		for _, nd := range tr.nodes {
			nd.disk.Hang()
		}
		if _, err := lead.Propose(t.Context(), []byte("in flight")); err == nil {
			t.Fatal("a write on a hung disk was acknowledged")
		}
		time.Sleep(200 * time.Millisecond)
		for _, nd := range tr.nodes {
			nd.disk.Resume()
		}
		began := time.Now()
		eventually(t, "a leader that writes", func() bool {
			for _, nd := range tr.nodes {
				if nd.IsLeader() {
					if _, err := nd.Propose(t.Context(), []byte("again")); err == nil {
						return true
					}
				}
			}
			return false
		})
		recovery := tr.nodes[0].node.timeouts.Recovery
		if took := time.Since(began); took >= recovery {
			t.Errorf(
				"the first write took %v after the disks worked again, the recovery time is %v",
				took, recovery)
		}
	})
}

func TestFullDiskGivesWayAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		old := tr.leader()
		old.disk.Fail(syscall.ENOSPC)
		_, err := old.Propose(context.Background(), []byte("full"))
		if err == nil {
			t.Fatal("wrote to a full disk")
		}
		eventually(t, "another leader", func() bool {
			for _, nd := range tr.nodes {
				if nd != old && nd.IsLeader() {
					return nd.reads.verifyLead(context.Background()) == nil
				}
			}
			return false
		})
		tr.leader().mustPropose(t, "elsewhere")
		select {
		case err := <-old.Fatal():
			t.Fatalf("a full disk is fatal: %v", err)
		default:
		}
		old.disk.Fail(nil)
		eventually(t, "it catches up", func() bool { return old.machine.count("elsewhere") == 1 })
	})
}

func TestADiskThatRefusesWritesIsFatalAndNotAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		old := tr.leader()
		old.disk.Fail(syscall.EIO)
		select {
		case err := <-old.Fatal():
			if !errors.Is(err, ErrDisk) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing was reported")
		}
		eventually(t, "another leader", func() bool { return tr.leader() != old })
	})
}

func openDirErr(t *testing.T, cfg Config) error {
	t.Helper()
	c, err := Open(context.Background(), cfg, &ledger{})
	if err == nil {
		_ = c.Close(context.Background())
	}
	return err
}

func TestDataDirectoryRefusals(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), RaftListen: "127.0.0.1:0"}
	c, err := Open(context.Background(), cfg, &ledger{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "leads", c.IsLeader)
	if _, err := c.Propose(context.Background(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := openDirErr(t, cfg); !errors.Is(err, ErrDataDirInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := c.SetClusterID("two"); !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("changed the cluster: %v", err)
	}
	id := c.ID()
	if err := c.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	other := cfg
	other.ClusterID = "two"
	if err := openDirErr(t, other); !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("opened another cluster's directory: %v", err)
	}
	other = cfg
	other.ID = "somebody-else"
	if err := openDirErr(t, other); err == nil {
		t.Error("opened another server's directory")
	}
	c, err = Open(context.Background(), cfg, &ledger{})
	if err != nil || c.ID() != id {
		t.Fatalf("id %q became %q (%v)", id, c.ID(), err)
	}
	_ = c.Close(context.Background())
	wiped := cfg
	wiped.DataDir = t.TempDir()
	c, err = Open(context.Background(), wiped, &ledger{})
	if err != nil || c.ID() == id {
		t.Fatalf("a wiped disk kept the id (%v)", err)
	}
	_ = c.Close(context.Background())
}

func TestCorruptFilesAreRefusedByName(t *testing.T) {
	seed := t.TempDir()
	cfg := Config{DataDir: seed, RaftListen: "127.0.0.1:0"}
	c, err := Open(context.Background(), cfg, &ledger{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "leads", c.IsLeader)
	for i := range 200 {
		if _, err := c.Propose(context.Background(),
			[]byte(strings.Repeat("x", 1000)+seqRow(0, i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.node.raft().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	_ = c.Close(context.Background())

	for name, damage := range damages() {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(seed)); err != nil {
				t.Fatal(err)
			}
			file := damage(t, dir)
			bad := cfg
			bad.DataDir = dir
			err := openDirErr(t, bad)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) ||
				!strings.Contains(err.Error(), "move the data directory away") {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// newestSnapshot finds a file of the only snapshot in a data directory.
func newestSnapshot(dir, name string) string {
	found, _ := filepath.Glob(filepath.Join(dir, store.SnapshotDir, "*", name))
	return found[0]
}

func overwrite(t *testing.T, file string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(with, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// damages lists ways to damage a data directory; each returns the file it damaged.
func damages() map[string]func(t *testing.T, dir string) string {
	garbage := []byte(strings.Repeat("\xa5", 4096))
	return map[string]func(t *testing.T, dir string) string{
		"log meta pages": func(t *testing.T, dir string) string {
			f := filepath.Join(dir, store.LogFile)
			overwrite(t, f, 0, append(garbage, garbage...))
			return f
		},
		"log cut off": func(t *testing.T, dir string) string {
			f := filepath.Join(dir, store.LogFile)
			if err := os.Truncate(f, 20000); err != nil {
				t.Fatal(err)
			}
			return f
		},
		"a flipped byte in an entry": func(t *testing.T, dir string) string {
			f := filepath.Join(dir, store.LogFile)
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			at := strings.LastIndex(string(b), seqRow(0, 150))
			for ; at >= 0; at = strings.LastIndex(string(b[:at]), seqRow(0, 150)) {
				overwrite(t, f, int64(at), []byte("Z"))
			}
			return f
		},
		"snapshot meta": func(t *testing.T, dir string) string {
			f := newestSnapshot(dir, "meta.json")
			overwrite(t, f, 0, []byte("!"))
			return f
		},
		"snapshot state": func(t *testing.T, dir string) string {
			f := newestSnapshot(dir, "state.bin")
			overwrite(t, f, 50, []byte("!"))
			return f
		},
		"server id": func(t *testing.T, dir string) string {
			f := filepath.Join(dir, "server_id")
			overwrite(t, f, 0, []byte("\x00\x01"))
			return f
		},
		"server id gone": func(t *testing.T, dir string) string {
			f := filepath.Join(dir, "server_id")
			_ = os.Remove(f)
			return f
		},
	}
}

func TestAMemberThatLostItsDiskIsRefused(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{Heartbeat: 250 * time.Millisecond})
	lead := tr.leader()
	lead.mustPropose(t, "a")
	for _, nd := range tr.nodes {
		if err := nd.ReadBarrier(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	nd := tr.follower()
	i := int(nd.ID()[1] - '0')
	_ = nd.kill()
	nd.cfg.DataDir = t.TempDir()
	tr.start(i)
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	if err := nd.ReadBarrier(ctx); err == nil {
		t.Fatal("a member with an empty disk was taken for its former self")
	}
	tr.leader().mustPropose(t, "b")
	if nd.machine.count("b") != 0 {
		t.Fatal("it was given entries")
	}
}

func TestAServerWhoseDiskJustRecoveredDoesNotWin(t *testing.T) {
	for range 8 {
		synctest.Test(t, func(t *testing.T) {
			tr := &trio{t: t, net: clustertest.NewNetwork()}
			for i := range 3 {
				nd := &node{cfg: memoryConfig(tr.net, 3, i), disk: clustertest.NewMemoryDisk()}
				nd.cfg.Disk, nd.cfg.DisableCrashDetector = nd.disk, true
				tr.nodes = append(tr.nodes, nd)
				tr.start(i)
			}
			defer tr.close()
			sick := tr.leader()
			sick.disk.Hang()
			eventually(t, "it gives way",
				func() bool { return sick.node.raft().State() != raft.Leader })
			second := tr.leader()
			sick.disk.Resume()
			tr.net.Kill("h" + second.ID()[1:])
			_ = second.kill()
			if third := tr.leader(); third == sick {
				t.Error("the server that had just been sick won")
			}
		})
	}
}
