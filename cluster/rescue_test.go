package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// survivor is the data directory of one of three servers, with a snapshot, entries after
// it, and one that was never committed.
func survivor(t *testing.T) (cfg Config, rows []string) {
	t.Helper()
	tr := startTCP(t, 3, Timeouts{})
	lead := tr.leader()
	for i := range 10 {
		rows = append(rows, seqRow(0, i))
		lead.mustPropose(t, rows[i])
		if i == 4 {
			if err := lead.node.raft().Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cfg = lead.cfg
	for _, nd := range tr.nodes {
		_ = nd.Close(context.Background())
	}
	s, err := store.Bolt{Logger: raftLogger(slog.New(slog.DiscardHandler))}.Open(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.Log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	rows = append(rows, "uncommitted")
	err = s.Log.StoreLog(&raft.Log{
		Index: last + 1, Term: 1000, Type: raft.LogCommand,
		Data: encodeFrame([][]byte{[]byte("uncommitted")}),
	})
	if err := errors.Join(err, s.Stable.SetUint64([]byte("CurrentTerm"), 1000),
		s.Closer.Close()); err != nil {
		t.Fatal(err)
	}
	return cfg, rows
}

func TestASurvivorsWholeLogBecomesACluster(t *testing.T) {
	cfg, rows := survivor(t)
	s, err := OpenSurvivor(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSurvivor(cfg.DataDir); !errors.Is(err, ErrDataDirInUse) {
		t.Errorf("opened twice: %v", err)
	}
	info := s.Info()
	if info.ServerID != cfg.ID || len(info.Members) != 3 || info.Term != 1000 ||
		info.SnapshotIndex == 0 || info.LastIndex <= info.SnapshotIndex {
		t.Errorf("%+v", info)
	}
	if err := s.CheckOthersGone(s.Answering(t.Context())); err != nil {
		t.Error(err)
	}
	other := info.Members[(slices.IndexFunc(info.Members, func(m Member) bool {
		return m.ID == cfg.ID
	})+1)%3]
	if err := s.CheckOthersGone([]string{other.ID}); !errors.Is(err, ErrMembersAnswer) {
		t.Errorf("two of three: %v", err)
	}
	m := &ledger{}
	if err := s.Replay(t.Context(), m); err != nil || !slices.Equal(m.all(), rows) {
		t.Fatalf("replayed %v, %v", m.all(), err)
	}
	state, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	aside, err := s.Found(NewCluster{ClusterID: "new", State: state})
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(aside, store.LogFile)); err != nil {
		t.Error(err)
	}
	machine := &ledger{}
	cfg.Members = nil
	c, err := Open(context.Background(), cfg, machine)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	eventually(t, "leads", c.IsLeader)
	if _, err := c.Propose(context.Background(), []byte("after")); err != nil {
		t.Fatal(err)
	}
	if got := machine.all(); !slices.Equal(got, append(rows, "after")) || c.ClusterID() != "new" ||
		c.Status().Term <= 1000 || c.AppliedIndex() <= info.LastIndex || len(c.Members()) != 1 {
		t.Errorf("%v, cluster %s, term %d, applied %d", got, c.ClusterID(), c.Status().Term,
			c.AppliedIndex())
	}
}

// A damaged survivor is refused, and nothing is changed.
func TestADamagedSurvivorIsNotRescued(t *testing.T) {
	seed, _ := survivor(t)
	for name, damage := range damages() {
		if name == "a flipped byte in an entry" || name == "server id" {
			continue // of other content, and of the identity
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(seed.DataDir)); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			if s, err := OpenSurvivor(dir); !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v", err)
				s.Close()
			}
		})
	}
}

func TestAnEmptyDirectoryIsNoSurvivor(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenSurvivor(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenSurvivor(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// Of several survivors only one may be rescued: one that answers may be the successor.
func TestASecondSurvivorIsNotRescuedBesideTheFirst(t *testing.T) {
	s := &Survivor{info: SurvivorInfo{ServerID: "a"}, content: &store.Content{}}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		s.content.Members.Servers = append(s.content.Members.Servers,
			raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter})
	}
	for _, c := range []struct {
		answering []string
		way       string // what the refusal names; "" if there is none
	}{
		{nil, ""}, {[]string{"b"}, "empty this data directory"}, {[]string{"b", "c"}, "start it"},
	} {
		err := s.CheckOthersGone(c.answering)
		if errors.Is(err, ErrMembersAnswer) != (c.way != "") ||
			err != nil && !strings.Contains(err.Error(), c.way) {
			t.Errorf("%v: %v", c.answering, err)
		}
	}
}

// TestAWipedFounderServesNothingBesideTheRescued: the survivor of a cluster that was founded
// alone is not its founder. That one comes back with an empty disk and its flags.
func TestAWipedFounderServesNothingBesideTheRescued(t *testing.T) {
	for _, first := range []string{"survivor", "founder"} {
		t.Run(first+" first", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := lone(t)
				defer f.stopAll()
				for i := 1; i <= 2; i++ {
					f.newcomer(i, "h0:1")
					if err := f.nodes[0].AddMember(t.Context(), f.nodes[i].member()); err != nil {
						t.Fatal(err)
					}
				}
				f.nodes[0].mustPropose(t, "acknowledged")
				pass(t, time.Second)
				f.stop(1, false)
				f.stop(0, true)
				f.stop(2, true)
				f.rescue(1)
				rescued, founder := f.nodes[1], f.nodes[0]
				if first == "founder" {
					f.start(0)
					pass(t, 10*time.Second)
					_, err := Open(t.Context(), rescued.cfg, &ledger{})
					if err == nil || !strings.Contains(err.Error(), "start it without --join") {
						t.Fatalf("its flags would have it join the wrong cluster: %v", err)
					}
					rescued.cfg.Join = nil
				}
				f.start(1)
				pass(t, 5*time.Second)
				if first == "survivor" {
					f.start(0)
				}
				pass(t, 10*time.Second)
				if founder.OutOfService() == "" {
					t.Errorf("it serves %v", founder.machine.all())
				}
				if err := rescued.OutOfService(); err != "" || !rescued.IsLeader() {
					t.Errorf("the rescued one is out of service: %s", err)
				}
				f.stop(0, true)
				again := f.newcomer(0, "h1:1")
				if err := rescued.AddMember(t.Context(), again.member()); err != nil {
					t.Fatal(err)
				}
				if why := again.OutOfService(); why != "" {
					t.Errorf("a member again: %s", why)
				}
			})
		})
	}
}
