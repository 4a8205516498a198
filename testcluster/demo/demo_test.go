package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// built compiles a program of this module.
func built(t *testing.T, pkg, to string) string {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", to, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return to
}

func play(t *testing.T, opt Options) string {
	t.Helper()
	var out bytes.Buffer
	opt.Binary = built(t, "quorate/cmd/storage_controller",
		filepath.Join(t.TempDir(), "storage_controller"))
	opt.Out = &out
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := Run(ctx, opt); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

func demand(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("the show does not say %q:\n%s", w, out)
		}
	}
}

func TestShowEndsWell(t *testing.T) {
	if testing.Short() {
		t.Skip("runs real processes for ten seconds")
	}
	dir := occupied(t)
	out := play(t, Options{Tenants: 30, Dir: dir})
	unharmed(t, dir)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left in the user's directory: %v, %v", left, err)
	}
	demand(t, out, "kill -9 for the leader", "each of 121 shards is attached exactly once",
		"acknowledged writes is missing",
		"from kill -9 of the leader to the next leader")
	if strings.Contains(out, "\x1b[") {
		t.Error("plain lines hold control sequences")
	}
}

// Real pageservers are launched as Neon launches them; here a stand-in checks
// what it is given.
func TestShowLaunchesNeonsPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("runs real processes for ten seconds")
	}
	// The user that runs the programs must be able to reach them.
	bin, err := os.MkdirTemp("", "quorate-fakeneon-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(bin) })
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	fake := built(t, "./testdata/fakeneon", filepath.Join(bin, "pageserver"))
	if err := os.Symlink(fake, filepath.Join(bin, "storage_broker")); err != nil {
		t.Fatal(err)
	}
	postgres := filepath.Join(bin, "pg_install", "v17", "bin")
	if err := os.MkdirAll(postgres, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(postgres, "initdb"), []byte("#!/bin/sh\n"),
		0o755); err != nil {
		t.Fatal(err)
	}
	out := play(t, Options{NeonBin: bin, Tenants: 20, Timelines: -1})
	demand(t, out, "pageservers from "+bin, "each of 41 shards is attached exactly once")
}

// occupied makes a directory that has what could be a member's.
func occupied(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "c1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c1", "raft.db"), []byte("precious"),
		0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unharmed fails the test if a directory has not all that occupied has put there.
func unharmed(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "c1", "raft.db"))
	if err != nil || string(text) != "precious" {
		t.Fatalf("what was there: %q, %v", text, err)
	}
}

// TestTheUsersDirectoryStays has a show end well, and one fail, in a directory that has
// something in it.
func TestTheUsersDirectoryStays(t *testing.T) {
	dir := occupied(t)
	for _, failure := range []error{nil, errors.New("failed")} {
		var out bytes.Buffer
		s := &show{opt: Options{Dir: dir, Out: &out}}
		if err := s.directory(); err != nil {
			t.Fatal(err)
		}
		own := s.opt.Dir
		if filepath.Dir(own) != dir {
			t.Fatalf("the show is in %s", own)
		}
		if err := os.WriteFile(filepath.Join(own, "log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.screen = newScreen(&out, s.opt.Style)
		if err := s.stop(failure); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(own); (err == nil) != (failure != nil) {
			t.Errorf("after %v the directory of the show: %v", failure, err)
		}
		if failure != nil && !strings.Contains(out.String(), own) {
			t.Errorf("nobody is told of %s: %s", own, out.String())
		}
		unharmed(t, dir)
	}
}
