package clustertest

import (
	"io"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// Disk is a cluster.Disk that can make every write hang or fail. Opened again it holds
// what was written before: a server that restarts with its disk.
type Disk struct {
	// Tested, when set before the disk is opened, is called for each test write.
	Tested func()

	inner store.Disk

	mu     sync.Mutex
	resume chan struct{} // non-nil while writes hang
	err    error
}

// NewMemoryDisk returns a disk that lives in memory.
func NewMemoryDisk() *Disk {
	return &Disk{inner: memoryDisk{raft.NewInmemStore(), &snapshots{}}}
}

// NewFileDisk returns a disk that writes files, as in production.
func NewFileDisk() *Disk {
	return &Disk{inner: store.Bolt{Logger: hclog.NewNullLogger()}}
}

type memoryDisk struct {
	log   *raft.InmemStore
	snaps *snapshots
}

func (d memoryDisk) Open(string) (store.Stores, error) {
	return store.Stores{
		Log: d.log, Stable: d.log, Snapshots: d.snaps, Closer: io.NopCloser(nil),
	}, nil
}

// Hang makes all writes wait, from now on, until Resume.
func (d *Disk) Hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resume == nil {
		d.resume = make(chan struct{})
	}
}

// Resume lets writes go on.
func (d *Disk) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resume != nil {
		close(d.resume)
		d.resume = nil
	}
}

// Fail makes all writes fail with err, until it is called with nil.
func (d *Disk) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// pass waits while the disk hangs, and returns the error that it is to fail with.
func (d *Disk) pass() error {
	d.mu.Lock()
	resume := d.resume
	d.mu.Unlock()
	if resume != nil {
		<-resume
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Open implements cluster.Disk.
func (d *Disk) Open(dir string) (store.Stores, error) {
	s, err := d.inner.Open(dir)
	if err != nil {
		return store.Stores{}, err
	}
	s.Log, s.Stable, s.TestWrite = &faultyLog{s.Log, d}, &faultyStable{s.Stable, d}, d.test
	return s, nil
}

// test is a test write.
func (d *Disk) test() error {
	if d.Tested != nil {
		d.Tested()
	}
	return d.pass()
}

type faultyLog struct {
	raft.LogStore
	disk *Disk
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
	disk *Disk
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
