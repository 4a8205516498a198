package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// testWrite is a small write that shows whether the disk works.
type testWrite func() error

const (
	testFile = "canary"
	// journalFile changes in size with each write, so that syncing it needs the journal.
	journalFile = "test_write"
	// maxJournalFile is the size at which the journal file begins anew.
	maxJournalFile = 4096
)

// openTestFile returns a test write that overwrites one block in place, and is on the disk
// when it returns, in one call of the kernel. It syncs the data only, so it does not wait for
// the file system's journal.
func openTestFile(dir string) (write testWrite, stop func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, testFile), os.O_CREATE|os.O_RDWR|unix.O_DSYNC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("cluster: %w", err)
	}
	block := make([]byte, 512)
	return func() error {
		block[0]++
		_, err := f.WriteAt(block, 0)
		return err
	}, func() { _ = f.Close() }, nil
}

// newJournalWrite returns a test write that waits for the file system's journal.
func newJournalWrite(dir string) testWrite {
	name := filepath.Join(dir, journalFile)
	return func() (err error) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if info, err := f.Stat(); err == nil && info.Size() > maxJournalFile {
			if err := f.Truncate(0); err != nil {
				return err
			}
		}
		if _, err := f.Write(make([]byte, 64)); err != nil {
			return err
		}
		return f.Sync()
	}
}
