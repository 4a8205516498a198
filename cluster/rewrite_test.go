package cluster

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"quorate/cluster/clustertest"
)

func TestRestoreRewritesStateAndClusterID(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	from, err := Open(ctx,
		Config{ID: "a", RaftListen: "127.0.0.1:0", Disk: clustertest.NewMemoryDisk()},
		&echoMachine{state: []byte("before")})
	if err != nil {
		t.Fatal(err)
	}
	for from.Status().AppliedIndex == 0 || !from.IsLeader() {
		if ctx.Err() != nil {
			t.Fatal("no leader")
		}
		_ = from.ReadBarrier(ctx)
	}
	var saved bytes.Buffer
	if err := from.SnapshotTo(ctx, &saved); err != nil {
		t.Fatal(err)
	}
	if err := from.Close(ctx); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = RestoreDataDir(ctx, &saved, Restore{
		DataDir: dir, ID: "b", Members: []Member{{ID: "b", RaftAddr: "127.0.0.1:0"}},
		Rewrite: func(state io.Reader) (io.WriterTo, string, error) {
			old, err := io.ReadAll(state)
			if string(old) != "before" {
				t.Errorf("the state to rewrite is %q", old)
			}
			return bytes.NewBufferString("after, and longer"), "new", err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &echoMachine{}
	to, err := Open(ctx, Config{DataDir: dir, RaftListen: "127.0.0.1:0"}, m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close(ctx) }()
	if string(m.state) != "after, and longer" || to.ClusterID() != "new" || to.ID() != "b" {
		t.Errorf("restored %q in cluster %s as %s", m.state, to.ClusterID(), to.ID())
	}
}

// echoMachine holds bytes that only Restore changes.
type echoMachine struct{ state []byte }

func (m *echoMachine) Apply(batch []Entry) []any      { return make([]any, len(batch)) }
func (m *echoMachine) Snapshot() (io.WriterTo, error) { return bytes.NewBuffer(m.state), nil }
func (m *echoMachine) Restore(r io.Reader) (err error) {
	m.state, err = io.ReadAll(r)
	return err
}
