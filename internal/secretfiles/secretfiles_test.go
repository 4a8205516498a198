package secretfiles

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/logbuffer"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var errBad = errors.New("it is bad")

// taker keeps what it is given, and refuses what has the word bad in it.
type taker struct {
	mu    sync.Mutex
	texts []string
}

func (k *taker) take(contents [][]byte) error {
	all := string(bytes.Join(contents, []byte("+")))
	if strings.Contains(all, "bad") {
		return errBad
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.texts = append(k.texts, all)
	return nil
}

// taken is what it has kept.
func (k *taker) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.texts)
}

// A secret is exchanged as Kubernetes does it: by a link in the directory. A bad one leaves
// the old one, and is told once.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	for name, files := range map[string][]string{
		"one": {"old", "older"}, "two": {"new", "older"}, "three": {"bad", "worse"},
	} {
		for i, text := range files {
			at := filepath.Join(dir, "..versions", name)
			if err := os.MkdirAll(at, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(at, []string{"a", "b"}[i]), text)
		}
	}
	turn := func(to string) {
		t.Helper()
		fresh := filepath.Join(dir, "..fresh")
		if err := os.Symlink(filepath.Join("..versions", to), fresh); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	turn("one")
	for _, name := range []string{"a", "b"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var log logbuffer.Buffer
		var seen taker
		w := New(time.Minute, slog.New(slog.NewTextHandler(&log, nil)))
		if err := w.Add("keys", dir, seen.take); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		after := func(d time.Duration) State {
			time.Sleep(d)
			synctest.Wait()
			return w.States()[0]
		}
		if s := after(5 * time.Minute); s.Reloads != 0 || s.Err != nil || len(seen.taken()) != 1 {
			t.Errorf("nothing has changed: %+v, %v", s, seen.taken())
		}
		turn("two")
		if s := after(time.Minute); s.Reloads != 1 || seen.taken()[len(seen.taken())-1] != "new+older" {
			t.Errorf("after a change: %+v, %v", s, seen.taken())
		}
		turn("three")
		if s := after(time.Hour); !errors.Is(s.Err, errBad) || s.Reloads != 1 ||
			strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("of a bad one: %+v\n%s", s, log.String())
		}
		turn("two")
		if s := after(time.Minute); s.Err != nil || s.Reloads != 1 ||
			!strings.Contains(log.String(), "as it was before") {
			t.Errorf("once it is good again: %+v\n%s", s, log.String())
		}
		if err := os.Rename(filepath.Join(dir, "..data"), filepath.Join(dir, "gone")); err != nil {
			t.Fatal(err)
		}
		if s := after(time.Hour); !errors.Is(s.Err, os.ErrNotExist) ||
			strings.Count(log.String(), "level=WARN") != 2 {
			t.Errorf("without files: %+v\n%s", s, log.String())
		}
		turn("one")
		if s := after(time.Minute); s.Err != nil || s.Reloads != 2 ||
			seen.taken()[len(seen.taken())-1] != "old+older" {
			t.Errorf("at the end: %+v, %v", s, seen.taken())
		}
		if strings.Contains(log.String(), "older") {
			t.Errorf("a secret is in the log:\n%s", log.String())
		}
		cancel()
	})
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	dir, large := t.TempDir(), filepath.Join(t.TempDir(), "large")
	write(t, large, strings.Repeat("x", maxFile+1))
	many := t.TempDir()
	for i := range maxFiles + 1 {
		write(t, filepath.Join(many, strings.Repeat("f", i+1)), "x")
	}
	for _, path := range []string{dir, filepath.Join(dir, "none"), large, many, "/dev/zero"} {
		w := New(time.Minute, slog.New(slog.DiscardHandler))
		err := w.Add("key", path, func([][]byte) error { return nil })
		if err == nil || !strings.Contains(err.Error(), path) || len(w.States()) != 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestATokenIsOneWord(t *testing.T) {
	var token Token
	if err := token.Take([][]byte{[]byte("eyJ.x.y\n")}); err != nil || token.Text() != "eyJ.x.y" {
		t.Errorf("%q, %v", token.Text(), err)
	}
	for _, bad := range [][][]byte{
		nil, {[]byte(" \n")}, {[]byte("a b")}, {[]byte("a\nb")}, {[]byte("a\x7f")},
		{[]byte("a"), []byte("b")},
	} {
		if token.Take(bad) == nil || token.Text() != "eyJ.x.y" {
			t.Errorf("%q was taken", bad)
		}
	}
}
