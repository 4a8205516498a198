package cluster

import (
	"io"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"
)

// FaultyDisk is a disk for tests; its Open method is a Config.Stores. It can
// hang or fail every write. Opened again it holds what was written before: a
// server that restarts with its disk.
type FaultyDisk struct {
	open OpenStores

	mu     sync.Mutex
	resume chan struct{} // non-nil while writes hang
	err    error
	writes int
}

// NewMemoryDisk returns a disk that lives in memory.
func NewMemoryDisk() *FaultyDisk {
	store, snaps := raft.NewInmemStore(), &memorySnapshots{}
	return &FaultyDisk{open: func(
		string,
	) (raft.LogStore, raft.StableStore, raft.SnapshotStore, io.Closer, error) {
		return store, store, snaps, nopCloser{}, nil
	}}
}

// NewFaultyDisk returns a disk that really writes, with bolt.
func NewFaultyDisk() *FaultyDisk {
	return &FaultyDisk{open: boltStores(slog.New(slog.DiscardHandler))}
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// Hang makes all writes wait, from now on, until Resume.
func (d *FaultyDisk) Hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resume == nil {
		d.resume = make(chan struct{})
	}
}

// Resume lets writes go on.
func (d *FaultyDisk) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resume != nil {
		close(d.resume)
		d.resume = nil
	}
}

// Fail makes all writes fail with err, until it is called with nil.
func (d *FaultyDisk) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// pass waits while the disk hangs, and returns the error it is to fail with.
func (d *FaultyDisk) pass() error {
	d.mu.Lock()
	d.writes++
	resume := d.resume
	d.mu.Unlock()
	if resume != nil {
		<-resume
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Open opens the stores. The io.Closer it returns also is the canary.
func (d *FaultyDisk) Open(
	dir string,
) (raft.LogStore, raft.StableStore, raft.SnapshotStore, io.Closer, error) {
	log, stable, snaps, closer, err := d.open(dir)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	return &faultyLog{log, d}, &faultyStable{stable, d}, snaps, &faultyCloser{closer, d}, nil
}

type faultyCloser struct {
	io.Closer
	disk *FaultyDisk
}

// Canary is the test write of this disk.
func (c *faultyCloser) Canary() error { return c.disk.pass() }

type faultyLog struct {
	raft.LogStore
	disk *FaultyDisk
}

func (f *faultyLog) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

func (f *faultyLog) StoreLogs(logs []*raft.Log) error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.LogStore.StoreLogs(logs)
}

func (f *faultyLog) DeleteRange(low, high uint64) error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.LogStore.DeleteRange(low, high)
}

type faultyStable struct {
	raft.StableStore
	disk *FaultyDisk
}

func (f *faultyStable) Set(key, value []byte) error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.StableStore.Set(key, value)
}

func (f *faultyStable) SetUint64(key []byte, value uint64) error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.StableStore.SetUint64(key, value)
}
