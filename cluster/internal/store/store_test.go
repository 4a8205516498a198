package store_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/clustertest"
	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

// opened is a store on a disk that can be made to hang, and what its hooks were told.
type opened struct {
	*store.Store
	disk    *clustertest.Disk
	leads   atomic.Bool
	applied atomic.Uint64
	changed atomic.Int32
}

// open opens a store. In a directory it writes files.
func open(t *testing.T, dir string, disk store.Disk) (*opened, error) {
	t.Helper()
	o := &opened{}
	o.disk, _ = disk.(*clustertest.Disk)
	s, err := store.Open(store.Options{
		Dir: dir, Disk: disk, Log: slog.New(slog.DiscardHandler),
		Limits: store.Limits{
			Write: 100 * time.Millisecond, TestWrite: 20 * time.Millisecond, Recovery: time.Second,
		},
		Hooks: store.Hooks{
			Leads:   o.leads.Load,
			Applied: o.applied.Load,
			Changed: func() { o.changed.Add(1) },
			MajorityWrites: func(context.Context, time.Duration) <-chan struct{} {
				can := make(chan struct{})
				close(can)
				return can
			},
		},
		CheckEntry: func(entry []byte) error {
			if strings.HasPrefix(string(entry), "bad") {
				return errors.New("checksum")
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	o.Store = s
	t.Cleanup(s.Close)
	return o, nil
}

func inMemory(t *testing.T) *opened {
	t.Helper()
	o, err := open(t, "", clustertest.NewMemoryDisk())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func entry(i, term uint64) *raft.Log { return &raft.Log{Index: i, Term: term} }

// TestAWriteThatComesBackLateLeavesNoEntryBehind: raft was told that the write failed.
func TestAWriteThatComesBackLateLeavesNoEntryBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		s.leads.Store(true)
		if err := s.StoreLogs([]*raft.Log{entry(1, 1)}); err != nil {
			t.Fatal(err)
		}
		s.disk.Hang()
		if err := s.StoreLogs([]*raft.Log{entry(2, 1), entry(3, 1)}); !errors.Is(err,
			store.ErrDisk) {
			t.Fatalf("got %v", err)
		}
		if s.Health.Works() || s.Health.Fit() || s.changed.Load() == 0 {
			t.Fatal("healthy while a write hangs")
		}
		if r := s.Health.Report(); r.Fit || !strings.Contains(r.Reason, "takes longer") {
			t.Errorf("the report is %+v", r)
		}
		s.leads.Store(false)
		s.disk.Resume()
		if err := s.StoreLogs([]*raft.Log{entry(2, 2)}); err != nil {
			t.Fatal(err)
		}
		last, _ := s.LastIndex()
		var l raft.Log
		if err := s.GetLog(2, &l); err != nil || l.Term != 2 || last != 2 {
			t.Fatalf("the log ends at %d with term %d (%v)", last, l.Term, err)
		}
		if !s.Health.Works() || s.Health.Fit() {
			t.Fatal("want a disk that works, but is not fit yet")
		}
		time.Sleep(time.Second)
		if r := s.Health.Report(); !r.Fit || r.Reason != "" {
			t.Fatalf("after the recovery time: %+v", r)
		}
	})
}

// TestAFollowerWaitsForADiskThatHangs: raft does not recover from a failed append.
func TestAFollowerWaitsForADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		s.disk.Hang()
		begun := time.Now()
		time.AfterFunc(time.Second, s.disk.Resume)
		if err := s.StoreLog(entry(1, 1)); err != nil || time.Since(begun) < time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if !s.Health.Works() {
			t.Error("the disk does not work again")
		}
	})
}

func TestAFullDiskIsTriedAgainUntilThereIsSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		s.disk.Fail(syscall.ENOSPC)
		time.AfterFunc(time.Second, func() { s.disk.Fail(nil) })
		if err := s.StoreLog(entry(1, 1)); err != nil {
			t.Fatal(err)
		}
		if !s.Health.Works() || s.Health.Fit() {
			t.Error("want a disk that works, but is not fit yet")
		}
		select {
		case err := <-s.Health.Fatal():
			t.Errorf("a full disk is fatal: %v", err)
		default:
		}
	})
}

func TestADiskThatRefusesWritesIsFatalAndSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		s.disk.Fail(syscall.EIO)
		ended := make(chan error, 1)
		go func() { ended <- s.StoreLog(entry(1, 1)) }()
		if err := <-s.Health.Fatal(); !errors.Is(err, store.ErrDisk) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("the write returned: %v", err)
		default:
		}
		s.Stop()
		if err := <-ended; !errors.Is(err, store.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestVotesAreWrittenCandidateFirst(t *testing.T) {
	disk := clustertest.NewMemoryDisk()
	raw, err := disk.Open("")
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(t, "", disk)
	if err != nil {
		t.Fatal(err)
	}
	candidate, term := []byte("LastVoteCand"), []byte("LastVoteTerm")
	_ = s.Set(candidate, []byte("old"))
	_ = s.SetUint64(term, 5)
	if have, _ := raw.Stable.GetUint64(term); have == 5 {
		t.Fatal("a crash now would leave term 5 with the candidate of an earlier term")
	}
	_ = s.Set(candidate, []byte("new"))
	if have, _ := s.GetUint64(term); have != 5 {
		t.Fatalf("the term is %d", have)
	}
	if have, _ := s.Get(candidate); string(have) != "new" {
		t.Fatalf("the candidate is %q", have)
	}
}

// TestTestWritesNoticeAHangOfAnIdleServer, and its end.
func TestTestWritesNoticeAHangOfAnIdleServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Watch(ctx) }()
		time.Sleep(time.Second)
		if !s.Health.Fit() {
			t.Error("a healthy disk is not fit")
		}
		s.disk.Hang()
		time.Sleep(200 * time.Millisecond)
		if s.Health.Works() {
			t.Error("nobody noticed")
		}
		s.disk.Resume()
		time.Sleep(100 * time.Millisecond)
		if !s.Health.Works() {
			t.Error("it works again, and nobody noticed")
		}
		cancel()
		<-done
	})
}

// TestDisksAreTestedAsOftenAsSomethingDependsOnIt: on a leader that is idle, and from the moment
// at which one begins to lead; less often elsewhere, and not while the log is written.
func TestDisksAreTestedAsOftenAsSomethingDependsOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tests atomic.Int32
		disk := clustertest.NewMemoryDisk()
		disk.Tested = func() { tests.Add(1) }
		s, err := open(t, "", disk)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Watch(ctx) }()
		during := func(d time.Duration) int32 {
			before := tests.Load()
			time.Sleep(d)
			return tests.Load() - before
		}
		time.Sleep(time.Second)
		if n := during(1200 * time.Millisecond); n < 19 || n > 21 {
			t.Errorf("%d tests of a follower", n)
		}
		s.leads.Store(true)
		s.Health.LeaderMoved()
		if n := during(21 * time.Millisecond); n < 1 || n > 2 {
			t.Errorf("%d tests when it begins to lead", n)
		}
		if n := during(1200 * time.Millisecond); n < 59 || n > 61 {
			t.Errorf("%d tests of a leader", n)
		}
		before := tests.Load()
		for i := range uint64(100) {
			if err := s.StoreLog(entry(i+1, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := tests.Load() - before; n > 1 {
			t.Errorf("%d tests while the log is written", n)
		}
		if n := during(40 * time.Millisecond); n < 1 {
			t.Error("no test after the log was written")
		}
		cancel()
		<-done
	})
}

func TestATestWriteOfADiskThatHangsEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		if err := s.ProveWritable(t.Context()); err != nil {
			t.Fatalf("a healthy disk: %v", err)
		}
		s.disk.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := s.ProveWritable(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.disk.Resume()
		if err := s.ProveWritable(t.Context()); err != nil {
			t.Errorf("it works again: %v", err)
		}
	})
}

func TestTestWritesKeepTheirFilesSmall(t *testing.T) {
	dir := t.TempDir()
	s, err := open(t, dir, store.Bolt{})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := s.ProveWritable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"canary", "test_write"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Size() == 0 || info.Size() > 8192 {
			t.Errorf("after 200 writes: %v, %v", info, err)
		}
	}
}

func TestEntriesAreReadFromTheDiskWhenTheyLeftTheCache(t *testing.T) {
	s := inMemory(t)
	for i := uint64(1); i <= 3000; i++ {
		if err := s.StoreLog(entry(i, i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []uint64{1, 1976, 1977, 3000} {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil || l.Term != i {
			t.Errorf("entry %d has term %d, %v", i, l.Term, err)
		}
	}
	if err := s.DeleteRange(2000, 3000); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := s.GetLog(3000, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("a deleted entry: %+v, %v", l, err)
	}
}

func TestDamagedFilesAreRefusedByName(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, string) string{
		"an entry": func(t *testing.T, dir string) string {
			s, err := store.Bolt{}.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Log.StoreLog(&raft.Log{Index: 1, Term: 1, Data: []byte("bad")})
			if err := errors.Join(err, s.Closer.Close()); err != nil {
				t.Fatal(err)
			}
			return store.LogFile
		},
		"a hole": func(t *testing.T, dir string) string {
			s, err := store.Bolt{}.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Log.StoreLogs([]*raft.Log{entry(1, 1), entry(3, 1)})
			if err := errors.Join(err, s.Closer.Close()); err != nil {
				t.Fatal(err)
			}
			return store.LogFile
		},
		"all pages": func(t *testing.T, dir string) string {
			name := filepath.Join(dir, store.LogFile)
			if err := os.WriteFile(name, make([]byte, 1<<16), 0o600); err != nil {
				t.Fatal(err)
			}
			return store.LogFile
		},
		"a snapshot": func(t *testing.T, dir string) string {
			if err := install(dir, "state"); err != nil {
				t.Fatal(err)
			}
			found, _ := filepath.Glob(filepath.Join(dir, store.SnapshotDir, "*", "state.bin"))
			if err := os.WriteFile(found[0], []byte("stale"), 0o600); err != nil {
				t.Fatal(err)
			}
			return "state.bin"
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := damage(t, dir)
			_, err := open(t, dir, store.Bolt{})
			if !errors.Is(err, datadir.ErrCorrupt) || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func install(dir, state string) error {
	meta := raft.SnapshotMeta{Index: 7, Term: 3}
	return store.InstallSnapshot(dir, meta, func(w io.Writer) error {
		_, err := io.WriteString(w, state)
		return err
	})
}

func TestAServerBeginsWithTheSnapshotThatWasInstalled(t *testing.T) {
	dir := t.TempDir()
	if err := install(dir, "state"); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, dir, store.Bolt{})
	if err != nil {
		t.Fatal(err)
	}
	if has, err := s.HasState(); err != nil || !has {
		t.Errorf("it has state: %v, %v", has, err)
	}
	list, err := s.Snapshots().List()
	if err != nil || len(list) != 1 || list[0].Index != 7 || list[0].Term != 3 {
		t.Errorf("snapshots %v, %v", list, err)
	}
	if term, err := s.GetUint64([]byte("CurrentTerm")); err != nil || term != 3 {
		t.Errorf("term %d, %v", term, err)
	}
}
