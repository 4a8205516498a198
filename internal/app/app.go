// Package app wires one replica of the storage controller together and runs it.
// It is the only package that sees all the others.
//
// A replica is: the Raft member (cluster) with the state machine (fsm) on top of
// it; the HTTP listeners with the API, served by every replica; and, while it
// leads, the reconciler and the deletions and splits that were begun. Leadership is a
// context: when it is lost, everything of the term has ended before the next one
// begins.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/api"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/deletion"
	"quorate/internal/imports"
	"quorate/internal/membership"
	"quorate/internal/safekeeping"
	"quorate/internal/split"
	"quorate/reconciler"
)

// handOverTimeout bounds giving leadership away before a stop.
const handOverTimeout = 2 * time.Second

// ErrAbrupt is the cause with which a context of Run is cancelled to end a
// replica as if its process died: nothing is handed over and nothing finished.
var ErrAbrupt = errors.New("abrupt end")

// App is one running replica.
type App struct {
	cfg      Config
	log      *slog.Logger
	registry *prometheus.Registry
	web      *web
	cluster  *cluster.Cluster
	store    *fsm.Store
	machine  *machine
	halt     sync.Once
	replica  *Replica

	reconciler *reconciler.Reconciler
	keeper     *safekeeping.Keeper
	keeperHook membership.Hook // nil: compute need not be told
	calls      pageservers
	flagSource http.RoundTripper
	importHook imports.Hook // nil: nobody need be told
	migrations *membership.Migrator
	imports    *imports.Importer

	tenantDeletions   *deletion.Tenants
	timelineDeletions *deletion.Timelines

	splits     *split.Splitter
	leadership *leadership
	readiness  *readiness
	api        *api.Server
	transports []*http.Transport

	applied chan struct{} // poked after each applied batch
	failed  chan error    // what makes going on pointless; the first counts
}

// New binds the listeners, opens the data directory and joins the cluster. The
// replica takes part in elections from here on, and answers requests once Run is
// called. An App that is not run must be closed.
func New(ctx context.Context, cfg Config) (*App, error) {
	cfg.fill()
	w, err := listen(&cfg)
	if err != nil {
		return nil, err
	}
	a, err := open(ctx, cfg, w)
	if err != nil {
		w.abandon()
	}
	return a, err
}

// open makes the replica behind listeners that are bound already.
func open(ctx context.Context, cfg Config, w *web) (*App, error) {
	a := &App{
		cfg: cfg, log: cfg.Logger, registry: prometheus.NewRegistry(), web: w,
		leadership: &leadership{},
		applied:    make(chan struct{}, 1), failed: make(chan error, 1),
	}
	if a.cfg.HTTP.Address == "" {
		a.cfg.HTTP.Address = a.web.url()
	}
	a.cfg.Cluster.HTTPAddr = a.cfg.HTTP.Address
	a.leadership.stepped.give = a.leadership.transfer
	a.leadership.stepped.slow = func(elapsed time.Duration) {
		a.log.Warn("Stopping reconciliations during step down is taking too long",
			"elapsed_sec", int(elapsed.Seconds()))
	}
	a.store = fsm.NewStore()
	a.store.Subscribe(a.onApplied)
	a.machine = &machine{
		store: a.store, granted: cfg.Granted, foreseen: cfg.Foreseen, fail: a.fail,
		halted: make(chan struct{}),
	}
	a.cfg.Cluster.Level = fsm.Level
	var err error
	if a.cluster, err = cluster.Open(ctx, a.cfg.Cluster, a.machine); err != nil {
		return nil, fmt.Errorf("open the cluster: %w", err)
	}
	a.replica = &Replica{log: a.cluster, store: a.store, outdated: a.machine.outdate.Load}
	if err = a.wire(); err != nil {
		return nil, errors.Join(err, a.close(ctx))
	}
	return a, nil
}

func (a *App) onApplied(*fsm.State, fsm.Touched) {
	select {
	case a.applied <- struct{}{}:
	default:
	}
}

// fail makes Run stop and return err.
func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

// Run serves until ctx ends, then, unless the cause is ErrAbrupt, hands leadership over,
// lets requests finish for a few seconds and closes everything; it returns nil then. It
// returns an error when this replica cannot go on.
func (a *App) Run(ctx context.Context) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	work := a.begin(background)
	a.web.serve(a.api, background)
	a.log.Info("Serving HTTP", "address", a.cfg.HTTP.Address, "server", a.cluster.ID())

	var cause error
	select {
	case <-ctx.Done():
		a.log.Info("Stopping")
	case cause = <-a.failed:
		a.log.Error("This replica cannot go on", "err", cause)
	}
	closing := context.WithoutCancel(ctx)
	if errors.Is(context.Cause(ctx), ErrAbrupt) {
		closing = ctx
	}
	a.handOver(closing)
	a.web.stop(closing)
	work.end()
	return errors.Join(cause, a.close(closing))
}

// work is what a replica does besides answering requests.
type work struct {
	cancel context.CancelFunc
	socket *control
	wg     sync.WaitGroup
}

// begin starts the work of the replica; it ends with ctx at the latest.
func (a *App) begin(ctx context.Context) *work {
	w := &work{}
	ctx, w.cancel = context.WithCancel(ctx)
	w.wg.Go(func() { a.learnClusterID(ctx) })
	w.wg.Go(func() { a.readiness.catchUp(ctx) })
	w.wg.Go(func() {
		err := a.cluster.RunWhileLeader(ctx, a.lead)
		if ctx.Err() == nil && err != nil {
			a.fail(err)
		}
	})
	w.wg.Go(func() { a.watchDisk(ctx) })
	var err error
	if w.socket, err = a.serveControl(); err != nil {
		a.fail(err)
	}
	return w
}

// end stops the work and joins it.
func (w *work) end() {
	w.socket.close()
	w.cancel()
	w.wg.Wait()
}

// handOver gives leadership away while requests are still answered, so that they
// are forwarded to the successor instead of failing, and lets go of the clients.
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
	a.web.linger(ctx)
}

// Close releases an App that was never run.
func (a *App) Close() error {
	a.web.abandon()
	return a.close(context.Background())
}

func (a *App) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	err := a.closeCluster(ctx)
	a.leadership.wait()
	for _, t := range a.transports {
		t.CloseIdleConnections()
	}
	return err
}

// closeCluster ends this replica's part in the cluster.
func (a *App) closeCluster(ctx context.Context) error {
	a.halt.Do(func() { close(a.machine.halted) })
	return a.cluster.Close(ctx)
}

// Address is the base URL of the API, with a trailing slash.
func (a *App) Address() string { return a.cfg.HTTP.Address }

// Replica gives tests the replicated state of this process.
func (a *App) Replica() *Replica { return a.replica }

// Cluster is the Raft member.
func (a *App) Cluster() *cluster.Cluster { return a.cluster }
