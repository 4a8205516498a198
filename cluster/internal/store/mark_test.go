package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

// filled is a directory with five entries of term 2, and the mark of the last.
func filled(t *testing.T) (dir string) {
	dir = t.TempDir()
	s, err := open(t, dir, store.Bolt{})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 5; i++ {
		if err := s.StoreLog(entry(i, 2)); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.SetUint64([]byte("CurrentTerm"), 2)
	if err := s.SetMark(t.Context(), store.Mark{Term: 2, Index: 5, Leader: "a"}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	return dir
}

// change changes the log as something else than this package would.
func change(t *testing.T, dir string, f func(store.Stores) error) {
	t.Helper()
	s, err := store.Bolt{}.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f(s), s.Closer.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestALogThatHasGoneBackIsRefused(t *testing.T) {
	for name, back := range map[string]func(store.Stores) error{
		"entries": func(s store.Stores) error { return s.Log.DeleteRange(5, 5) },
		"the term": func(s store.Stores) error {
			return s.Stable.SetUint64([]byte("CurrentTerm"), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			s, err := open(t, dir, store.Bolt{})
			if err != nil {
				t.Fatalf("as it was: %v", err)
			}
			s.Close()
			change(t, dir, back)
			if _, err := open(t, dir, store.Bolt{}); !errors.Is(err, datadir.ErrGoneBack) ||
				!errors.Is(err, datadir.ErrCorrupt) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A mark that a crash has cut off, or that is missing, raises no alarm.
func TestADamagedMarkIsNone(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"missing": os.Remove,
		"empty":   func(file string) error { return os.Truncate(file, 0) },
		"cut":     func(file string) error { return os.Truncate(file, 20) },
		"zeros":   func(file string) error { return os.WriteFile(file, make([]byte, 512), 0o600) },
		"garbage": func(file string) error {
			return os.WriteFile(file, []byte("\xff\xff\xff\xff\x00\x00\x00\x00abc"), 0o600)
		},
	} {
		dir := filled(t)
		if err := damage(filepath.Join(dir, store.MarkFile)); err != nil {
			t.Fatal(err)
		}
		if m, err := store.ReadMark(dir); err != nil || m != (store.Mark{}) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if _, err := open(t, dir, store.Bolt{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Bolt goes on with the other meta page if one is damaged, which is older if that was the
// newer one.
func TestADamagedMetaPageIsRefused(t *testing.T) {
	for page := range 2 {
		dir := filled(t)
		name := filepath.Join(dir, store.LogFile)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte{0xaa, 0xaa}, int64(page*os.Getpagesize()+16+48))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, dir, store.Bolt{}); !errors.Is(err, datadir.ErrCorrupt) {
			t.Errorf("page %d: %v", page, err)
		}
	}
}

func TestSnapshotsWithoutTheirLogAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := install(dir, "state"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, store.LogFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir, store.Bolt{}); !errors.Is(err, datadir.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

// A leader never has other entries than those that were committed here. Nothing is removed
// then, and the server stops.
func TestCommittedEntriesAreNotRemovedAtTheEnd(t *testing.T) {
	s := inMemory(t)
	for i := uint64(1); i <= 9; i++ {
		if err := s.StoreLog(entry(i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	s.applied.Store(7)
	for _, r := range [][2]uint64{{8, 9}, {1, 2}} { // not committed; the beginning
		if err := s.DeleteRange(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteRange(7, 7); !errors.Is(err, datadir.ErrGoneBack) {
		t.Errorf("removed what was committed: %v", err)
	}
	if err := <-s.Health.Fatal(); !errors.Is(err, datadir.ErrGoneBack) {
		t.Errorf("got %v", err)
	}
	if last, _ := s.LastIndex(); last != 7 {
		t.Errorf("the log ends with %d", last)
	}
	if s.Health.Works() {
		t.Error("the server goes on")
	}
}

// The whole log goes only when a snapshot has what was committed, also when it is short.
func TestACommittedLogIsNotRemovedAsAWhole(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot uint64 // its index, 0: none
		back     bool
	}{
		"no snapshot": {0, true}, "an older one": {6, true}, "it has all": {7, false},
	} {
		s := inMemory(t)
		for i := uint64(7); i <= 9; i++ {
			if err := s.StoreLog(entry(i, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if c.snapshot > 0 {
			sink, err := s.Snapshots().Create(1, c.snapshot, 1, raft.Configuration{}, 1, nil)
			if err := errors.Join(err, sink.Close()); err != nil {
				t.Fatal(err)
			}
		}
		s.applied.Store(7)
		if err := s.DeleteRange(7, 9); errors.Is(err, datadir.ErrGoneBack) != c.back {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLeftoversOfSnapshotsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	if err := install(dir, "state"); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, store.SnapshotDir, "3-7-1700000000000.tmp")
	if err := os.MkdirAll(filepath.Join(left, "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, dir, store.Bolt{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if list, err := s.Snapshots().List(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
