package clustertest

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// snapshots keeps snapshots in memory the way a disk does. A snapshot is there once it
// was closed. A crash in the middle of one leaves the one before.
type snapshots struct {
	mu   sync.Mutex
	kept []*snapshot // newest first
	made int
}

type snapshot struct {
	store   *snapshots
	meta    raft.SnapshotMeta
	content bytes.Buffer
}

// Create implements raft.SnapshotStore.
func (m *snapshots) Create(
	version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return &snapshot{store: m, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, m.made), Index: index,
		Term:          term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (m *snapshots) List() ([]*raft.SnapshotMeta, error) {
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
func (m *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.kept {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.content.Bytes())), nil
		}
	}
	return nil, nil, fmt.Errorf("clustertest: there is no snapshot %s", id)
}

// ID implements raft.SnapshotSink.
func (s *snapshot) ID() string { return s.meta.ID }

// Write implements raft.SnapshotSink.
func (s *snapshot) Write(b []byte) (int, error) {
	s.meta.Size += int64(len(b))
	return s.content.Write(b)
}

// Cancel implements raft.SnapshotSink.
func (s *snapshot) Cancel() error { return nil }

// Close implements raft.SnapshotSink: from here on the snapshot is there.
func (s *snapshot) Close() error {
	m := s.store
	m.mu.Lock()
	defer m.mu.Unlock()
	at := 0
	for at < len(m.kept) && store.Newer(&m.kept[at].meta, &s.meta) {
		at++
	}
	m.kept = append(m.kept[:at], append([]*snapshot{s}, m.kept[at:]...)...)
	m.kept = m.kept[:min(len(m.kept), store.KeepSnapshots)]
	return nil
}
