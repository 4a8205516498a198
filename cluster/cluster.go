package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/repeats"
	"quorate/cluster/internal/store"
	"quorate/internal/wait"
)

// Cluster is this server's part in the cluster. It only joins its parts: each has its
// own state and its own lock.
type Cluster struct {
	cfg Config
	log *slog.Logger

	repeats *repeats.Handler // of what raft logs

	ctx        context.Context // ends when Close gives up the rest
	cancel     context.CancelFunc
	background group

	self      *identity
	node      *raftNode
	fsm       *fsm
	streams   *streams
	peers     *peers
	answers   *answers
	observer  *raft.Observer
	candidacy candidacy
	crash     *crashDetector
	silence   silenceWatch
	equality  *equality
	gossip    *gossip // nil without Config.GossipListen
	founding  *founding
	former    *former
	joining   *joining
	waiting   *applicants

	leadership *leadership
	transfer   *transfer
	proposer   *proposer
	reads      *reads
	questions  *questions
	membership *membership
	snapshots  snapshots
	lag        *lagWatch
	compaction *compaction
	absence    *absence
	removal    *removal
	marks      *marks
	service    *service
	standstill *standstill

	closing   atomic.Bool
	closeOnce sync.Once
	closed    chan struct{}
}

// Open starts this server. It reads what is on disk, bootstraps the membership if it
// must, and takes part in elections. It returns before there is a leader.
func Open(ctx context.Context, cfg Config, m Machine) (_ *Cluster, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	lines := repeats.New(cfg.Logger.Handler())
	if cfg.Network == nil {
		cfg.Network = tcpNetwork{}
	}
	if cfg.Disk == nil {
		if cfg.DataDir == "" {
			return nil, errors.New("cluster: neither a data directory nor a disk is configured")
		}
		cfg.Disk = store.Bolt{Logger: raftLogger(slog.New(lines))}
	}
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	cfg.Observer = cfg.Observer.withDefaults()
	c := &Cluster{cfg: cfg, repeats: lines, closed: make(chan struct{})}
	c.node = &raftNode{timeouts: cfg.Timeouts, down: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			c.shutdown()
		}
	}()
	if err := c.openDisk(); err != nil {
		return nil, err
	}
	if err := c.listen(); err != nil {
		return nil, err
	}
	c.former = newFormer(c)
	c.makeParts(m)
	if err := c.former.load(); err != nil {
		return nil, err
	}
	c.node.transport = c.openTransport()
	if err := c.openRaft(); err != nil {
		return nil, err
	}
	c.joining = newJoining(c.cfg, c.node, c.self, c.streams)
	if err := c.joining.contradiction(ctx); err != nil {
		return nil, err
	}
	c.node.warnOfIgnored(c.cfg, c.self, c.log)
	if err := c.openGossip(); err != nil {
		return nil, err
	}
	c.streams.start()
	c.run()
	return c, nil
}

// openDisk takes the data directory, finds out who this server is, and opens and
// verifies the store.
func (c *Cluster) openDisk() (err error) {
	if c.self, err = openIdentity(c.cfg); err != nil {
		return err
	}
	c.node.id = c.self.id
	c.log = c.cfg.Logger.With("server", c.self.id)
	probe := &quorumProbe{
		ctx: c.ctx, background: &c.background, node: c.node,
		link: func(id string) *link { return c.peers.link(id) },
	}
	c.compaction = &compaction{
		node: c.node, limit: cmp.Or(c.cfg.LogBytes, defaultLogBytes), log: c.log,
		grown:         wait.NewSignal(),
		snapshotBytes: func() int64 { return c.fsm.snapshotBytes.Load() },
	}
	t := c.cfg.Timeouts
	if c.self.dir != nil {
		if err := c.self.dir.CheckLog(store.LogFile); err != nil {
			return err
		}
	}
	c.node.store, err = store.Open(store.Options{
		Dir: c.cfg.DataDir, Disk: c.cfg.Disk, Log: c.log,
		Limits: store.Limits{
			Write: t.Store, Grace: t.StoreGrace, TestWrite: t.TestWrite, Recovery: t.Recovery,
		},
		Hooks: store.Hooks{
			Appended: func(took time.Duration, bytes int) {
				c.cfg.Observer.Appended(took, bytes)
				c.compaction.appended(bytes)
			},
			Leads: c.node.leads, Applied: c.node.appliedOnDisk, Changed: c.diskChanged,
			MajorityWrites: probe.start,
		},
		CheckEntry: checkFrame,
	})
	if err != nil {
		return err
	}
	return c.self.vouch(c.node.store)
}

// greeting is what this server tells of itself, and of its disk as it is now.
func (c *Cluster) greeting() greeting {
	g := c.self.greeting()
	if r := c.node.raft(); r != nil {
		g.Term, g.Last = r.CurrentTerm(), r.LastIndex()
	} else {
		g.Term, g.Last = c.node.store.Position()
	}
	return g
}

func (c *Cluster) listen() error {
	listener, err := c.cfg.Network.Listen(c.cfg.RaftListen)
	if err != nil {
		return fmt.Errorf("cluster: listen: %w", err)
	}
	if c.self.advertise == "" {
		c.self.advertise = listener.Addr().String()
	}
	c.node.addr = c.self.advertise
	c.streams = newStreams(c.cfg.Network, c.cfg.TLS, listener, c.log, streamHooks{
		self:     c.greeting,
		admit:    func(m meeting) refusalReason { return c.peers.admit(m) },
		isMember: c.node.isMember,
		expected: func(addr string) string {
			return cmp.Or(c.peers.expected(addr), c.self.predecessors.at(addr))
		},
		servePeer: func(conn net.Conn, from string) { c.answers.serve(conn, from) },
		uninvited: func() bool {
			// Without a directory nothing can be kept, the cluster's id neither.
			return c.self.dir != nil && c.self.cluster() == "" && c.node.empty()
		},
		called: func(who greeting) {
			c.founding.called(who)
			c.former.called(who)
		},
		goneBack: func(who meeting) {
			if !c.peers.isMember(who) {
				return
			}
			c.node.store.Health.Condemn(datadir.Corrupt(c.cfg.DataDir, fmt.Errorf("%w: %s says: %s",
				ErrGoneBack, who.ID, who.Refusal)))
		},
		ended: func(who meeting) {
			if !c.peers.isSuccessor(who) {
				return
			}
			c.node.store.Health.Condemn(fmt.Errorf("%w: cluster %s was ended by a rescue; %s at "+
				"%s is of its successor %s. To join that, empty this data directory and add the "+
				"server (storage_controller members add)", ErrClusterEnded, c.self.cluster(),
				who.ID, who.Raft, who.Cluster))
		},
	})
	c.self.learnt = c.streams.compareAgain
	return nil
}

// makeParts joins the parts. Each gets what it needs of the others.
func (c *Cluster) makeParts(m Machine) {
	disk := c.node.store.Health
	c.equality = &equality{
		background: &c.background, node: c.node, log: c.log, wake: wait.NewSignal(),
	}
	health := fitness{disk: disk, equality: c.equality, former: c.former}
	c.peers = newPeers(c.node, c.self.disks, c.streams, linkBroken(c))
	for _, m := range c.cfg.Members {
		c.peers.learn(greeting{ID: m.ID, Raft: m.RaftAddr})
		c.peers.founders = append(c.peers.founders, m.ID)
	}
	c.fsm = newFSM(m, membershipMoved(c), c.cfg.Observer)
	c.candidacy = candidacy{node: c.node, health: standing(health), report: c.peers.report}
	c.leadership = &leadership{
		ctx: c.ctx, node: c.node, health: health, log: c.log, leaderMoved: leaderMoved(c),
	}
	c.peers.moved = c.leadership.changed.Notify
	c.crash = &crashDetector{
		ctx: c.ctx, background: &c.background, node: c.node, peers: c.peers, health: health,
		log: c.log, proofs: make(map[string]proof), silence: c.cfg.Timeouts.Heartbeat,
	}
	c.proposer = newProposer(c.ctx, c.node, c.leadership.leads, c.cfg.Observer.Committed)
	c.transfer = &transfer{
		ctx: c.ctx, background: &c.background, node: c.node, peers: c.peers,
		leadership: c.leadership, health: disk, log: c.log, drain: c.proposer.drain,
	}
	c.reads = newReads(
		c.ctx, &c.background, c.node, c.peers, c.leadership, &c.fsm.applied, health.refusal)
	c.questions = &questions{reads: c.reads, answerer: c.cfg.Answer}
	reporter := reporter{
		node: c.node, self: c.self, fsm: c.fsm, health: disk, equality: c.equality,
		started: time.Now(), opened: c.leadership.opened,
	}
	c.fsm.members.kept = c.node.store.Snapshots()
	c.fsm.took, c.fsm.appliedIn = c.compaction.took, c.compaction.applied
	c.equality.peers, c.equality.fsm = c.peers, c.fsm
	c.fsm.vouch = func(index uint64) error { return c.equality.vouch(c.ctx, index) }
	c.equality.leadership, c.equality.transfer = c.leadership, c.transfer
	c.removal = &removal{
		id: c.node.id, members: c.fsm.members.now, log: c.log, changed: c.repeats.Mute,
	}
	c.candidacy.removed = c.removal.reason
	c.peers.heard = func(l *link, r peerReport) {
		c.self.disks.Note(l.id, datadir.Progress{
			Disk: r.Disk, Run: r.Run, Term: r.Term, Index: r.Held,
		})
		c.equality.hear(l, r)
		c.removal.hear(r)
	}
	c.founding = newFounding(c)
	c.waiting = newApplicants(c.node, c.self)
	c.membership = &membership{
		ctx: c.ctx, node: c.node, self: c.self, peers: c.peers, reads: c.reads,
		transfer: c.transfer, reporter: reporter, log: c.log, founding: c.founding,
		changing: make(chan struct{}, 1),
	}
	c.snapshots = snapshots{node: c.node, self: c.self, former: c.former.reason}
	c.marks = newMarks(c)
	c.service, c.standstill = newService(c), newStandstill(c)
	c.lag = &lagWatch{leads: c.node.leads, members: c.membership.list, log: c.log}
	c.absence = &absence{leads: c.node.leads, members: c.membership.list, log: c.log}
	c.answers = &answers{
		ctx: c.ctx, timeouts: c.cfg.Timeouts,
		term:      func() uint64 { return c.node.raft().CurrentTerm() },
		readIndex: c.reads.indexOf, ask: c.questions.answer,
		report: reporter.report, testify: c.crash.testify,
		testWrite: c.node.store.ProveWritable, points: c.equality.answer, state: c.equality.send,
		found: c.founding.answer, accept: c.founding.accept, apply: c.waiting.answer,
	}
}

// raftLogger is for what raft and its transport say. They repeat themselves.
func (c *Cluster) raftLogger() hclog.Logger {
	return raftLogger(slog.New(c.repeats).With("server", c.node.id))
}

func (c *Cluster) openTransport() *transport {
	c.silence.detector, c.silence.off = c.crash, c.cfg.DisableCrashDetector
	c.silence.led = c.leadership.known
	inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.streams, MaxPool: 3, MaxRPCsInFlight: 1,
		Timeout: max(time.Second, 2*c.cfg.Timeouts.Heartbeat), Logger: c.raftLogger(),
	})
	return newTransport(inner, c.node.addr, transportHooks{
		resolve: c.peers.address, mayStand: c.candidacy.mayStand,
		routine: c.node.routineHeartbeat, heard: c.silence.heard,
		term:    func() uint64 { return c.node.raft().CurrentTerm() },
		refused: newAbsurdities(c.log).refused,
		ctx:     c.ctx, timeout: c.cfg.Timeouts.Heartbeat,
	})
}

func (c *Cluster) openRaft() error {
	rc := c.cfg.raftConfig(c.node.id)
	rc.Logger = c.raftLogger()
	if err := c.node.bootstrap(c.cfg, c.self, rc); err != nil {
		return err
	}
	s := c.node.store
	kept := countedSnapshots{s.Snapshots(), &c.fsm.moved}
	r, err := raft.NewRaft(rc, c.fsm, s, s, kept, c.node.transport)
	if err != nil {
		return c.startError(err)
	}
	c.node.running.Store(r) // at once: raft stands for election soon, however slow the disk is
	c.fsm.members.load()
	saved := uint64(0)
	if l, err := s.Snapshots().List(); err == nil && len(l) > 0 {
		c.fsm.snapshotBytes.Store(l[0].Size)
		saved = l[0].Index
	}
	c.compaction.took(saved)
	c.observer = raft.NewObserver(nil, false, c.leadership.observe)
	r.RegisterObserver(c.observer)
	c.leadership.refresh(ErrLeadershipLost)
	return nil
}

// startError sorts out why raft does not start. The log was verified, so what is left
// is a snapshot that the machine does not take.
func (c *Cluster) startError(err error) error {
	restoreErr := c.fsm.restoreErr
	if errors.Is(restoreErr, ErrTooOld) {
		return restoreErr
	}
	if restoreErr != nil && c.cfg.DataDir != "" {
		return datadir.Corrupt(filepath.Join(c.cfg.DataDir, store.SnapshotDir), restoreErr)
	}
	return fmt.Errorf("cluster: start raft: %w", errors.Join(err, restoreErr))
}

func (c *Cluster) openGossip() error {
	if c.cfg.GossipListen == "" {
		if c.cfg.Expect > 0 {
			return errors.New("cluster: Expect needs GossipListen")
		}
		return nil
	}
	g := &gossip{
		expect: c.cfg.Expect, keyed: len(c.cfg.GossipKey) > 0, join: c.cfg.Join,
		background: &c.background, node: c.node,
		self: c.self, peers: c.peers, membership: c.membership, leads: c.leadership.leads,
		warnOnce: c.streams.warnOnce, log: c.log,
	}
	if err := g.open(c.cfg); err != nil {
		return err
	}
	c.gossip = g
	return nil
}

// run starts what goes on until Close.
func (c *Cluster) run() {
	if c.gossip != nil {
		c.background.Go(func() { c.gossip.run(c.ctx) })
	}
	if c.gossip != nil || c.cfg.RemoveAfter > 0 {
		a := &autopilot{
			node: c.node, peers: c.peers, membership: c.membership, leads: c.leadership.leads,
			log: c.log, promotes: c.gossip != nil, removeAfter: c.cfg.RemoveAfter,
		}
		c.background.Go(func() { a.run(c.ctx) })
	}
	c.background.Go(func() { c.founding.run(c.ctx) })
	c.background.Go(func() { c.joining.run(c.ctx) })
	calls := predecessorCalls{node: c.node, self: c.self, peers: c.peers, streams: c.streams}
	c.background.Go(func() { calls.run(c.ctx) })
	c.background.Go(func() { c.lag.run(c.ctx) })
	c.background.Go(func() { c.absence.run(c.ctx) })
	c.background.Go(func() { c.repeats.Run(c.ctx) })
	c.background.Go(func() { c.marks.run(c.ctx) })
	c.background.Go(func() { c.equality.run(c.ctx) })
	c.background.Go(func() { c.compaction.run(c.ctx) })
	c.background.Go(c.proposer.submit)
	c.background.Go(c.proposer.deliver)
	c.background.Go(c.candidacy.campaignIfSingle)
	c.background.Go(func() { c.leadership.openTerms(c.ctx) })
	c.background.Go(func() { c.peers.run(c.ctx) })
	c.background.Go(func() { c.node.store.Watch(c.ctx) })
}

// founders are the servers that found the cluster together, nil while they are not known.
func (c *Cluster) founders() []Member {
	switch {
	case len(c.cfg.Members) > 1:
		return sortedMembers(c.cfg.Members)
	case c.cfg.foundsAlone():
		return []Member{{ID: c.node.id, RaftAddr: c.node.addr}}
	case c.gossip != nil:
		return c.gossip.founders()
	}
	return nil
}

// membershipMoved is what happens after a membership was applied. What is known of a
// server counts from then on: the address of a leader, too.
func membershipMoved(c *Cluster) func() {
	return func() {
		c.peers.wake.Set()
		c.leadership.changed.Notify()
		c.removal.look()
	}
}

// leaderMoved reacts to another leader, which this server may be.
func leaderMoved(c *Cluster) func() {
	return func() {
		c.peers.wake.Set()
		c.node.store.Health.LeaderMoved()
	}
}

// diskChanged reacts to a new verdict on the disk. It may be called on raft's own
// goroutines, so it only starts things.
func (c *Cluster) diskChanged() {
	if c.node.raft() == nil {
		return
	}
	c.leadership.refresh(fmt.Errorf("%w: %w", ErrLeadershipLost, ErrDisk))
	c.transfer.yieldIfDiskFails()
}

// linkBroken is called when the standing connection to a peer has ended.
func linkBroken(c *Cluster) func(id string) {
	return func(id string) {
		if !c.cfg.DisableCrashDetector && !c.closing.Load() {
			c.crash.linkBroken(id)
		}
	}
}

// Close hands leadership over, if this server has it, and stops everything it started.
// The context bounds the hand-over only. After Close returns, nothing of this package
// runs any more.
func (c *Cluster) Close(ctx context.Context) error {
	c.closeOnce.Do(func() {
		c.closing.Store(true)
		c.proposer.closing.Store(true)
		if c.node.leads() && len(c.node.servers()) > 1 {
			if err := c.transfer.handOver(ctx, ""); err != nil {
				c.log.Info("closing without a hand-over", "err", err)
			}
		}
		c.leadership.pause()
		c.proposer.stop()
		c.proposer.drain(ctx)
		c.node.raft().DeregisterObserver(c.observer)
		c.marks.last()
		c.shutdown()
		close(c.closed)
	})
	<-c.closed
	return nil
}

// shutdown ends and joins everything, also what a failed Open leaves.
func (c *Cluster) shutdown() {
	c.cancel()
	c.silence.stop()
	var down raft.Future
	if r := c.node.raft(); r != nil {
		down = r.Shutdown()
	}
	if c.streams != nil {
		c.streams.sever()
	}
	if c.node.store != nil {
		c.node.store.Stop()
	}
	if down != nil {
		_ = down.Error()
	}
	close(c.node.down)
	if c.node.transport != nil {
		_ = c.node.transport.Close()
	}
	c.background.wait()
	if c.streams != nil {
		c.streams.join()
	}
	if c.node.store != nil {
		c.node.store.Close()
	}
	if c.self != nil {
		c.self.close()
	}
}
