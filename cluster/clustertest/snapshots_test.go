package clustertest

import (
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// TestMemorySnapshotsSurviveACrash: a snapshot that was not finished is not there,
// and the one before it is.
func TestMemorySnapshotsSurviveACrash(t *testing.T) {
	m := &snapshots{}
	take := func(index uint64, text string) raft.SnapshotSink {
		t.Helper()
		sink, err := m.Create(1, index, 2, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(sink, text); err != nil {
			t.Fatal(err)
		}
		return sink
	}
	for i := range uint64(4) {
		if err := take(i+1, "whole").Close(); err != nil {
			t.Fatal(err)
		}
	}
	take(9, "half")
	list, err := m.List()
	if err != nil || len(list) != store.KeepSnapshots || list[0].Index != 4 || list[1].Index != 3 {
		t.Fatalf("listed %v, %v", list, err)
	}
	for range 2 { // it can be read again
		_, r, err := m.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "whole" {
			t.Fatalf("read %q, %v", b, err)
		}
	}
}
