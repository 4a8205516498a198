package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// knownDisksFile keeps its first name, so that old directories can be read.
const knownDisksFile = "met.json"

// maxKnownDisks bounds the file.
const maxKnownDisks = 1000

// KnownDisks remembers which disk each server had.
//
// A member that comes back under its id with another disk has forgotten its votes and
// entries that it acknowledged. Counting it as its former self could lose committed
// entries, so it must be refused.
type KnownDisks struct {
	dir *Dir // nil: nothing is remembered
	mu  sync.Mutex
	ids map[string]string // server id -> disk id

	seen  map[string]Progress // by server id
	dirty bool                // seen is not in its file
}

// Progress is how far a server had come, coarsely, by its own word.
type Progress struct {
	Disk string `json:"disk"`
	Run  string `json:"run"` // of the process that said it
	// Term is the newest that it was in, and Index an entry on its disk that was committed.
	// Neither is ever less on that disk.
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// progressFile holds the progress of the other servers.
const progressFile = "progress.json"

// LoadKnownDisks reads the disks from the directory. Without a directory nothing is
// remembered.
func LoadKnownDisks(dir *Dir) (*KnownDisks, error) {
	k := &KnownDisks{dir: dir, ids: make(map[string]string), seen: make(map[string]Progress)}
	if dir == nil {
		return k, nil
	}
	for name, into := range map[string]any{knownDisksFile: &k.ids, progressFile: &k.seen} {
		name := filepath.Join(dir.path, name)
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			return nil, Corrupt(name, err)
		}
	}
	return k, nil
}

// GoneBack reports whether a server that has just said what is on its disk (p.Term, and
// p.Index as its last entry) had more there when another process ran on it. What one
// process says is not compared: its words may overtake each other.
func (k *KnownDisks) GoneBack(id string, p Progress) (had Progress, back bool) {
	if p.Disk == "" || p.Run == "" {
		return had, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	had, known := k.seen[id]
	if !known || had.Disk != p.Disk || had.Run == p.Run {
		return had, false
	}
	if p.Term < had.Term || p.Index < had.Index {
		return had, true
	}
	had.Run = p.Run
	k.seen[id], k.dirty = had, true
	return had, false
}

// Note remembers how far a server has come.
func (k *KnownDisks) Note(id string, p Progress) {
	if k.dir == nil || p.Disk == "" || p.Run == "" || id == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	had, known := k.seen[id]
	if !known && len(k.seen) >= maxKnownDisks {
		return
	}
	if had.Disk == p.Disk {
		// Only a greeting begins a new run: a late word of the former process would make
		// this one's own words comparable, which may overtake each other.
		p.Term, p.Index, p.Run = max(p.Term, had.Term), max(p.Index, had.Index), had.Run
	}
	if p != had {
		k.seen[id], k.dirty = p, true
	}
}

// SaveProgress writes what Note remembered, unless that is in the file already. It may be
// late or missing: then less is noticed.
func (k *KnownDisks) SaveProgress() error {
	if k.dir == nil {
		return nil
	}
	k.mu.Lock()
	b, err := json.Marshal(k.seen)
	dirty := k.dirty
	k.dirty = false
	k.mu.Unlock()
	if err != nil || !dirty {
		return err
	}
	return k.dir.write(progressFile, string(b))
}

// Disk returns the disk of a server, or "" if none is known.
func (k *KnownDisks) Disk(id string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ids[id]
}

// Record remembers the disk of a member that is new, and the new disk of a server that
// was a member once. It reports whether the disk is the one that is known: false means that
// a member comes with another disk than before. Strangers are not remembered: anybody
// can invent any number of them.
func (k *KnownDisks) Record(id, disk string, isMember func(id string) bool) (bool, error) {
	if k.dir == nil || disk == "" || id == "" {
		return true, nil
	}
	member := isMember(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	known, seen := k.ids[id]
	if known == disk {
		return true, nil
	}
	if seen && member {
		return false, nil
	}
	if !seen && !member || len(k.ids) >= maxKnownDisks {
		return true, nil
	}
	k.ids[id] = disk
	b, err := json.Marshal(k.ids)
	if err != nil {
		return true, err
	}
	return true, k.dir.write(knownDisksFile, string(b))
}
