package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"golang.org/x/sys/unix"

	"quorate/cluster/internal/datadir"
)

// MarkFile says, beside the log, how far the log had come. A log that has less was put
// back: an older copy of it, or pages that the disk has forgotten.
const MarkFile = "log_mark"

// markSize is one sector, which a crash leaves old or new.
const markSize = 512

// Mark is how far a server had come, coarsely: everything in it was on its disk, and
// committed, when it was written.
type Mark struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"` // of an entry that was applied
	// Leader is the one that was known then, and Contact when it was last heard of.
	Leader  string    `json:"leader,omitempty"`
	Contact time.Time `json:"contact,omitzero"`
}

// ReadMark reads the mark of a data directory. Without one, or with one that was not
// written to its end, it is zero.
func ReadMark(dir string) (m Mark, err error) {
	b, err := os.ReadFile(filepath.Join(dir, MarkFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) < 8 {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("cluster: %w", err)
	}
	size := binary.BigEndian.Uint32(b)
	if uint64(size) > uint64(len(b)-8) {
		return m, nil
	}
	body := b[8 : 8+size]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(b[4:]) ||
		json.Unmarshal(body, &m) != nil {
		return Mark{}, nil
	}
	return m, nil
}

// SetMark writes the mark, behind the log writes under way, until ctx ends.
func (s *Store) SetMark(ctx context.Context, m Mark) error {
	if s.markFile == "" {
		return nil
	}
	body, err := json.Marshal(m)
	if err != nil || len(body) > markSize-8 {
		return errors.Join(err, errors.New("cluster: the mark is too large"))
	}
	b := make([]byte, markSize)
	binary.BigEndian.PutUint32(b, uint32(len(body)))
	binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(body))
	copy(b[8:], body)
	return s.guard.test(ctx, func() (err error) {
		f, err := os.OpenFile(s.markFile, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if _, err := f.WriteAt(b, 0); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	})
}

// Write runs a write of a small file behind the log writes under way, until ctx ends. One
// that hangs in the kernel is left behind.
func (s *Store) Write(ctx context.Context, write func() error) error {
	return s.guard.test(ctx, write)
}

// checkMark refuses a log that has less than was marked.
func (s *Store) checkMark(dir string) error {
	file := filepath.Join(dir, LogFile)
	if info, err := os.Stat(file); err != nil || info.IsDir() {
		return nil // the log is elsewhere
	}
	m, err := ReadMark(dir)
	if err != nil {
		return err
	}
	term, last, err := s.position()
	if err != nil {
		return datadir.Corrupt(file, err)
	}
	if term < m.Term || last < m.Index {
		return datadir.Corrupt(file, fmt.Errorf("%w: it ends with entry %d in term %d, and had "+
			"entry %d in term %d", datadir.ErrGoneBack, last, term, m.Index, m.Term))
	}
	s.markFile = filepath.Join(dir, MarkFile)
	s.guard.marked.Store(m.Index)
	return nil
}

// position is the newest term, and the newest entry of the log or the snapshots.
func (s *Store) position() (term, last uint64, err error) {
	err = guarded(func() error {
		if term, err = s.stores.Stable.GetUint64([]byte("CurrentTerm")); err != nil &&
			!errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return err
		}
		if last, err = s.stores.Log.LastIndex(); err != nil {
			return err
		}
		list, err := s.stores.Snapshots.List()
		if err == nil && len(list) > 0 {
			last = max(last, list[0].Index)
		}
		return err
	})
	return term, last, err
}

// Position is the newest term, and the newest entry, on the disk.
func (s *Store) Position() (term, last uint64) {
	term, last, err := s.position()
	if err != nil {
		return 0, 0
	}
	return term, last
}

// keyIdentity is where the log says of which server and which disk it is.
var keyIdentity = []byte("Identity")

// Identity returns what the log says of itself, "" if it says nothing.
func (s *Store) Identity() (string, error) {
	b, err := s.stores.Stable.Get(keyIdentity)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return "", nil
	}
	return string(b), err
}

// SetIdentity writes it. It must not be called after Raft began to use the store.
func (s *Store) SetIdentity(id string) error {
	return s.stores.Stable.Set(keyIdentity, []byte(id))
}

// InDir is the log in a directory that no Store has open, for its identity.
type InDir string

// Identity is Store.Identity.
func (d InDir) Identity() (id string, err error) {
	return id, d.with(func(s *Store) error { id, err = s.Identity(); return err })
}

// SetIdentity is Store.SetIdentity.
func (d InDir) SetIdentity(id string) error {
	return d.with(func(s *Store) error { return s.SetIdentity(id) })
}

// HasState is Store.HasState.
func (d InDir) HasState() (state bool, err error) {
	return state, d.with(func(s *Store) error { state, err = s.HasState(); return err })
}

func (d InDir) with(f func(*Store) error) error {
	stores, err := Bolt{hclog.NewNullLogger()}.Open(string(d))
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return errors.Join(f(&Store{stores: stores}), stores.Closer.Close())
}
