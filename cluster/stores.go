package cluster

import (
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

const (
	logFile = "raft.db"
	// keepSnapshots of them are kept: the newest, and one to fall back to.
	keepSnapshots = 2
	// maxAppendEntries bounds the entries raft reads for one append. An entry
	// holds up to 1 MB, so raft's maximum of 1,024 could mean a gigabyte. The
	// reason to raise it, a backlog of single-command entries, does not exist
	// here: concurrent commands share entries.
	maxAppendEntries = 64
)

// boltStores opens the durable stores. Bolt without a synced free list and with
// the map type keeps appending in 0.3 ms after a large truncation; its defaults
// then need 2.7 ms.
func boltStores(log *slog.Logger) OpenStores {
	return func(
		dir string,
	) (raft.LogStore, raft.StableStore, raft.SnapshotStore, io.Closer, error) {
		db, err := raftboltdb.New(raftboltdb.Options{
			Path: filepath.Join(dir, logFile),
			BoltOptions: &bbolt.Options{
				Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
			},
		})
		if err != nil {
			return nil, nil, nil, nil, err
		}
		snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, raftLogger(log))
		if err != nil {
			_ = db.Close()
			return nil, nil, nil, nil, err
		}
		return db, db, snaps, db, nil
	}
}
