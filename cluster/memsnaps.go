package cluster

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// memorySnapshots keeps snapshots in memory the way a disk does: a snapshot is
// there once it was closed, and a crash in the middle of one leaves the last.
type memorySnapshots struct {
	mu   sync.Mutex
	kept []*memorySnapshot // newest first
	made int
}

type memorySnapshot struct {
	store   *memorySnapshots
	meta    raft.SnapshotMeta
	content bytes.Buffer
}

// Create implements raft.SnapshotStore.
func (m *memorySnapshots) Create(
	version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return &memorySnapshot{store: m, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, m.made), Index: index,
		Term:          term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (m *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*raft.SnapshotMeta
	for _, s := range m.kept {
		meta := s.meta
		list = append(list, &meta)
	}
	return list, nil
}

// Open implements raft.SnapshotStore.
func (m *memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.kept {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.content.Bytes())), nil
		}
	}
	return nil, nil, fmt.Errorf("cluster: there is no snapshot %s", id)
}

// ID implements raft.SnapshotSink.
func (s *memorySnapshot) ID() string { return s.meta.ID }

// Write implements raft.SnapshotSink.
func (s *memorySnapshot) Write(b []byte) (int, error) {
	s.meta.Size += int64(len(b))
	return s.content.Write(b)
}

// Cancel implements raft.SnapshotSink.
func (s *memorySnapshot) Cancel() error { return nil }

// Close implements raft.SnapshotSink: from here on the snapshot is there.
func (s *memorySnapshot) Close() error {
	m := s.store
	m.mu.Lock()
	defer m.mu.Unlock()
	at := 0
	for at < len(m.kept) && newerSnapshot(&m.kept[at].meta, &s.meta) {
		at++
	}
	m.kept = append(m.kept[:at], append([]*memorySnapshot{s}, m.kept[at:]...)...)
	m.kept = m.kept[:min(len(m.kept), keepSnapshots)]
	return nil
}

func newerSnapshot(a, b *raft.SnapshotMeta) bool {
	if a.Term != b.Term {
		return a.Term > b.Term
	}
	return a.Index > b.Index
}
