package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/controlsocket"
	"quorate/testcluster"
)

// seededShards is the number of shards of each seeded tenant.
const seededShards = 8

// seedBatch is how many tenants are applied at a time.
const seedBatch = 512

// seed replaces the state of a cluster without tenants by one that also has so
// many shards, and the disks of the pageservers by what they would hold then. A
// million shards through the API would take many minutes, and what is measured
// afterwards does not depend on how they came.
//
// The way is that of a restore: a snapshot is saved, everything is stopped, and
// the data directories are made anew from the snapshot with the tenants added.
func seed(ctx context.Context, c *testcluster.Cluster, shards int) error {
	if _, err := caughtUp(ctx, c); err != nil {
		return err
	}
	var saved bytes.Buffer
	if _, err := controlsocket.Dial(dataDir(c, 0)).Snapshot(ctx, cluster.SaveNewest,
		&saved); err != nil {
		return err
	}
	view, err := c.ClientOf(0).Cluster().Members(ctx)
	if err != nil {
		return err
	}
	for i := range c.Controllers() {
		if err := c.Kill(i); err != nil {
			return err
		}
	}
	for _, n := range c.Fleet().Nodes() {
		n.Kill()
	}
	placed, err := restoreSeeded(ctx, c, seeding{saved.Bytes(), view, shards / seededShards})
	if err != nil {
		return fmt.Errorf("seed %d shards: %w", shards, err)
	}
	for node, ids := range placed {
		if err := c.Fleet().Node(node).Preload(ids, 1, neon.DefaultStripeSize); err != nil {
			return err
		}
	}
	return startAll(ctx, c)
}

// seeding is what a cluster is made of anew.
type seeding struct {
	saved   []byte
	view    neon.Cluster
	tenants int
}

func dataDir(c *testcluster.Cluster, i int) string {
	return filepath.Join(c.Dir(), fmt.Sprintf("c%d", i+1), "data")
}

// restoreSeeded makes the data directories and tells which shards are where.
func restoreSeeded(
	ctx context.Context, c *testcluster.Cluster, s seeding,
) (map[neon.NodeID][]neon.ShardID, error) {
	var members []cluster.Member
	for _, m := range s.view.Members {
		members = append(members, cluster.Member{ID: m.ID, RaftAddr: m.RaftAddr})
	}
	var filled *fsm.State
	var placed map[neon.NodeID][]neon.ShardID
	rewrite := func(state io.Reader) (io.WriterTo, string, error) {
		if filled == nil {
			var err error
			if filled, placed, err = fill(state, s.tenants); err != nil {
				return nil, "", err
			}
		}
		return fsm.SnapshotWriter{State: filled}, s.view.ID, nil
	}
	for i := range c.Controllers() {
		dir := dataDir(c, i)
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		to := cluster.Restore{
			DataDir: dir, ID: fmt.Sprintf("c%d", i+1), Members: members, Rewrite: rewrite,
		}
		if _, err := cluster.RestoreDataDir(ctx, bytes.NewReader(s.saved), to); err != nil {
			return nil, err
		}
	}
	return placed, nil
}

// fill adds tenants to a state, their shards dealt to the nodes in turn and each
// attached in its first generation. All of it happens at one index, so that the
// log goes on where it stood.
func fill(from io.Reader, tenants int) (*fsm.State, map[neon.NodeID][]neon.ShardID, error) {
	store := fsm.NewStore()
	if err := store.Restore(from); err != nil {
		return nil, nil, err
	}
	index := store.State().Index
	var nodes []neon.NodeID
	for n := range store.State().Nodes() {
		nodes = append(nodes, n.ID)
	}
	placed := make(map[neon.NodeID][]neon.ShardID)
	var batch []fsm.Entry
	for n := range tenants {
		create := fsm.CreateTenant{
			ID: tenantID(n), Count: seededShards, Stripe: neon.DefaultStripeSize,
			Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		}
		var issue fsm.IssueGenerations
		for i, id := range neon.ShardIDs(create.ID, seededShards) {
			node := nodes[(n*seededShards+i)%len(nodes)]
			create.Shards = append(create.Shards, fsm.NewShard{Attached: node})
			issue.Items = append(issue.Items, fsm.Issue{Shard: id, Node: node})
			placed[node] = append(placed[node], id)
		}
		for _, cmd := range []fsm.Command{create, issue} {
			data, err := fsm.Encode(fsm.RequestID{}, cmd)
			if err != nil {
				return nil, nil, err
			}
			batch = append(batch, fsm.Entry{Index: index, Data: data})
		}
		if len(batch) < seedBatch && n+1 < tenants {
			continue
		}
		for _, r := range store.Apply(batch) {
			if r.Err != nil {
				return nil, nil, r.Err
			}
		}
		batch = batch[:0]
	}
	return store.State(), placed, nil
}

// startAll starts all controllers at once, then the pageservers, and waits until
// everything is known to be where it should be.
func startAll(ctx context.Context, c *testcluster.Cluster) error {
	if err := startControllers(ctx, c); err != nil {
		return err
	}
	// one by one: a whole fleet that restarts is not what is measured
	for _, n := range c.Fleet().Nodes() {
		if err := n.Start(ctx); err != nil {
			return err
		}
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	if err := c.WaitNodes(ctx); err != nil {
		return err
	}
	return c.WaitQuiescent(ctx)
}

func startControllers(ctx context.Context, c *testcluster.Cluster) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range c.Controllers() {
		g.Go(func() error { return c.Restart(ctx, i) })
	}
	return g.Wait()
}
