// Package spoil makes the state of a replica differ from what its log says, as faulty
// memory or a program that is not deterministic would. The replica does not notice.
//
// Nothing of a production binary may import it.
package spoil

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
)

// Node is a pageserver that only spoiled states have. It gets no shards. An answer that
// names it came from such a state.
const Node neon.NodeID = 4_000_000_000

// Machine is a state machine that can be spoiled between two entries of the log.
type Machine struct {
	mu    sync.Mutex // held while inner is called
	inner cluster.Machine
}

// New makes a Machine of one whose snapshots are those of package fsm.
func New(inner cluster.Machine) *Machine { return &Machine{inner: inner} }

// Apply is part of cluster.Machine.
func (m *Machine) Apply(batch []cluster.Entry) []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inner.Apply(batch)
}

// Snapshot is part of cluster.Machine.
func (m *Machine) Snapshot() (io.WriterTo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inner.Snapshot()
}

// Restore is part of cluster.Machine.
func (m *Machine) Restore(r io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inner.Restore(r)
}

// Digest makes the machine a cluster.Digester. Without a digest of the inner machine
// its scheme is 0.
func (m *Machine) Digest() (scheme, hash uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.inner.(cluster.Digester); ok {
		return d.Digest()
	}
	return 0, 0
}

// Spoil puts Node into the state. A state that has it already stays as it is.
func (m *Machine) Spoil() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, err := m.inner.Snapshot()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := now.WriteTo(&b); err != nil {
		return err
	}
	s, err := fsm.ReadSnapshot(&b)
	if err != nil {
		return err
	}
	for _, c := range []fsm.Command{
		fsm.RegisterNode{ID: Node, Addr: fsm.NodeAddr{HTTPHost: "spoiled", HTTPPort: 1}},
		fsm.SetNodeScheduling{Node: Node, Scheduling: neon.SchedulingPause},
	} {
		var r fsm.Result
		if s, r = fsm.Apply(s, s.Index, fsm.RequestID{}, c); r.Err != nil {
			return fmt.Errorf("spoil the state: %w", r.Err)
		}
	}
	b.Reset()
	if _, err := (fsm.SnapshotWriter{State: s}).WriteTo(&b); err != nil {
		return err
	}
	return m.inner.Restore(&b)
}
