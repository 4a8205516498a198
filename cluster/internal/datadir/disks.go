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
}

// LoadKnownDisks reads the disks from the directory. Without a directory nothing is
// remembered.
func LoadKnownDisks(dir *Dir) (*KnownDisks, error) {
	k := &KnownDisks{dir: dir, ids: make(map[string]string)}
	if dir == nil {
		return k, nil
	}
	name := filepath.Join(dir.path, knownDisksFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := json.Unmarshal(b, &k.ids); err != nil {
		return nil, Corrupt(name, err)
	}
	return k, nil
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
