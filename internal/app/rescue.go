package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	"quorate/cluster"
	"quorate/fsm"
)

// Rescue makes a cluster of one from a server that survived the loss of its cluster's
// majority: of everything on its disk, also entries that are not known to be committed. The
// generations jump as in RestoreSnapshot.
type Rescue struct {
	survivor *cluster.Survivor
	state    *fsm.State
}

// RescuePlan says what a rescue begins with.
type RescuePlan struct {
	cluster.SurvivorInfo
	Tenants int `json:"tenants"`
	Shards  int `json:"shards"`
	Nodes   int `json:"nodes"`
}

// Rescued says what a rescue made.
type Rescued struct {
	RescuePlan
	NewServerID  string `json:"new_server_id"`
	NewClusterID string `json:"new_cluster_id"`
	Aside        string `json:"aside"` // the directory with the old content

	// Exhausted are the shards for which the jump has left no generation.
	Exhausted []string `json:"exhausted,omitempty"`
}

// OpenRescue locks a data directory and computes the state. It changes nothing.
func OpenRescue(ctx context.Context, dataDir string) (*Rescue, error) {
	s, err := cluster.OpenSurvivor(dataDir)
	if err != nil {
		return nil, fmt.Errorf("rescue: %w", err)
	}
	m := &replay{store: fsm.NewStore()}
	if err := errors.Join(s.Replay(ctx, m), m.err); err != nil {
		s.Close()
		return nil, fmt.Errorf("rescue: %w", err)
	}
	return &Rescue{survivor: s, state: m.store.State()}, nil
}

// Close unlocks the directory.
func (r *Rescue) Close() { r.survivor.Close() }

// Plan says what the rescue begins with.
func (r *Rescue) Plan() RescuePlan {
	p := RescuePlan{
		SurvivorInfo: r.survivor.Info(), Tenants: r.state.TenantCount(),
		Shards: r.state.ShardCount(),
	}
	for range r.state.Nodes() {
		p.Nodes++
	}
	return p
}

// CheckOthersGone fails if other members answer.
func (r *Rescue) CheckOthersGone(ctx context.Context) error {
	return r.survivor.CheckOthersGone(r.survivor.Answering(ctx))
}

// State is the state after the newest entry on the disk.
func (r *Rescue) State() *fsm.State { return r.state }

// Do makes the cluster of one. Empty arguments keep the id and the address of the
// survivor.
func (r *Rescue) Do(serverID, raftAddr string) (Rescued, error) {
	done := Rescued{RescuePlan: r.Plan(), NewServerID: serverID, NewClusterID: newClusterID()}
	if done.NewServerID == "" {
		done.NewServerID = done.ServerID
	}
	next, err := fsm.Recover(r.state, done.NewClusterID)
	if err != nil {
		return done, fmt.Errorf("rescue: %w", err)
	}
	done.Exhausted = exhausted(next)
	done.Aside, err = r.survivor.Found(cluster.NewCluster{
		ClusterID: done.NewClusterID, ServerID: serverID, RaftAddr: raftAddr,
		State: fsm.SnapshotWriter{State: next},
	})
	if err != nil {
		return done, fmt.Errorf("rescue: %w", err)
	}
	return done, nil
}

// replay is a state machine that only reads a log.
type replay struct {
	store *fsm.Store
	err   error // an entry that this version cannot read
}

func (m *replay) Apply(batch []cluster.Entry) []any {
	for _, e := range batch {
		if m.err != nil {
			break
		}
		if err := fsm.Readable(e.Data); err != nil {
			m.err = fmt.Errorf("entry %d of the log: %w", e.Index, err)
			break
		}
		m.store.Apply([]fsm.Entry{{Index: e.Index, Data: e.Data}})
	}
	return nil
}

func (m *replay) Snapshot() (io.WriterTo, error) { return m.store.Snapshot(), nil }
func (m *replay) Restore(r io.Reader) error      { return m.store.Restore(r) }
