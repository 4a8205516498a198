package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"quorate/cluster/internal/datadir"
)

// Content is what a server has in its data directory, verified and read without a change
// to it.
type Content struct {
	Term     uint64            // the newest that the server has been in
	Snapshot raft.SnapshotMeta // the newest; its Index is 0 if there is none
	// Next is the first entry that follows the snapshot, Last the newest one on the disk.
	// There is none if Last is less than Next.
	Next, Last uint64
	LastTerm   uint64             // of Last
	LastAt     time.Time          // when a leader made it; zero if that is not known
	Members    raft.Configuration // the newest membership on the disk

	dir string
	log *raftboltdb.BoltStore
}

// Read opens the content of a data directory. No other process may use the directory.
func Read(dir string, checkEntry func([]byte) error) (_ *Content, err error) {
	file := filepath.Join(dir, LogFile)
	if err := checkBolt(file); err != nil {
		return nil, openError(dir, err)
	}
	c := &Content{dir: dir}
	err = guarded(func() (err error) {
		c.log, err = raftboltdb.New(raftboltdb.Options{Path: file, BoltOptions: &bbolt.Options{
			Timeout: time.Second, ReadOnly: true, NoFreelistSync: true,
		}})
		return err
	})
	if err != nil {
		return nil, openError(dir, err)
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.Snapshot, err = verifySnapshotFiles(filepath.Join(dir, SnapshotDir)); err != nil {
		return nil, err
	}
	c.Members = c.Snapshot.Configuration
	c.Next, c.Last, c.LastTerm = c.Snapshot.Index+1, c.Snapshot.Index, c.Snapshot.Term
	if err := guarded(func() error { return c.readLog(checkEntry) }); err != nil {
		return nil, datadir.Corrupt(file, err)
	}
	return c, nil
}

func (c *Content) readLog(checkEntry func([]byte) error) error {
	term, err := c.log.GetUint64([]byte("CurrentTerm"))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	c.Term = max(term, c.Snapshot.Term)
	old, err := superseded(c.log, c.Snapshot)
	if err != nil || old {
		return err
	}
	if err := verifyLog(c.log, c.Snapshot.Index, checkEntry, &logSize{}); err != nil {
		return err
	}
	first, err := c.log.FirstIndex()
	if err != nil || first == 0 {
		return err
	}
	if c.Last, err = c.log.LastIndex(); err != nil {
		return err
	}
	for i := first; i <= c.Last; i++ {
		var l raft.Log
		if err := c.log.GetLog(i, &l); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if l.Type == raft.LogConfiguration && i > c.Snapshot.Index {
			c.Members = raft.DecodeConfiguration(l.Data)
		}
		c.LastTerm, c.LastAt = l.Term, l.AppendedAt
	}
	return nil
}

// State opens what the snapshot holds. There must be one.
func (c *Content) State() (io.ReadCloser, error) {
	return os.Open(filepath.Join(c.dir, SnapshotDir, c.Snapshot.ID, "state.bin"))
}

// Entry reads one entry, from Next to Last.
func (c *Content) Entry(index uint64) (l raft.Log, err error) {
	err = guarded(func() error { return c.log.GetLog(index, &l) })
	return l, err
}

// Close closes the files.
func (c *Content) Close() {
	if c.log != nil {
		_ = c.log.Close()
	}
}
