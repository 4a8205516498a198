package demo

import (
	"bytes"
	"context"
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
	out := play(t, Options{Tenants: 30})
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
	// Whoever runs the programs must be able to reach them.
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
