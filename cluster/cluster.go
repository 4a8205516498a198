package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"reflect"
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

	raft   *raft.Raft
	fsm    *fsm
	dir    *dataDir // nil without Config.DataDir
	met    *met
	disk   string // this disk's incarnation
	health *health
	canary canary
	// journalTest is a test write that needs the file system's journal; nil without one.
	journalTest canary
	gossip      atomic.Pointer[gossip]
	started     atomic.Bool // raft runs
	yielding    atomic.Bool // a search for another leader is under way

	stopCanary func()
	stores     stores
	guard      *guard
	streams    *streams
	transport  *transport
	observer   *raft.Observer

	peers         *peers
	leadership    *leadership
	crash         *crashDetector
	equality      *equality
	lag           lagWatch
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
		stopProposals: make(chan struct{}), raftDown: make(chan struct{}),
		closed: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.log = cfg.Logger
	c.clusterID.Store(&cfg.ClusterID)
	c.peers = newPeers(c)
	c.leadership = newLeadership(c)
	c.crash = newCrashDetector(c)
	c.lag.c = c
	c.proposer = newProposer(c)
	c.leaderReads = &rounds{ask: c.confirmLead, ctx: c.ctx, wg: &c.background}
	c.followerReads = &rounds{ask: c.askLeader, ctx: c.ctx, wg: &c.background}
	c.fsm = newFSM(m, c.peers.poke)
	c.equality = newEquality(c, &c.fsm.points)
	defer func() {
		if err != nil {
			c.abandon()
		}
	}()
	if err := c.openDisk(); err != nil {
		return nil, err
	}
	if err := c.openNetwork(); err != nil {
		return nil, err
	}
	if err := c.openRaft(); err != nil {
		return nil, err
	}
	if err := c.openGossip(); err != nil {
		return nil, err
	}
	if g := c.gossip.Load(); g != nil {
		c.background.Go(func() { g.run(c.ctx) })
	}
	c.background.Go(func() { c.lag.run(c.ctx) })
	c.background.Go(func() { c.equality.run(c.ctx) })
	c.background.Go(c.proposer.submit)
	c.background.Go(c.proposer.settle)
	c.background.Go(c.electAlone)
	c.background.Go(func() { c.leadership.open(c.ctx) })
	c.background.Go(func() { c.peers.run(c.ctx) })
	if c.canary != nil {
		c.background.Go(func() { c.health.watch(c.ctx, c.canary, c.timeouts) })
	}
	return c, nil
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
		self: c.greeting, servePeer: c.servePeer, admit: c.admit, refused: c.refusedBy, log: c.log,
	}).prepare()
	for _, m := range c.cfg.Members {
		c.peers.learn(greeting{ID: m.ID, Raft: m.RaftAddr})
	}
	c.transport = newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.streams, MaxPool: 3, MaxRPCsInFlight: 1,
		Timeout: max(time.Second, 2*c.timeouts.Heartbeat), Logger: raftLogger(c.log),
	}), c.cfg.Advertise)
	c.transport.resolve = c.peers.address
	c.transport.fit = c.mayStand
	c.transport.routine = c.routineHeartbeat
	return nil
}

func (c *Cluster) greeting() greeting {
	return greeting{
		Cluster: *c.clusterID.Load(), ID: c.id, Raft: c.cfg.Advertise, HTTP: c.cfg.HTTPAddr,
		Disk: c.disk, Level: c.cfg.Level,
	}
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
	var lead atomic.Pointer[raft.Raft]
	leads := func() bool { r := lead.Load(); return r != nil && r.State() == raft.Leader }
	c.guard.leading, c.health.leads = leads, leads
	r, err := raft.NewRaft(rc, c.fsm, c.guard, c.guard, c.stores.snaps, c.transport)
	if err != nil {
		return c.startError(err)
	}
	lead.Store(r)
	c.leadership.mu.Lock()
	c.raft = r
	c.leadership.mu.Unlock()
	c.streams.start()
	c.observer = raft.NewObserver(nil, false, c.leadership.observe)
	r.RegisterObserver(c.observer)
	c.started.Store(true)
	c.leadership.refresh(ErrLeadershipLost)
	return nil
}

func (c *Cluster) servers() []raft.Server {
	return c.raft.GetConfiguration().Configuration().
		Servers
}

// lastEntry is the newest entry this server has on disk.
func (c *Cluster) lastEntry() (index, term uint64) {
	index = c.raft.LastIndex()
	var l raft.Log
	if index > 0 && c.guard.GetLog(index, &l) == nil {
		term = l.Term
	}
	return index, term
}

// await waits for an answer of raft. When raft shuts down it forgets committed
// entries that its state machine goroutine has not taken yet, and nothing answers
// for them; so the future is told where the end of raft can be seen. Futures have
// a field for that, which raft sets for some of them only, and no method: those
// that lack it have their answer from the beginning.
func (c *Cluster) await(f raft.Future) error {
	endWith(f, c.raftDown)
	return f.Error()
}

// endWith makes a future that is never answered end when down is closed, and
// reports whether it could.
func endWith(f raft.Future, down chan struct{}) bool {
	v := reflect.Indirect(reflect.ValueOf(f))
	if v.Kind() != reflect.Struct {
		return false
	}
	field := v.FieldByName("ShutdownCh")
	if !field.CanSet() || field.Type() != reflect.TypeOf(down) || !field.IsNil() {
		return false
	}
	field.Set(reflect.ValueOf(down))
	return true
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
		c.guard.close()
		_ = down.Error()
		close(c.raftDown)
		_ = c.transport.Close()
		c.background.wait()
		c.streams.join()
		c.closeDisk()
		close(c.closed)
	})
	<-c.closed
	return nil
}

// abandon undoes a failed Open.
func (c *Cluster) abandon() {
	c.cancel()
	close(c.stopProposals)
	var down raft.Future
	if c.raft != nil {
		down = c.raft.Shutdown()
	}
	if c.streams != nil {
		c.streams.sever()
	}
	if c.transport != nil {
		_ = c.transport.Close()
	}
	if c.guard != nil {
		c.guard.close()
	}
	if down != nil {
		_ = down.Error()
	}
	close(c.raftDown)
	c.background.wait()
	if c.streams != nil {
		c.streams.join()
	}
	c.closeDisk()
}
