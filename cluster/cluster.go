package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Cluster is this server's part in the cluster.
type Cluster struct {
	cfg      Config
	id       string
	timeouts Timeouts
	log      *slog.Logger

	ctx        context.Context // ends when Close gives up the rest
	cancel     context.CancelFunc
	background group

	raft      *raft.Raft
	fsm       *fsm
	stores    stores
	streams   *streams
	transport *transport
	observer  *raft.Observer

	peers         *peers
	leadership    *leadership
	proposer      *proposer
	leaderReads   *rounds
	followerReads *rounds
	clusterID     atomic.Pointer[string]

	closing       atomic.Bool
	stopProposals chan struct{}
	raftDown      chan struct{} // closed when raft's goroutines have ended
	closeOnce     sync.Once
	closed        chan struct{}
}

type stores struct {
	log    raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	closer io.Closer
}

// Open starts this server: it reads what is on disk, bootstraps the membership
// if it must, and takes part in elections. It returns before there is a leader.
func Open(ctx context.Context, cfg Config, m Machine) (_ *Cluster, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Network == nil {
		cfg.Network = tcpNetwork{}
	}
	c := &Cluster{
		cfg: cfg, id: cfg.ID, timeouts: cfg.Timeouts.withDefaults(),
		stopProposals: make(chan struct{}), raftDown: make(chan struct{}), closed: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.log = cfg.Logger.With("server", c.id)
	c.clusterID.Store(&cfg.ClusterID)
	c.peers = newPeers(c)
	c.leadership = newLeadership(c)
	c.proposer = newProposer(c)
	c.leaderReads = &rounds{ask: c.confirmLead, ctx: c.ctx, wg: &c.background}
	c.followerReads = &rounds{ask: c.askLeader, ctx: c.ctx, wg: &c.background}
	c.fsm = &fsm{machine: m, changed: c.peers.poke}
	defer func() {
		if err != nil {
			c.abandon()
		}
	}()
	if err := c.openStores(); err != nil {
		return nil, err
	}
	if err := c.openNetwork(); err != nil {
		return nil, err
	}
	if err := c.openRaft(); err != nil {
		return nil, err
	}
	c.background.Go(c.proposer.submit)
	c.background.Go(c.proposer.settle)
	c.background.Go(func() { c.leadership.open(c.ctx) })
	c.background.Go(func() { c.peers.run(c.ctx) })
	return c, nil
}

func (c *Cluster) openStores() error {
	open := c.cfg.Stores
	if open == nil {
		open = boltStores(c.log)
		if c.cfg.DataDir == "" {
			open = NewMemoryDisk().Open
		}
	}
	var err error
	c.stores.log, c.stores.stable, c.stores.snaps, c.stores.closer, err = open(c.cfg.DataDir)
	return err
}

func (c *Cluster) openNetwork() error {
	listener, err := c.cfg.Network.Listen(c.cfg.RaftListen)
	if err != nil {
		return fmt.Errorf("cluster: listen: %w", err)
	}
	if c.cfg.Advertise == "" {
		c.cfg.Advertise = listener.Addr().String()
	}
	c.streams = (&streams{
		network: c.cfg.Network, tls: c.cfg.TLS, listener: listener,
		self: c.greeting, servePeer: c.servePeer, learn: c.peers.learn, log: c.log,
	}).prepare()
	for _, m := range c.cfg.Members {
		c.peers.learn(greeting{ID: m.ID, Raft: m.RaftAddr})
	}
	c.transport = newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.streams, MaxPool: 3, MaxRPCsInFlight: 1,
		Timeout: max(time.Second, 2*c.timeouts.Heartbeat), Logger: raftLogger(c.log),
	}), c.cfg.Advertise)
	c.transport.resolve = c.peers.address
	c.transport.fit = c.fit
	c.transport.routine = c.routineHeartbeat
	return nil
}

func (c *Cluster) greeting() greeting {
	return greeting{Cluster: *c.clusterID.Load(), ID: c.id, Raft: c.cfg.Advertise, HTTP: c.cfg.HTTPAddr}
}

// routineHeartbeat reports whether a heartbeat changes nothing but the time of
// last contact.
func (c *Cluster) routineHeartbeat(rpc raft.RPC) bool {
	req, ok := rpc.Command.(*raft.AppendEntriesRequest)
	return ok && c.raft.State() == raft.Follower && req.Term == c.raft.CurrentTerm()
}

func (c *Cluster) openRaft() error {
	rc := c.cfg.raftConfig(c.id, c.timeouts)
	if err := c.bootstrap(rc); err != nil {
		return err
	}
	r, err := raft.NewRaft(rc, c.fsm, c.stores.log, c.stores.stable, c.stores.snaps, c.transport)
	if err != nil {
		return fmt.Errorf("cluster: start raft: %w", err)
	}
	c.leadership.mu.Lock()
	c.raft = r
	c.leadership.mu.Unlock()
	c.streams.start()
	c.observer = raft.NewObserver(nil, false, c.leadership.observe)
	r.RegisterObserver(c.observer)
	c.leadership.refresh(ErrLeadershipLost)
	return nil
}

// bootstrap writes the initial membership into an empty log. Every server of
// Members writes the same one, so it does not matter who comes first.
func (c *Cluster) bootstrap(rc *raft.Config) error {
	state, err := raft.HasExistingState(c.stores.log, c.stores.stable, c.stores.snaps)
	if err != nil || state {
		return err
	}
	members := slices.Clone(c.cfg.Members)
	if len(members) == 0 {
		members = []Member{{ID: c.id, RaftAddr: c.cfg.Advertise}}
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	var conf raft.Configuration
	for _, m := range members {
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.RaftAddr),
		})
	}
	if err := raft.BootstrapCluster(rc, c.stores.log, c.stores.stable, c.stores.snaps, c.transport, conf); err != nil {
		return fmt.Errorf("cluster: bootstrap: %w", err)
	}
	return nil
}

func (c *Cluster) servers() []raft.Server { return c.raft.GetConfiguration().Configuration().Servers }

// lastEntry is the newest entry this server has on disk.
func (c *Cluster) lastEntry() (index, term uint64) {
	index = c.raft.LastIndex()
	var l raft.Log
	if index > 0 && c.stores.log.GetLog(index, &l) == nil {
		term = l.Term
	}
	return index, term
}

// fit reports whether this server may lead.
func (c *Cluster) fit() bool { return true }

func (c *Cluster) linkBroken(string, error) {}

// await waits for an answer of raft. When raft shuts down it forgets committed
// entries that its state machine goroutine has not taken yet; the goroutine that
// waits for one of those cannot be ended.
func (c *Cluster) await(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-c.raftDown:
	}
	select {
	case err := <-done:
		return err
	case <-time.After(time.Millisecond):
		return raft.ErrRaftShutdown
	}
}

func (c *Cluster) closedOr(err error) error {
	if err != nil && c.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// Close hands leadership over, if this server has it, and stops everything it
// started. The context bounds the hand-over only. After it returns nothing of
// this package runs any more.
func (c *Cluster) Close(ctx context.Context) error {
	c.closeOnce.Do(func() {
		c.closing.Store(true)
		if c.raft.State() == raft.Leader && len(c.servers()) > 1 {
			if err := c.TransferLeadership(ctx, ""); err != nil {
				c.log.Info("closing without a hand-over", "err", err)
			}
		}
		c.leadership.pause()
		close(c.stopProposals)
		c.drainProposals(ctx)
		c.raft.DeregisterObserver(c.observer)
		c.cancel()
		down := c.raft.Shutdown()
		c.streams.sever()
		_ = down.Error()
		close(c.raftDown)
		_ = c.transport.Close()
		c.background.wait()
		c.streams.join()
		_ = c.stores.closer.Close()
		close(c.closed)
	})
	<-c.closed
	return nil
}

// abandon undoes a failed Open.
func (c *Cluster) abandon() {
	c.cancel()
	close(c.stopProposals)
	if c.raft != nil {
		_ = c.raft.Shutdown().Error()
	}
	if c.streams != nil {
		c.streams.sever()
		c.streams.join()
	}
	if c.transport != nil {
		_ = c.transport.Close()
	}
	if c.stores.closer != nil {
		_ = c.stores.closer.Close()
	}
}
