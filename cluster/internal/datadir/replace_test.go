package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const testLog = "log"

// filled makes a directory with an identity, a log and a directory of snapshots.
func filled(t *testing.T) (path string) {
	path = t.TempDir()
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = d.ServerID("old", testLog)
	_, err2 := d.ClaimCluster("old")
	if err := errors.Join(err, err2, d.SetEndedClusters([]string{"older"}),
		os.WriteFile(filepath.Join(path, testLog), []byte("old"), 0o600),
		os.MkdirAll(filepath.Join(path, "snapshots", "old"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return path
}

// content tells which content a directory has: old or new, and fails if it has parts of
// both. A part that the content does not have may not be there.
func content(t *testing.T, path string) string {
	t.Helper()
	which, err := os.ReadFile(filepath.Join(path, testLog))
	if err != nil {
		t.Fatal(err)
	}
	id, err := os.ReadFile(filepath.Join(path, serverIDFile))
	if err != nil || string(id) != string(which)+"\n" {
		t.Errorf("log %q and id %q, %v", which, id, err)
	}
	if _, err := os.Stat(filepath.Join(path, "snapshots", string(which))); err != nil {
		t.Error(err)
	}
	_, err = os.Stat(filepath.Join(path, endedFile))
	if (err == nil) != (string(which) == "old") {
		t.Errorf("ended clusters beside %q: %v", which, err)
	}
	return string(which)
}

func replacement() Replacement {
	return Replacement{
		Aside: "before", Others: []string{testLog, "snapshots"},
		Build: func(d *Dir) error {
			_, err := d.ServerID("new", testLog)
			return errors.Join(err,
				os.WriteFile(filepath.Join(d.Path(), testLog), []byte("new"), 0o600),
				os.MkdirAll(filepath.Join(d.Path(), "snapshots", "new"), 0o700))
		},
	}
}

var errCrash = errors.New("crash")

// TestACrashLeavesTheOldOrTheNewContent ends a replacement before each of its steps, and
// what finishes it before each of its own.
func TestACrashLeavesTheOldOrTheNewContent(t *testing.T) {
	crashAt := func(at int) func(from, to string) error {
		return func(from, to string) error {
			if at--; at < 0 {
				return errCrash
			}
			return os.Rename(from, to)
		}
	}
	const most = 14 // more than there are steps
	for first := range most {
		for second := first % 3; second < most; second += 3 {
			path := filled(t)
			d, err := Lock(path)
			if err != nil {
				t.Fatal(err)
			}
			err = d.replace(replacement(), crashAt(first))
			d.Close()
			if err == nil && first == 0 || err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			if err := (mover{path, crashAt(second)}).finish(); err != nil &&
				!errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			if d, err = Lock(path); err != nil {
				t.Fatal(err)
			}
			d.Close()
			want := map[bool]string{true: "old", false: "new"}[first == 0]
			if have := content(t, path); have != want {
				t.Fatalf("crashes before steps %d and %d leave the %s content", first, second, have)
			}
			if want == "new" && content(t, filepath.Join(path, "before")) != "old" {
				t.Fatalf("crashes before steps %d and %d lose the old content", first, second)
			}
			for _, left := range []string{building, decided, entering} {
				if (mover{path, nil}).has(left) {
					t.Fatalf("%s is left", left)
				}
			}
		}
	}
}

// TestAFailureToBuildChangesNothing, and the name for the old content must be free.
func TestAFailureToBuildChangesNothing(t *testing.T) {
	path := filled(t)
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := replacement()
	r.Build = func(*Dir) error { return errCrash }
	if err := d.Replace(r); !errors.Is(err, errCrash) {
		t.Errorf("got %v", err)
	}
	r = replacement()
	if err := os.Mkdir(filepath.Join(path, r.Aside), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace(r); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
	if content(t, path) != "old" {
		t.Error("the content has changed")
	}
}

func TestEndedClustersAreBounded(t *testing.T) {
	d, err := Lock(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ids := []string{"1", "2", "3", "4", "5", "6"}
	if err := d.SetEndedClusters(ids); err != nil {
		t.Fatal(err)
	}
	if have, err := d.EndedClusters(); err != nil || len(have) != maxEnded || have[4] != "6" {
		t.Errorf("%v, %v", have, err)
	}
}
