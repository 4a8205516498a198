package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quorate/cluster/internal/datadir"
)

func lock(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestOneProcessHoldsADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made")
	d := lock(t, path)
	if _, err := datadir.Lock(path); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("locked twice: %v", err)
	}
	d.Close()
	lock(t, path)
}

func TestIDsStayWithTheDirectory(t *testing.T) {
	path := t.TempDir()
	d := lock(t, path)
	id, err := d.ServerID("", "log")
	if err != nil || id == "" {
		t.Fatalf("id %q, %v", id, err)
	}
	disk, err := d.DiskID("log")
	if err != nil || disk == "" || disk == id {
		t.Fatalf("disk %q, %v", disk, err)
	}
	d.Close()
	d = lock(t, path)
	if again, err := d.ServerID(id, "log"); err != nil || again != id {
		t.Errorf("id %q became %q, %v", id, again, err)
	}
	if again, err := d.DiskID("log"); err != nil || again != disk {
		t.Errorf("disk %q became %q, %v", disk, again, err)
	}
	if _, err := d.ServerID("another", "log"); err == nil {
		t.Error("the directory took another id")
	}
}

func TestALogWithoutAnIDIsCorrupt(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := lock(t, path).ServerID("a", "log")
	if !errors.Is(err, datadir.ErrCorrupt) || !strings.Contains(err.Error(), "server_id") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedFilesAreRefusedByName(t *testing.T) {
	for file, read := range map[string]func(*datadir.Dir) error{
		"server_id":   func(d *datadir.Dir) error { _, err := d.ServerID("a", "log"); return err },
		"incarnation": func(d *datadir.Dir) error { _, err := d.DiskID("log"); return err },
		"cluster_id":  func(d *datadir.Dir) error { _, err := d.ClaimCluster("c"); return err },
		"met.json":    func(d *datadir.Dir) error { _, err := datadir.LoadKnownDisks(d); return err },
	} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, file), []byte("\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := read(lock(t, path)); !errors.Is(err, datadir.ErrCorrupt) ||
			!strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestADirectoryBelongsToOneCluster(t *testing.T) {
	d := lock(t, t.TempDir())
	for _, tt := range []struct{ want, have string }{{"", ""}, {"one", "one"}, {"", "one"}} {
		if have, err := d.ClaimCluster(tt.want); err != nil || have != tt.have {
			t.Errorf("claimed %q and got %q, %v", tt.want, have, err)
		}
	}
	if _, err := d.ClaimCluster("two"); !errors.Is(err, datadir.ErrClusterMismatch) {
		t.Errorf("claimed for another cluster: %v", err)
	}
}

func TestAMemberWithAnotherDiskIsNotKnown(t *testing.T) {
	d := lock(t, t.TempDir())
	member := func(string) bool { return true }
	stranger := func(string) bool { return false }
	for _, tt := range []struct {
		id, disk string
		member   func(string) bool
		want     bool
	}{
		{"a", "1", member, true},
		{"a", "1", member, true},
		{"a", "2", member, false},
		{"a", "1", member, true},
		{"a", "2", stranger, true}, // removed, and added again
		{"a", "2", member, true},
		{"a", "", member, true}, // a server in memory has no disk
	} {
		known, err := datadir.LoadKnownDisks(d) // each time as after a restart
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := known.Record(tt.id, tt.disk, tt.member); err != nil || ok != tt.want {
			t.Errorf("%s with disk %q: %v, %v", tt.id, tt.disk, ok, err)
		}
	}
	none, err := datadir.LoadKnownDisks(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, disk := range []string{"1", "2"} {
		if ok, err := none.Record("a", disk, member); err != nil || !ok {
			t.Errorf("without a directory: %v, %v", ok, err)
		}
	}
}
