package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

// copyDir replaces a directory by a copy of another.
func copyDir(t *testing.T, to, from string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
		t.Fatal(err)
	}
}

// A member that comes back with an older copy of its disk has forgotten what it
// acknowledged. Who has seen it further refuses it, and it stops. One that comes back with
// the disk that it had is welcome.
func TestAnOlderCopyOfADiskIsRefused(t *testing.T) {
	for name, older := range map[string]bool{"older copy": true, "same disk": false} {
		t.Run(name, func(t *testing.T) {
			tr := startTCP(t, 3, Timeouts{})
			lead := tr.leader()
			lead.mustPropose(t, "a")
			nd := tr.follower()
			i := int(nd.cfg.ID[1] - '0')
			if err := nd.ReadBarrier(context.Background()); err != nil {
				t.Fatal(err)
			}
			_ = nd.kill()
			copied := filepath.Join(t.TempDir(), "copy")
			copyDir(t, copied, nd.cfg.DataDir)
			tr.start(i)
			for k := range 20 {
				lead.mustPropose(t, seqRow(0, k))
			}
			if err := tr.nodes[i].ReadBarrier(context.Background()); err != nil {
				t.Fatal(err)
			}
			held := tr.nodes[i].node.appliedOnDisk()
			eventually(t, "its progress is known", func() bool {
				r := lead.peers.report(nd.cfg.ID)
				return r != nil && r.Held >= held
			})
			_ = nd.kill()
			if older {
				copyDir(t, nd.cfg.DataDir, copied)
			}
			tr.start(i)
			if !older {
				if err := nd.ReadBarrier(context.Background()); err != nil {
					t.Error(err)
				}
				return
			}
			select {
			case err := <-nd.Fatal():
				if !errors.Is(err, ErrGoneBack) || !strings.Contains(err.Error(), "new id") {
					t.Errorf("got %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it goes on")
			}
			lead.mustPropose(t, "b")
			if nd.machine.count("b") > 0 {
				t.Error("it takes entries")
			}
		})
	}
}

// What a server knows of the others is on its disk.
func TestProgressIsRememberedAcrossARestart(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead := tr.leader()
	lead.mustPropose(t, "a")
	other := tr.follower().cfg.ID
	eventually(t, "it is heard of", func() bool {
		r := lead.peers.report(other)
		return r != nil && r.Held > 0
	})
	last := lead.AppliedIndex()
	_ = lead.Close(context.Background())
	dir, err := datadir.Lock(lead.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	known, err := datadir.LoadKnownDisks(dir)
	if err != nil {
		t.Fatal(err)
	}
	disk := known.Disk(other)
	if had, back := known.GoneBack(other, datadir.Progress{Disk: disk, Run: "next"}); !back ||
		had.Index == 0 || had.Term == 0 {
		t.Errorf("%+v", had)
	}
	if m, err := store.ReadMark(lead.cfg.DataDir); err != nil || m.Index < last || m.Term == 0 {
		t.Errorf("mark %+v, %v", m, err)
	}
}

// Each part of a directory without the rest is refused, by the name of what is wrong.
func TestPartsOfADirectoryAreRefused(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	tr.leader().mustPropose(t, "a")
	for _, nd := range tr.nodes {
		eventually(t, "applied", func() bool { return nd.machine.count("a") == 1 })
	}
	tr.close()
	seed, other := tr.nodes[0].cfg, tr.nodes[1].cfg.DataDir
	swap := func(t *testing.T, dir, name string) {
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, dir, name string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		how  func(t *testing.T, dir, name string)
		file string
		also string
	}{
		{remove, store.LogFile, ""},
		{remove, store.LogFile, "log_made"}, // the mark is left
		{remove, "incarnation", ""},
		{remove, "server_id", ""},
		{remove, "cluster_id", ""},
		{swap, store.LogFile, ""},
		{swap, "incarnation", ""},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		copyDir(t, dir, seed.DataDir)
		tt.how(t, dir, tt.file)
		if tt.also != "" {
			remove(t, dir, tt.also)
		}
		cfg := seed
		cfg.DataDir, cfg.Logger = dir, slog.New(slog.DiscardHandler)
		if err := openDirErr(t, cfg); !errors.Is(err, ErrCorrupt) ||
			!strings.Contains(err.Error(), "new id") {
			t.Errorf("%s (%s): %v", tt.file, tt.also, err)
		}
	}
	for _, harmless := range []string{"log_made", store.MarkFile, "progress.json"} {
		dir := filepath.Join(t.TempDir(), "data")
		copyDir(t, dir, seed.DataDir)
		_ = os.Remove(filepath.Join(dir, harmless))
		cfg := seed
		cfg.DataDir = dir
		if err := openDirErr(t, cfg); err != nil {
			t.Errorf("without %s: %v", harmless, err)
		}
	}
}
