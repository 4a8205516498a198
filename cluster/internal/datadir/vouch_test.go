package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"quorate/cluster/internal/datadir"
)

// memoryLog is what a log says of itself.
type memoryLog struct {
	id    string
	state bool
}

func (l *memoryLog) Identity() (string, error)       { return l.id, nil }
func (l *memoryLog) SetIdentity(id string) error     { l.id = id; return nil }
func (l *memoryLog) HasState() (state bool, _ error) { return l.state, nil }

func TestALogAndItsDirectoryVouchForEachOther(t *testing.T) {
	const ours = "server disk"
	for name, tt := range map[string]struct {
		log     memoryLog
		made    string // what log_made says
		cluster string
		refused bool
	}{
		"new":                        {memoryLog{"", false}, "", "", false},
		"of an older version":        {memoryLog{"", true}, "yes", "", false},
		"the same":                   {memoryLog{ours, true}, "disk", "c", false},
		"log_made was lost":          {memoryLog{ours, true}, "", "c", false},
		"of another server":          {memoryLog{"other disk", true}, "disk", "c", true},
		"of another disk":            {memoryLog{"server other", true}, "", "c", true},
		"an empty one for it":        {memoryLog{"", false}, "disk", "c", true},
		"without its cluster":        {memoryLog{ours, true}, "disk", "", true},
		"of no cluster, and nothing": {memoryLog{ours, false}, "disk", "", false},
	} {
		path := t.TempDir()
		d := lock(t, path)
		for file, text := range map[string]string{"log": "x", "log_made": tt.made} {
			if err := os.WriteFile(filepath.Join(path, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if text == "" {
				_ = os.Remove(filepath.Join(path, file))
			}
		}
		err := d.Vouch("log", "server", "disk", tt.cluster, &tt.log)
		if errors.Is(err, datadir.ErrCorrupt) != tt.refused || err != nil && !tt.refused {
			t.Errorf("%s: %v", name, err)
		}
		if !tt.refused && tt.log.id != ours {
			t.Errorf("%s: the log is of %q", name, tt.log.id)
		}
		if err := d.CheckLog("log"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = os.Remove(filepath.Join(path, "log"))
		if err := d.CheckLog("log"); (err != nil) != (tt.made != "" || !tt.refused) {
			t.Errorf("%s: the log is lost: %v", name, err)
		}
	}
	d := lock(t, t.TempDir())
	if err := d.Vouch("log", "server", "disk", "", nil); err != nil {
		t.Errorf("a log in memory: %v", err)
	}
}

func TestAnOldDiskIDIsNotReplaced(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "log"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lock(t, path).DiskID("log"); !errors.Is(err, datadir.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

func TestWhoHasLessThanBeforeHasGoneBack(t *testing.T) {
	d := lock(t, t.TempDir())
	k, err := datadir.LoadKnownDisks(d)
	if err != nil {
		t.Fatal(err)
	}
	k.Note("a", datadir.Progress{Disk: "1", Run: "x", Term: 3, Index: 10})
	k.Note("a", datadir.Progress{Disk: "1", Run: "x", Term: 2, Index: 9}) // came late
	k.Note("b", datadir.Progress{Run: "x", Term: 9, Index: 9})            // in memory
	if err := k.SaveProgress(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id   string
		p    datadir.Progress
		back bool
	}{
		{"a", datadir.Progress{Disk: "1", Run: "x", Term: 1, Index: 1}, false}, // the same process
		{"a", datadir.Progress{Disk: "1", Run: "y", Term: 2, Index: 99}, true},
		{"a", datadir.Progress{Disk: "1", Run: "y", Term: 9, Index: 9}, true},
		{"a", datadir.Progress{Disk: "1", Run: "y", Term: 3, Index: 10}, false},
		{"a", datadir.Progress{Disk: "1", Run: "y", Term: 1, Index: 1}, false}, // accepted before
		{"a", datadir.Progress{Disk: "2", Run: "z", Term: 1, Index: 1}, false}, // another disk
		{"a", datadir.Progress{Disk: "1", Term: 1, Index: 1}, false},           // an older version
		{"b", datadir.Progress{Run: "z", Term: 1, Index: 1}, false},
		{"c", datadir.Progress{Disk: "3", Run: "z"}, false},
	} {
		if _, back := k.GoneBack(tt.id, tt.p); back != tt.back {
			t.Errorf("%s %+v: %v", tt.id, tt.p, back)
		}
	}
	// A report of the former process comes late. This one's greeting was overtaken by its
	// report, and is no older copy.
	k.Note("a", datadir.Progress{Disk: "1", Run: "y", Term: 3, Index: 10})
	k.Note("a", datadir.Progress{Disk: "1", Run: "x", Term: 3, Index: 10})
	if _, back := k.GoneBack("a", datadir.Progress{Disk: "1", Run: "y", Index: 2}); back {
		t.Error("words of one process were compared")
	}
	again, err := datadir.LoadKnownDisks(d)
	if err != nil {
		t.Fatal(err)
	}
	if had, back := again.GoneBack("a", datadir.Progress{
		Disk: "1", Run: "z", Term: 3, Index: 9,
	}); !back || had.Index != 10 {
		t.Errorf("after a restart: %+v, %v", had, back)
	}
}
