package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
)

// guarded turns a panic of f, or a fault in a memory-mapped file, into an error. Bolt
// trusts its pages, so a damaged file can cause either.
func guarded(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable: %v", p)
		}
	}()
	return f()
}

// verifyStores reads everything that raft would trust. Bolt has no checksum over its
// data pages. Raft skips a snapshot that it cannot read, although the log before the
// snapshot is gone.
func verifyStores(
	dir string, s Stores, checkEntry func([]byte) error, sizes *logSize,
) error {
	newest, err := verifySnapshots(dir, s.Snapshots)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, LogFile)
	err = guarded(func() error {
		if _, err := raft.HasExistingState(s.Log, s.Stable, s.Snapshots); err != nil {
			return err
		}
		if dir != "" && newest.Index > 0 {
			// Raft has written its term before it wrote any snapshot.
			if term, err := s.Stable.GetUint64([]byte("CurrentTerm")); err != nil || term == 0 {
				return errors.New("without a term beside existing snapshots")
			}
		}
		if err := dropSuperseded(s.Log, newest); err != nil {
			return err
		}
		return verifyLog(s.Log, newest.Index, checkEntry, sizes)
	})
	if err != nil {
		return datadir.Corrupt(file, err)
	}
	return nil
}

// dropSuperseded removes a log that does not lead up to the newest snapshot. Such a
// log is left when a snapshot was installed and the server died before it removed the
// log. Going on with the log would leave a gap.
func dropSuperseded(log raft.LogStore, newest raft.SnapshotMeta) error {
	old, err := superseded(log, newest)
	if err != nil || !old {
		return err
	}
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	return log.DeleteRange(first, last)
}

// superseded reports whether there is a log that does not lead up to the newest snapshot.
func superseded(log raft.LogStore, newest raft.SnapshotMeta) (bool, error) {
	first, err := log.FirstIndex()
	if err != nil || first == 0 || newest.Index < first {
		return false, err
	}
	last, err := log.LastIndex()
	if err != nil || last < newest.Index {
		return true, err
	}
	var l raft.Log
	if err := log.GetLog(newest.Index, &l); err != nil {
		return false, fmt.Errorf("entry %d: %w", newest.Index, err)
	}
	return l.Term != newest.Term, nil
}

// verifyLog checks that the log goes on where the snapshot ends, that it has no holes,
// and that checkEntry accepts every command entry. It notes the sizes of the entries.
func verifyLog(
	log raft.LogStore, snapshot uint64, checkEntry func([]byte) error, sizes *logSize,
) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	if first > snapshot+1 {
		return fmt.Errorf("the log begins at %d, but the newest snapshot ends at %d", first,
			snapshot)
	}
	term := uint64(0)
	for i := first; i != 0 && i <= last; i++ {
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if l.Index != i || l.Term < term || l.Type > raft.LogConfiguration {
			return fmt.Errorf("entry %d claims index %d, term %d, type %d", i, l.Index, l.Term,
				l.Type)
		}
		term = l.Term
		sizes.add(i, len(l.Data))
		if l.Type == raft.LogCommand {
			if err := checkEntry(l.Data); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
	}
	return nil
}

// verifySnapshots checks every finished snapshot and returns the newest. Without a
// directory the snapshots are in memory and need no check.
func verifySnapshots(dir string, store raft.SnapshotStore) (newest raft.SnapshotMeta, err error) {
	if dir == "" {
		list, err := store.List()
		if len(list) > 0 {
			newest = *list[0]
		}
		return newest, err
	}
	return verifySnapshotFiles(filepath.Join(dir, SnapshotDir))
}

func verifySnapshotFiles(dir string) (newest raft.SnapshotMeta, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return newest, nil
	}
	if err != nil {
		return newest, fmt.Errorf("cluster: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		meta, err := verifySnapshot(filepath.Join(dir, e.Name()))
		if err != nil {
			return newest, err
		}
		if Newer(&meta.SnapshotMeta, &newest) {
			newest = meta.SnapshotMeta
		}
	}
	return newest, nil
}

// snapshotMeta is the meta.json of raft's file store.
type snapshotMeta struct {
	raft.SnapshotMeta
	CRC []byte
}

func verifySnapshot(dir string) (snapshotMeta, error) {
	var meta snapshotMeta
	name := filepath.Join(dir, "meta.json")
	b, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, &meta)
	}
	if err != nil {
		return meta, datadir.Corrupt(name, err)
	}
	name = filepath.Join(dir, "state.bin")
	f, err := os.Open(name)
	if err != nil {
		return meta, datadir.Corrupt(name, err)
	}
	defer func() { _ = f.Close() }()
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	size, err := io.Copy(sum, f)
	if err != nil {
		return meta, datadir.Corrupt(name, err)
	}
	if string(sum.Sum(nil)) != string(meta.CRC) {
		return meta, datadir.Corrupt(name, fmt.Errorf("checksum mismatch over %d bytes", size))
	}
	return meta, nil
}

// Newer reports whether snapshot a follows b.
func Newer(a, b *raft.SnapshotMeta) bool {
	if a.Term != b.Term {
		return a.Term > b.Term
	}
	return a.Index > b.Index
}
