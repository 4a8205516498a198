package store_test

import (
	"testing"

	"github.com/hashicorp/raft"

	"quorate/cluster/clustertest"
)

// TestLogBehindASnapshotIsDropped: a server that died after it had installed a
// snapshot and before it had removed its old log goes on from the snapshot, and a
// log that leads up to its own snapshot stays.
func TestLogBehindASnapshotIsDropped(t *testing.T) {
	for _, tt := range []struct {
		name        string
		last        uint64 // of the log, which begins at 1 in term 2
		index, term uint64 // of the snapshot
		kept        bool
	}{
		{"ends before it", 5, 9, 3, false},
		{"ends with it", 5, 5, 2, true},
		{"goes on after it", 5, 3, 2, true},
		{"holds another entry there", 5, 3, 3, false},
		{"no snapshot", 5, 0, 0, true},
		{"no log", 0, 9, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := clustertest.NewMemoryDisk()
			raw, err := disk.Open("")
			if err != nil {
				t.Fatal(err)
			}
			for i := range tt.last {
				if err := raw.Log.StoreLog(&raft.Log{
					Index: i + 1, Term: 2, Type: raft.LogNoop,
				}); err != nil {
					t.Fatal(err)
				}
			}
			if tt.index > 0 {
				sink, err := raw.Snapshots.Create(1, tt.index, tt.term, raft.Configuration{},
					1, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := sink.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := open(t, "", disk); err != nil {
				t.Fatal(err)
			}
			if last, _ := raw.Log.LastIndex(); (last == tt.last) != tt.kept {
				t.Errorf("the log ends at %d", last)
			}
		})
	}
}
