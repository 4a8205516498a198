// Package snapshots saves the state of a replica into a directory again and again, and
// keeps the newest files.
//
// It knows nothing of the state, and may not decide whether one is good enough: what saves
// it refuses one that lacks something.
package snapshots

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"quorate/internal/atomicfile"
	"quorate/internal/wait"
)

const (
	// timeFormat is that of the time in the name of a file. Names sort by time.
	timeFormat = "20060102T150405Z"
	extension  = ".snapshot"
	// retry is the pause after a state could not be saved.
	retry = time.Minute
)

// Options say what is saved where.
type Options struct {
	Dir    string // is made if it does not exist; replicas may share it
	Server string // is part of the names of the files; the others are left alone
	Every  time.Duration
	Keep   int // files
	// Save writes the whole newest state, or fails.
	Save   func(ctx context.Context, w io.Writer) error
	Logger *slog.Logger
}

// Saver saves snapshots.
type Saver struct {
	o        Options
	files    *regexp.Regexp // our files, with the time
	leftover *regexp.Regexp // what a crash leaves of one
	newest   atomic.Int64   // unix nanoseconds of the newest snapshot; 0 without one
}

// New makes the directory, removes what a crash has left in it, and finds the newest
// snapshot.
func New(o Options) (*Saver, error) {
	if o.Every <= 0 || o.Keep < 1 {
		return nil, errors.New("snapshots: the pause and the number to keep must be positive")
	}
	name := regexp.QuoteMeta(url.PathEscape(o.Server)) + `-(\d{8}T\d{6}Z)` +
		regexp.QuoteMeta(extension)
	s := &Saver{
		o: o, files: regexp.MustCompile(`^` + name + `$`),
		leftover: regexp.MustCompile(`^\.` + name + `\d+$`),
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	for _, e := range entries {
		if s.leftover.MatchString(e.Name()) {
			if err := os.Remove(filepath.Join(o.Dir, e.Name())); err != nil {
				return nil, fmt.Errorf("snapshots: %w", err)
			}
		}
		if m := s.files.FindStringSubmatch(e.Name()); m != nil {
			if at, err := time.Parse(timeFormat, m[1]); err == nil {
				s.newest.Store(max(s.newest.Load(), at.UnixNano()))
			}
		}
	}
	return s, nil
}

// Newest is when the newest snapshot was saved; zero without one.
func (s *Saver) Newest() time.Time {
	if at := s.newest.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// Run saves snapshots until ctx ends.
func (s *Saver) Run(ctx context.Context) {
	failing := false
	pause := max(0, time.Until(s.Newest().Add(s.o.Every)))
	for wait.Sleep(ctx, pause) == nil {
		err := s.save(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			s.o.Logger.Warn("No snapshot can be saved, trying again", "dir", s.o.Dir, "err", err)
		case err == nil && failing:
			s.o.Logger.Info("Snapshots are saved again", "dir", s.o.Dir)
		}
		failing, pause = err != nil, s.o.Every
		if failing {
			pause = min(retry, s.o.Every)
		}
	}
}

// save saves one snapshot, and removes the oldest ones.
func (s *Saver) save(ctx context.Context) error {
	at := time.Now().UTC().Truncate(time.Second)
	name := url.PathEscape(s.o.Server) + "-" + at.Format(timeFormat) + extension
	err := atomicfile.Write(filepath.Join(s.o.Dir, name), func(w io.Writer) error {
		return s.o.Save(ctx, w)
	})
	if err != nil {
		return err
	}
	s.newest.Store(at.UnixNano())
	return s.prune()
}

func (s *Saver) prune() error {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return err
	}
	var ours []string
	for _, e := range entries {
		if s.files.MatchString(e.Name()) {
			ours = append(ours, e.Name())
		}
	}
	slices.Sort(ours)
	for _, name := range ours[:max(0, len(ours)-s.o.Keep)] {
		if err := os.Remove(filepath.Join(s.o.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}
