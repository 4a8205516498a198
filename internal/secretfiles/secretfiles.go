// Package secretfiles reads keys and tokens from files, and reads them again, so that they
// can be exchanged without a restart. A name may be a directory, whose files are read in the
// order of their names. What is not taken leaves what was taken before.
//
// It knows no form of a secret, and never writes one into the log.
package secretfiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	maxFile  = 256 << 10 // bytes of one file
	maxFiles = 64        // of one directory
)

// Watcher reads files again and again. Its contents are compared and not their times: what
// stands behind a name may be exchanged by a link, as Kubernetes does it, and while that is
// done a directory may be half old.
type Watcher struct {
	every time.Duration
	log   *slog.Logger

	mu      sync.Mutex
	entries []*entry
}

// entry is one name. Only one goroutine at a time looks at it.
type entry struct {
	what, path string
	take       func(contents [][]byte) error
	last       [][]byte // what was taken

	mu      sync.Mutex // guards what follows
	reloads int
	err     error // of the last look
}

// State is what became of one name.
type State struct {
	What    string
	Reloads int   // how often something new was taken after the first time
	Err     error // why what is there now is not taken; nil: it is
}

// New makes a Watcher that looks each time that much later, at most each 10 ms.
func New(every time.Duration, log *slog.Logger) *Watcher {
	return &Watcher{every: max(every, 10*time.Millisecond), log: log}
}

// Add reads a file, or the files of a directory, and gives their contents to take. It is
// given those again whenever they have changed; an error leaves what it took before.
func (w *Watcher) Add(what, path string, take func(contents [][]byte) error) error {
	e := &entry{what: what, path: path, take: take}
	contents, err := read(path)
	if err == nil {
		err = take(contents)
	}
	if err != nil {
		return fmt.Errorf("%s from %s: %w", what, path, err)
	}
	e.last = contents
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = append(w.entries, e)
	return nil
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, e := range w.all() {
			e.look(w.log)
		}
	}
}

// States are what became of all names, in the order in which they were added.
func (w *Watcher) States() []State {
	var states []State
	for _, e := range w.all() {
		e.mu.Lock()
		states = append(states, State{What: e.what, Reloads: e.reloads, Err: e.err})
		e.mu.Unlock()
	}
	return states
}

func (w *Watcher) all() []*entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.entries)
}

// look reads once. An error is told once, until it is another one or over.
func (e *entry) look(log *slog.Logger) {
	contents, err := read(e.path)
	taken := false
	if err == nil && !same(contents, e.last) {
		if err = e.take(contents); err == nil {
			e.last, taken = contents, true
		}
	}
	e.mu.Lock()
	before := e.err
	e.err = err
	if taken {
		e.reloads++
	}
	e.mu.Unlock()
	switch {
	case taken:
		log.Info("Took what is new", "secret", e.what, "path", e.path)
	case err != nil && (before == nil || before.Error() != err.Error()):
		log.Warn("Keeping the old secret, since the new one is not good", "secret", e.what,
			"path", e.path, "err", err)
	case err == nil && before != nil:
		log.Info("The secret is as it was before", "secret", e.what, "path", e.path)
	}
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// read returns the contents of a file, or of the files in a directory but not below it.
func read(path string) ([][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		content, err := readFile(path)
		return [][]byte{content}, err
	}
	names, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	var contents [][]byte
	for _, n := range names {
		file := filepath.Join(path, n.Name())
		if info, err := os.Stat(file); err != nil {
			return nil, err
		} else if info.IsDir() {
			continue
		}
		if len(contents) == maxFiles {
			return nil, fmt.Errorf("more than %d files", maxFiles)
		}
		content, err := readFile(file)
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	if len(contents) == 0 {
		return nil, errors.New("no file in it")
	}
	return contents, nil
}

func readFile(path string) ([]byte, error) {
	// Opening a pipe would wait for its writer.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return content, err
}
