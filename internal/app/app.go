// Package app wires one replica of the storage controller together and runs it.
// It is the only package that sees all the others, and may do nothing else: what has a
// subject of its own has a package of its own.
//
// A replica is: the Raft member (cluster) with the state machine (fsm) on top of
// it; the HTTP listeners with the API, served by every replica; and, while it
// leads, the reconciler and the deletions and splits that were begun. Leadership is a
// context: when it is lost, everything of the term has ended before the next one
// begins.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/api"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/clusteradmin"
	"quorate/internal/controlsocket"
	"quorate/internal/instance"
	"quorate/internal/leadership"
	"quorate/internal/metrics"
	"quorate/internal/serve"
	"quorate/internal/snapshots"
)

// handOverTimeout bounds giving leadership away before a stop.
const handOverTimeout = 2 * time.Second

// ErrAbrupt is the cause with which a context of Run is cancelled to end a
// replica as if its process died: nothing is handed over and nothing finished.
var ErrAbrupt = errors.New("abrupt end")

// App is one running replica.
type App struct {
	cfg        Config
	log        *slog.Logger
	server     *serve.Server // nil for an instance: its server outlives it
	cluster    *cluster.Cluster
	machine    *machine
	replica    *Replica
	admin      *clusteradmin.Admin
	leadership *leadership.Leadership
	readiness  *leadership.Readiness
	leader     *leaderWork
	api        *api.Server
	answering  atomic.Pointer[api.Server] // api, once it is there
	outgoing   *outgoing
	saver      *snapshots.Saver // nil: nothing is saved again and again
	failed     failure
	work       work
}

// failure is what makes going on pointless. The first one counts.
type failure chan error

func (f failure) report(err error) {
	select {
	case f <- err:
	default:
	}
}

// New binds the listeners, opens the data directory and joins the cluster. The
// replica takes part in elections from here on, and answers requests once Run is
// called.
func New(ctx context.Context, cfg Config) (*App, error) {
	cfg.fill()
	server, err := listen(&cfg)
	if err != nil {
		return nil, err
	}
	a, err := open(ctx, cfg, nil)
	if err != nil {
		server.Close()
		return nil, err
	}
	a.server = server
	return a, nil
}

// listen binds the addresses of cfg, and fills in the one that others are told.
func listen(cfg *Config) (*serve.Server, error) {
	server, err := serve.Listen(cfg.HTTP.Config, cfg.Network, cfg.Logger)
	if err == nil && cfg.HTTP.Address == "" {
		cfg.HTTP.Address = server.URL()
	}
	return server, err
}

// sharedLeaderTimeout is the LeaderTimeout of instances that take turns, by default: one
// that starts may have to wait until the one before it has ended.
const sharedLeaderTimeout = 40 * time.Second

// RunShared serves like New and Run, in a data directory that other instances on this
// machine may use too, one at a time. It returns nil after ctx has ended.
func RunShared(ctx context.Context, cfg Config, entry instance.Entry) error {
	// Without a leader here, another instance is about to lead: that is worth waiting for.
	cfg.LeaderTimeout = cmp.Or(cfg.LeaderTimeout, sharedLeaderTimeout)
	cfg.fill()
	server, err := listen(&cfg)
	if err != nil {
		return err
	}
	return instance.Run(ctx, instance.Options{
		Dir: cfg.Cluster.DataDir, Address: cfg.HTTP.Address, Entry: entry,
		Server: server, Waiting: api.NewCandidate(), Logger: cfg.Logger,
		Open: func(
			ctx context.Context, stepDown func(context.Context) error,
		) (instance.Opened, error) {
			a, err := open(ctx, cfg, stepDown)
			if err != nil {
				return instance.Opened{}, err
			}
			return instance.Opened{
				Instance: a, Leader: a.leadership, Handler: a.api, Server: a.cluster.ID(),
			}, nil
		},
	})
}

// open makes a replica whose address is known. giveUp gives leadership away; nil
// transfers it to another member.
func open(
	ctx context.Context, cfg Config, giveUp func(context.Context) error,
) (*App, error) {
	out, err := newOutgoing(&cfg)
	if err != nil {
		return nil, err
	}
	a := &App{
		cfg: cfg, log: cfg.Logger, outgoing: out, failed: make(failure, 1),
	}
	registry := prometheus.NewRegistry()
	store := fsm.NewStore()
	recorder := metrics.New(registry, store.State)
	a.machine = &machine{
		store: store, granted: cfg.Granted, foreseen: cfg.Foreseen, fail: a.failed.report,
		halted: make(chan struct{}),
	}
	raft := cfg.Cluster
	raft.HTTPAddr, raft.Level = cfg.HTTP.Address, fsm.Level
	raft.Observer, raft.Answer = observe(registry), a.answer
	var replicated cluster.Machine = a.machine
	if cfg.Machine != nil {
		replicated = cfg.Machine(a.machine)
	}
	if a.cluster, err = cluster.Open(ctx, raft, replicated); err != nil {
		return nil, fmt.Errorf("open the cluster: %w", err)
	}
	a.replica = &Replica{
		log: a.cluster, store: store, outdated: a.machine.outdate.Load, observe: recorder.Command,
		leaderTimeout: cfg.LeaderTimeout, proposing: cfg.Proposing,
	}
	store.Subscribe(func(*fsm.State, fsm.Touched) { a.replica.changed.Notify() })
	a.admin = clusteradmin.New(clusteradmin.Options{
		Cluster: a.cluster, TLS: raft.TLS != nil,
		Level: func() uint64 { return a.replica.State().AgreedLevel() },
	})
	a.leadership = leadership.New(leadership.Options{
		Cluster: a.cluster, Log: a.replica, Give: giveUp, Logger: cfg.Logger,
	})
	if err := a.openSaves(registry); err != nil {
		return nil, errors.Join(err, a.cluster.Close(ctx))
	}
	a.wire(store, registry, recorder)
	return a, nil
}

// Run serves until ctx ends, then, unless the cause is ErrAbrupt, hands leadership over,
// lets requests finish for a few seconds and closes everything; it returns nil then. It
// returns an error when this replica cannot go on.
func (a *App) Run(ctx context.Context) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	failed := a.Start(background)
	a.server.Start(background, a.api)
	a.log.Info("Serving HTTP", "address", a.cfg.HTTP.Address, "server", a.cluster.ID())
	unsupervise := a.cfg.Supervision.run(background, a)

	var cause error
	select {
	case <-ctx.Done():
		a.log.Info("Stopping")
	case cause = <-failed:
		a.log.Error("This replica cannot go on", "err", cause)
	}
	a.cfg.Supervision.Manager.Stopping()
	unsupervise()
	closing := context.WithoutCancel(ctx)
	if errors.Is(context.Cause(ctx), ErrAbrupt) {
		closing = ctx
	}
	a.handOver(closing)
	a.server.Stop(closing)
	return errors.Join(cause, a.Close(closing))
}

// work is what a replica does besides answering requests.
type work struct {
	cancel context.CancelFunc // nil before the start
	socket *controlsocket.Server
	wg     sync.WaitGroup
}

// end stops the work and joins it.
func (w *work) end() {
	if w.cancel == nil {
		return
	}
	w.socket.Close()
	w.cancel()
	w.wg.Wait()
}

// Start begins the work of the replica, which ends with ctx at the latest. The channel
// tells what makes going on pointless.
func (a *App) Start(ctx context.Context) (failed <-chan error) {
	w := &a.work
	ctx, w.cancel = context.WithCancel(ctx)
	w.wg.Go(func() { a.learnClusterID(ctx) })
	w.wg.Go(func() { a.readiness.CatchUp(ctx) })
	w.wg.Go(func() {
		err := a.cluster.RunWhileLeader(ctx, a.leader.run)
		if ctx.Err() == nil && err != nil {
			a.failed.report(err)
		}
	})
	w.wg.Go(func() { a.watchDisk(ctx) })
	if a.saver != nil {
		w.wg.Go(func() { a.saver.Run(ctx) })
	}
	w.wg.Go(func() { a.cfg.Certificates.Run(ctx) })
	var err error
	if w.socket, err = a.openControlSocket(); err != nil {
		a.failed.report(err)
	}
	return a.failed
}

func (a *App) openControlSocket() (*controlsocket.Server, error) {
	dir := a.cfg.Cluster.DataDir
	if dir == "" || a.cfg.Control == ControlNone {
		return nil, nil
	}
	var more []controlsocket.Route
	if a.cfg.ControlRoutes != nil {
		more = a.cfg.ControlRoutes(a.replica)
	}
	return controlsocket.Listen(controlsocket.Options{
		Dir: dir, Cluster: a.cluster, Members: a.admin, Logger: a.log,
	}, more...)
}

// handOver gives leadership away while requests are still answered, so that they
// are forwarded to the successor instead of failing, and releases the clients.
func (a *App) handOver(ctx context.Context) {
	if ctx.Err() != nil || len(a.cluster.Members()) < 2 {
		return
	}
	if a.cluster.IsLeader() {
		ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
		defer cancel()
		if err := a.cluster.TransferLeadership(ctx, ""); err != nil &&
			!errors.Is(err, cluster.ErrNotLeader) {
			a.log.Info("Stopping without handing leadership over", "err", err)
		}
	}
	a.server.Release(ctx)
}

// Retire makes the replica forward all requests to those who come after it, ends its
// work and closes the data directory.
func (a *App) Retire(ctx context.Context, next leadership.Successor) error {
	a.leadership.Retire(next)
	a.work.end()
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	return a.closeCluster(ctx)
}

// Close ends the work and closes the data directory, if that has not been done, and joins
// what was started for requests. None may be under way.
func (a *App) Close(ctx context.Context) error {
	a.work.end()
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	err := a.closeCluster(ctx)
	a.leadership.Wait()
	a.outgoing.closeIdle()
	return err
}

// closeCluster ends this replica's part in the cluster.
func (a *App) closeCluster(ctx context.Context) error {
	a.machine.release()
	return a.cluster.Close(ctx)
}

// Address is the base URL of the API, with a trailing slash.
func (a *App) Address() string { return a.cfg.HTTP.Address }

// Replica gives tests the replicated state of this process.
func (a *App) Replica() *Replica { return a.replica }

// Cluster is the Raft member.
func (a *App) Cluster() *cluster.Cluster { return a.cluster }
