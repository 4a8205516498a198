package snapshots

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/wait"
)

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func options(dir string, save func(context.Context, io.Writer) error) Options {
	return Options{
		Dir: dir, Server: "c1", Every: time.Hour, Keep: 2, Save: save,
		Logger: slog.New(slog.DiscardHandler),
	}
}

func TestTheNewestSnapshotsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	synctest.Test(t, func(t *testing.T) {
		var leaderless atomic.Bool
		s, err := New(options(dir, func(_ context.Context, w io.Writer) error {
			if leaderless.Load() {
				return errors.New("no leader")
			}
			_, err := io.WriteString(w, "state")
			return err
		}))
		if err != nil {
			t.Fatal(err)
		}
		if !s.Newest().IsZero() {
			t.Error("there is a snapshot before the first")
		}
		if err := os.WriteFile(filepath.Join(dir, "c2-20000101T000000Z.snapshot"), nil,
			0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		begun := time.Now()
		_ = wait.Sleep(ctx, 3*time.Hour+time.Minute)
		leaderless.Store(true)
		_ = wait.Sleep(ctx, time.Hour+10*time.Minute)
		if age := time.Since(s.Newest()); age < time.Hour || age > 2*time.Hour {
			t.Errorf("the newest is %v old after failures", age)
		}
		leaderless.Store(false)
		_ = wait.Sleep(ctx, 2*time.Minute)
		if age := time.Since(s.Newest()); age > 2*time.Minute {
			t.Errorf("not tried again soon: %v", age)
		}
		cancel()
		wg.Wait()
		got := names(t, dir)
		want := []string{
			"c1-" + begun.Add(3*time.Hour).UTC().Format(timeFormat) + ".snapshot",
			"c1-" + s.Newest().UTC().Format(timeFormat) + ".snapshot",
			"c2-20000101T000000Z.snapshot",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		again, err := New(options(dir, nil))
		if err != nil || !again.Newest().Equal(s.Newest()) {
			t.Errorf("after a restart the newest is of %v, %v", again.Newest(), err)
		}
	})
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	dir := t.TempDir()
	keep := []string{"c1-20260101T000000Z.snapshot", "other", ".c2-20260101T000000Z.snapshot1"}
	for _, name := range append(keep, ".c1-20260101T000000Z.snapshot123") {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(options(dir, nil)); err != nil {
		t.Fatal(err)
	}
	slices.Sort(keep)
	if got := names(t, dir); !slices.Equal(got, keep) {
		t.Errorf("left %v", got)
	}
}

// What renameio leaves is what New removes.
func TestATemporaryFileIsALeftover(t *testing.T) {
	dir := t.TempDir()
	var seen []string
	s, err := New(options(dir, func(context.Context, io.Writer) error {
		seen = names(t, dir)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || !s.leftover.MatchString(seen[0]) {
		t.Errorf("a crash would leave %v", seen)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	o := options(t.TempDir(), nil)
	o.Keep = 0
	if _, err := New(o); err == nil {
		t.Error("keeps nothing")
	}
	o = options(filepath.Join(os.Args[0], "no directory"), nil)
	if _, err := New(o); err == nil {
		t.Error("a directory below a file")
	}
}
