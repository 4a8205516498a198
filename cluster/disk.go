package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// openDisk takes the data directory, settles who this server is, and opens and
// verifies the stores.
func (c *Cluster) openDisk() error {
	if c.cfg.DataDir != "" {
		if err := c.openIdentity(); err != nil {
			return err
		}
	}
	var err error
	if c.met, err = loadMet(c.dir); err != nil {
		return err
	}
	if c.id == "" {
		c.id = newID()
	}
	c.log = c.log.With("server", c.id)
	c.health = newHealth(c.log, c.timeouts.Recovery)
	c.health.changed, c.health.lookForRivals = c.diskChanged, c.lookForRivals
	open := c.cfg.Stores
	if open == nil {
		open = boltStores(c.log)
		if c.cfg.DataDir == "" {
			open = NewMemoryDisk().Open
		}
	}
	if c.dir != nil {
		if err := checkBolt(filepath.Join(c.dir.path, logFile)); err != nil {
			return c.storeError(err)
		}
	}
	err = guarded(func() (err error) {
		c.stores.log, c.stores.stable, c.stores.snaps, c.stores.closer, err = open(c.cfg.DataDir)
		return err
	})
	if err != nil {
		return c.storeError(err)
	}
	if err := verifyStores(c.cfg.DataDir, c.stores); err != nil {
		return err
	}
	c.guard = newGuard(c.stores, c.health, c.timeouts.Store)
	c.guard.patience = c.timeouts.Patience
	return c.openCanary()
}

func (c *Cluster) openIdentity() (err error) {
	if c.dir, err = lockDataDir(c.cfg.DataDir); err != nil {
		return err
	}
	if c.id, err = c.dir.serverID(c.cfg.ID); err != nil {
		return err
	}
	if c.disk, err = c.dir.incarnation(); err != nil {
		return err
	}
	cluster, err := c.dir.claimCluster(c.cfg.ClusterID)
	c.clusterID.Store(&cluster)
	return err
}

// openCanary also makes the first test write: a disk that is full or read-only
// now should be an error of Open.
func (c *Cluster) openCanary() error {
	if own, ok := c.stores.closer.(interface{ Canary() error }); ok {
		c.canary = own.Canary
		return nil
	}
	if c.dir == nil {
		return nil
	}
	test, stop, err := fileCanary(c.dir.path)
	if err != nil {
		return err
	}
	c.canary, c.stopCanary, c.journalTest = test, stop, journalTest(c.dir.path)
	if err := test(); err != nil {
		return fmt.Errorf("%w: test write in %s: %w", ErrDisk, c.dir.path, err)
	}
	return nil
}

func (c *Cluster) closeDisk() {
	if c.stores.closer != nil {
		_ = c.stores.closer.Close()
	}
	if c.stopCanary != nil {
		c.stopCanary()
	}
	if c.dir != nil {
		c.dir.close()
	}
}

// storeError sorts out why the stores do not open.
func (c *Cluster) storeError(err error) error {
	if c.cfg.DataDir == "" || isDiskError(err) {
		return fmt.Errorf("cluster: open stores: %w", err)
	}
	return corrupt(filepath.Join(c.cfg.DataDir, logFile), err)
}

// startError: the log was verified, so what is left is a snapshot that the
// machine does not take.
func (c *Cluster) startError(err error) error {
	if errors.Is(c.fsm.restoreErr, ErrTooOld) {
		return c.fsm.restoreErr
	}
	if c.fsm.restoreErr != nil && c.cfg.DataDir != "" {
		return corrupt(filepath.Join(c.cfg.DataDir, snapshotDir), c.fsm.restoreErr)
	}
	return fmt.Errorf("cluster: start raft: %w", errors.Join(err, c.fsm.restoreErr))
}

// SetClusterID tells this server which cluster it is in, once the state machine
// knows. The id is kept in the data directory and compared with that of every
// peer. It fails with ErrClusterMismatch if another one is known already.
func (c *Cluster) SetClusterID(id string) error {
	have := *c.clusterID.Load()
	if have == id {
		return nil
	}
	if have != "" {
		return fmt.Errorf("%w: %q, not %q", ErrClusterMismatch, have, id)
	}
	if c.dir != nil {
		if _, err := c.dir.claimCluster(id); err != nil {
			return err
		}
	}
	c.clusterID.Store(&id)
	if g := c.gossip.Load(); g != nil {
		g.poke()
	}
	return nil
}

// ClusterID returns the cluster's id, or "" while it is not known.
func (c *Cluster) ClusterID() string { return *c.clusterID.Load() }

// admit remembers a peer that is welcome, and says why another one is not.
func (c *Cluster) admit(who greeting) string {
	member := false
	for _, s := range c.servers() {
		member = member || string(s.ID) == who.ID
	}
	ok, err := c.met.meet(who.ID, who.Disk, member)
	if err != nil {
		return err.Error()
	}
	if !ok {
		return "server " + who.ID + " is a member with another disk"
	}
	c.peers.learn(who)
	return ""
}

// refusedBy is called when a peer says that our disk is not the one it knows.
func (c *Cluster) refusedBy(who greeting) {
	c.streams.warnOnce(who, "a peer refuses this server: "+who.Refusal)
}

// Fatal delivers at most one error: after it this server can do nothing more,
// and the process should exit. Reasons: the disk refuses writes.
func (c *Cluster) Fatal() <-chan error { return c.health.fatalCh }

// mayStand reports whether this server may ask for votes: its disk has worked for
// long enough, or it works again while no other voter is known to be better off.
// Servers that share a disk which hung for a moment must not all wait for somebody
// healthier.
func (c *Cluster) mayStand() bool {
	if !c.equality.sound() {
		return false
	}
	if c.health.fit() {
		return true
	}
	if !c.health.able() {
		return false
	}
	for _, s := range c.servers() {
		if string(s.ID) == c.id || s.Suffrage != raft.Voter {
			continue
		}
		if l := c.peers.link(string(s.ID)); l != nil {
			if r := l.report.Load(); r != nil && !r.Sick {
				return false
			}
		}
	}
	return true
}

// diskChanged reacts to a new verdict on the disk. It may run on raft's own
// goroutines, so it only starts things.
func (c *Cluster) diskChanged() {
	if !c.started.Load() {
		return
	}
	c.leadership.refresh(fmt.Errorf("%w: %w", ErrLeadershipLost, ErrDisk))
	if c.health.able() || !c.yielding.CompareAndSwap(false, true) {
		return
	}
	if !c.background.Go(func() {
		defer c.yielding.Store(false)
		c.yieldLeadership()
	}) {
		c.yielding.Store(false)
	}
}

// yieldLeadership asks the healthy voter with the best log to stand for
// election. Raft's own hand-over needs raft's main loop, which may be what hangs.
// The election rules still decide; asking is always safe.
func (c *Cluster) yieldLeadership() {
	if c.raft.State() != raft.Leader && !c.ledUntilNow() {
		return
	}
	for range 10 {
		target, err := c.transferTarget(c.ctx, "")
		if err == nil {
			req := &raft.TimeoutNowRequest{RPCHeader: c.rpcHeader()}
			err = c.transport.TimeoutNow(target.ID, target.Address, req, &raft.TimeoutNowResponse{})
		}
		if err == nil {
			c.log.Info("asked another server to lead, since the disk is unhealthy",
				"target", target.ID)
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.timeouts.Election/2)
		taken := c.awaitOtherLeader(ctx)
		cancel()
		if taken || c.ctx.Err() != nil || c.health.able() {
			return
		}
	}
}

// ledUntilNow reports whether the lead was lost so recently that nobody else can have it.
func (c *Cluster) ledUntilNow() bool {
	_, id := c.raft.LeaderWithID()
	return id == "" && c.leadership.lostWithin(c.timeouts.Election)
}

func (c *Cluster) awaitOtherLeader(ctx context.Context) bool {
	for {
		if _, id := c.raft.LeaderWithID(); id != "" && string(id) != c.id {
			return true
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
}

func (c *Cluster) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.id), Addr: []byte(c.cfg.Advertise),
	}
}
