package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/snapshots"
)

// Snapshot describes a saved snapshot and what is in it.
type Snapshot struct {
	cluster.SnapshotInfo
	Epoch                  uint64 // times the cluster began again from a snapshot
	Tenants, Shards, Nodes int
}

// InspectSnapshot reads a saved snapshot to its end and checks all of it.
func InspectSnapshot(r io.Reader) (s Snapshot, err error) {
	content, info, err := ReadState(r)
	if s.SnapshotInfo = info; err != nil {
		return s, err
	}
	s.Epoch, s.Tenants, s.Shards = content.Epoch, content.TenantCount(), content.ShardCount()
	for range content.Nodes() {
		s.Nodes++
	}
	return s, nil
}

// Restored says what RestoreSnapshot made.
type Restored struct {
	ServerID, ClusterID string

	// Exhausted are the shards for which the jump has left no generation: they can never
	// be attached again.
	Exhausted []string
}

// RestoreSnapshot fills an empty data directory from a saved snapshot, as the
// beginning of a new cluster: it is not known which generations the old one issued
// after the snapshot was saved, so all that it may have issued are jumped over,
// and members of the two clusters refuse each other. clusterID names the new
// cluster, for a restore on several servers; empty makes a new id.
//
// A snapshot must not be used for this twice at different times: the second
// cluster would begin with the generations of the first.
func RestoreSnapshot(
	ctx context.Context, r io.Reader, to cluster.Restore, clusterID string,
) (done Restored, err error) {
	if clusterID == "" {
		clusterID = newClusterID()
	}
	done.ClusterID = clusterID
	to.Rewrite = func(state io.Reader) (io.WriterTo, string, error) {
		old, err := fsm.ReadSnapshot(state)
		if err != nil {
			return nil, "", err
		}
		next, err := fsm.Recover(old, clusterID)
		if err != nil {
			return nil, "", err
		}
		done.Exhausted = exhausted(next)
		return fsm.SnapshotWriter{State: next}, clusterID, nil
	}
	if done.ServerID, err = cluster.RestoreDataDir(ctx, r, to); err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	return done, nil
}

// exhausted lists the shards that have no generation left.
func exhausted(s *fsm.State) (ids []string) {
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		if sh.Exhausted() {
			ids = append(ids, sh.ID.String())
		}
	}
	return ids
}

// openSaves prepares the directory of snapshots, if one is configured.
func (a *App) openSaves(registry prometheus.Registerer) (err error) {
	o := a.cfg.Saves
	if o.Dir == "" {
		return nil
	}
	a.saver, err = snapshots.New(snapshots.Options{
		Dir: o.Dir, Server: a.cluster.ID(), Every: o.Every, Keep: o.Keep, Logger: a.log,
		Save: a.cluster.SnapshotTo,
	})
	if err != nil {
		return err
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "storage_controller_saved_snapshot_age_seconds",
		Help: "Age of the newest snapshot in --snapshot-dir; infinite without one",
	}, func() float64 {
		at := a.saver.Newest()
		if at.IsZero() {
			return math.Inf(1)
		}
		return time.Since(at).Seconds()
	}))
	return nil
}

// ReadState reads the state out of a saved snapshot, and checks all of it.
func ReadState(r io.Reader) (*fsm.State, cluster.SnapshotInfo, error) {
	var state bytes.Buffer
	info, err := cluster.InspectSnapshot(r, &state)
	if err != nil {
		return nil, info, err
	}
	s, err := fsm.ReadSnapshot(&state)
	return s, info, err
}
