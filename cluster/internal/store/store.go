// Package store keeps a server's log, vote and snapshots on a disk that may be
// damaged, full or hanging.
//
// It verifies the files before Raft reads them. It stands between Raft and the
// disk, so that a write that hangs does not leave a leader that does nothing. It
// judges the disk by all writes, and by test writes while nothing else is written.
//
// It knows nothing of the other servers. What depends on them (whether this server
// leads, whether a majority can write without it) comes in through Hooks.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
)

var (
	// ErrDisk: the disk hangs, is full, or refuses writes.
	ErrDisk = errors.New("cluster: disk unhealthy")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("cluster: closed")
	// ErrUnfit: the disk has not worked for long enough to lead.
	ErrUnfit = errors.New("cluster: not healthy enough to lead")
)

// Limits are the durations that the disk is judged by.
type Limits struct {
	Write     time.Duration // for one write, before it counts as hanging
	Grace     time.Duration // beyond Write, for a leader without which no majority can write
	TestWrite time.Duration // the pause between two test writes
	Recovery  time.Duration // how long the disk must work again before the server may lead
}

// Hooks are how the store asks and tells about the rest of the server. All may be
// called from the goroutines of Raft, and must not wait for Raft.
type Hooks struct {
	// Leads reports whether this server leads.
	Leads func() bool
	// Applied is the newest entry that was applied and is on the disk: it is committed.
	Applied func() uint64
	// Changed is called when the verdict on the disk may have changed.
	Changed func()
	// MajorityWrites is called when a write of a leader is overdue. The channel is
	// closed when a majority without this server can write, or when limit has passed.
	// What it starts ends with ctx.
	MajorityWrites func(ctx context.Context, limit time.Duration) <-chan struct{}
	// Appended is called after entries were added to the log, with how long that took.
	Appended func(took time.Duration, bytes int)
}

// Options say how to open a store.
type Options struct {
	Dir    string // "" if the disk is not in files
	Disk   Disk
	Limits Limits
	Hooks  Hooks
	Log    *slog.Logger
	// CheckEntry returns an error for a command entry that is damaged.
	CheckEntry func(entry []byte) error
}

// Store is the opened disk of a server. Its methods make it raft's LogStore and
// StableStore.
type Store struct {
	*guard
	Health *Health
	stores Stores

	testWrite testWrite
	// journalWrite is a test write that needs the file system's journal. It is nil
	// without a data directory.
	journalWrite testWrite
	stopTests    func()
	markFile     string // "" if the log is not in a file
}

// Open opens and verifies the stores, and makes the first test write: a disk that is
// full or read-only now is an error of Open.
func Open(o Options) (_ *Store, err error) {
	if o.Dir != "" {
		if err := checkBolt(filepath.Join(o.Dir, LogFile)); err != nil {
			return nil, openError(o.Dir, err)
		}
	}
	if err := removeLeftovers(o.Dir); err != nil {
		return nil, err
	}
	s := &Store{Health: newHealth(o.Log, o.Limits, o.Hooks)}
	err = guarded(func() (err error) {
		s.stores, err = o.Disk.Open(o.Dir)
		return err
	})
	if err != nil {
		return nil, openError(o.Dir, err)
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	sizes := &logSize{}
	if err := verifyStores(o.Dir, s.stores, o.CheckEntry, sizes); err != nil {
		return nil, err
	}
	s.guard = newGuard(s.stores, s.Health, sizes)
	if o.Dir != "" {
		if err := s.checkMark(o.Dir); err != nil {
			return nil, err
		}
	}
	return s, s.openTestWrites(o.Dir)
}

// removeLeftovers removes what a crash has left of snapshots. Raft passes over it for ever.
func removeLeftovers(dir string) error {
	if dir == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(dir, SnapshotDir, "*.tmp"))
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

func (s *Store) openTestWrites(dir string) error {
	if s.stores.TestWrite != nil {
		s.testWrite = s.stores.TestWrite
		return nil
	}
	if dir == "" {
		return nil
	}
	test, stop, err := openTestFile(dir)
	if err != nil {
		return err
	}
	s.testWrite, s.stopTests, s.journalWrite = test, stop, newJournalWrite(dir)
	if err := test(); err != nil {
		return fmt.Errorf("%w: test write in %s: %w", ErrDisk, dir, err)
	}
	return nil
}

// openError sorts out why the stores do not open.
func openError(dir string, err error) error {
	if dir == "" || isDiskError(err) {
		return fmt.Errorf("cluster: open stores: %w", err)
	}
	return datadir.Corrupt(filepath.Join(dir, LogFile), err)
}

func isDiskError(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.Is(err, syscall.EROFS) ||
		errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EIO)
}

// Snapshots are the snapshots.
func (s *Store) Snapshots() raft.SnapshotStore { return s.stores.Snapshots }

// HasState reports whether the server has ever had a term, an entry or a snapshot.
func (s *Store) HasState() (bool, error) {
	return raft.HasExistingState(s.stores.Log, s.stores.Stable, s.stores.Snapshots)
}

// Bootstrap writes the first membership into an empty log. It must not be called
// after Raft began to use the store.
func (s *Store) Bootstrap(rc *raft.Config, t raft.Transport, conf raft.Configuration) error {
	return raft.BootstrapCluster(rc, s.stores.Log, s.stores.Stable, s.stores.Snapshots, t, conf)
}

// Watch makes test writes until ctx ends.
func (s *Store) Watch(ctx context.Context) {
	if s.testWrite != nil {
		s.Health.watch(ctx, s.testWrite)
	}
}

// ProveWritable proves that this server could lead: its disk has worked for long enough,
// and a write comes back that waits for the file system's journal and for the log
// writes under way.
func (s *Store) ProveWritable(ctx context.Context) error {
	write := s.journalWrite
	if write == nil {
		write = s.testWrite
	}
	if write == nil || !s.Health.Fit() {
		return ErrUnfit
	}
	if err := s.guard.test(ctx, write); err != nil {
		return err
	}
	if !s.Health.Fit() {
		return ErrUnfit
	}
	return nil
}

// Stop fails all writes from now on. A write that hangs in the kernel is left behind.
func (s *Store) Stop() {
	if s.guard != nil {
		s.guard.stop()
	}
}

// Close stops the store and closes the files. Raft must have ended.
func (s *Store) Close() {
	s.Stop()
	if s.stores.Closer != nil {
		_ = s.stores.Closer.Close()
	}
	if s.stopTests != nil {
		s.stopTests()
	}
}
