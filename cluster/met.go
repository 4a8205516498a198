package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// metFile remembers which disk each member had. A member that comes back under
// its id with another disk has forgotten its votes and entries it acknowledged;
// counting it as its former self could lose committed entries, so it is refused.
const metFile = "met.json"

type met struct {
	dir *dataDir // nil: nothing is remembered
	mu  sync.Mutex
	ids map[string]string // server id -> incarnation
}

func loadMet(dir *dataDir) (*met, error) {
	m := &met{dir: dir, ids: make(map[string]string)}
	if dir == nil {
		return m, nil
	}
	name := filepath.Join(dir.path, metFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := json.Unmarshal(b, &m.ids); err != nil {
		return nil, corrupt(name, err)
	}
	return m, nil
}

// meet records the disk of a server, and reports false if a member has another
// one than before.
func (m *met) meet(id, incarnation string, member bool) (bool, error) {
	if m.dir == nil || incarnation == "" || id == "" {
		return true, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known, seen := m.ids[id]
	if known == incarnation {
		return true, nil
	}
	if seen && member {
		return false, nil
	}
	if len(m.ids) >= 1000 {
		return true, nil
	}
	m.ids[id] = incarnation
	b, err := json.Marshal(m.ids)
	if err != nil {
		return true, err
	}
	return true, m.dir.write(metFile, string(b))
}
