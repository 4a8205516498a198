package testcluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"quorate/api/auth"
	"quorate/cluster"
	"quorate/cluster/clustertest"
	"quorate/fsm"
	"quorate/internal/app"
	"quorate/internal/failpoint"
	"quorate/internal/serve"
	"quorate/internal/tracelog"
	"quorate/testcluster/spoil"
)

// faultyDisk is a disk that can hang and be full.
type faultyDisk interface {
	Hang()
	Resume()
	Fail(err error)
}

// inProcess runs a controller in this process, in real or virtual time.
type inProcess struct {
	config app.Config // of every start
	gate   *gate
	memory atomic.Pointer[spoil.Machine] // of the last start
	disk   faultyDisk
	log    *logTail

	mu     sync.Mutex
	app    *app.App // nil while it does not run
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // of the last run
}

// newInProcess makes the controller of a spec.
func (c *Cluster) newInProcess(spec replicaSpec) replica {
	b := &c.builder
	r := &inProcess{gate: newGate(c.network.host(spec.id)), log: newLogTail(spec.logFile)}
	r.gate.calling = b.Calling
	cfg := app.Config{
		Cluster: cluster.Config{
			ID: spec.id, DataDir: spec.dataDir, RaftListen: spec.raftListen, Advertise: spec.raft,
			Members: spec.members, Timeouts: b.Raft,
			SnapshotThreshold: b.Snapshots.Every, TrailingLogs: b.Snapshots.Trailing,
		},
		HTTP: app.HTTP{Config: serve.Config{Listen: spec.http}},
		Tokens: app.Tokens{
			Pageserver: c.presents("pageserverapi"), Safekeeper: c.presents("safekeeperdata"),
			ControlPlane: c.presents("admin"),
		},
		Network: r.gate, Control: app.ControlNone, Granted: c.granted, Proposing: b.Proposing,
		ControlPlaneURL: c.controlPlane.url, TenantRateLimit: 1 << 20,
		Resolve: func(context.Context, string) error { return nil },
		Splits:  app.SplitOptions(b.Splits), DiskLoss: b.DiskLoss,
		Logger: tracelog.New(r.log, slog.LevelDebug),
	}
	cfg.Reconciler.HeartbeatInterval, cfg.Reconciler.MaxOffline = b.HeartbeatInterval, b.MaxOffline
	if b.Safekeepers > 0 {
		cfg.Safekeepers = app.Safekeepers{Timelines: true, PerTimeline: b.perTimeline()}
	}
	cfg.Foreseen = func(s *fsm.State) {
		c.foreseen(s)
		if b.Foreseen != nil {
			b.Foreseen(s)
		}
		if b.Safekeepers > 0 {
			c.safekeepers.foreseen(s)
		}
	}
	if b.Failpoints {
		cfg.Failpoints = failpoint.New(cfg.Logger, func(string) {})
	}
	if b.Tune != nil {
		b.Tune(&cfg.Reconciler)
	}
	if c.keys != nil {
		cfg.Keys = auth.NewKeys(c.keys.public)
	}
	if b.Mode == Virtual {
		d := clustertest.NewMemoryDisk()
		r.disk, cfg.Cluster.Disk = d, d
	} else {
		d := clustertest.NewFileDisk()
		r.disk, cfg.Cluster.Disk = d, d
	}
	cfg.Machine = func(m cluster.Machine) cluster.Machine {
		spoilt := spoil.New(m)
		r.memory.Store(spoilt)
		return spoilt
	}
	r.config = cfg
	return r
}

func (r *inProcess) start(ctx context.Context) error {
	r.mu.Lock()
	running := r.app != nil
	r.mu.Unlock()
	if running {
		return errors.New("it runs already")
	}
	r.gate.revive()
	a, err := app.New(ctx, r.config)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	done := make(chan struct{})
	r.mu.Lock()
	r.app, r.cancel, r.done, r.err = a, cancel, done, nil
	r.mu.Unlock()
	go func() {
		defer close(done)
		err := a.Run(run)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.app, r.err = nil, err
	}()
	return nil
}

// end cancels the run and joins it.
func (r *inProcess) end(cause error) error {
	r.mu.Lock()
	cancel, done, running := r.cancel, r.done, r.app != nil
	r.mu.Unlock()
	if done == nil {
		return nil
	}
	cancel(cause)
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	if !running || errors.Is(cause, app.ErrAbrupt) {
		return nil // a killed process says nothing
	}
	return r.err
}

func (r *inProcess) kill() error {
	r.gate.kill()
	r.disk.Resume()
	return r.end(app.ErrAbrupt)
}

func (r *inProcess) stop(context.Context) error { return r.end(context.Canceled) }

func (r *inProcess) pause() error  { r.gate.pause(); return nil }
func (r *inProcess) resume() error { r.gate.resume(); return nil }

func (r *inProcess) hangDisk() error { r.disk.Hang(); return nil }
func (r *inProcess) fillDisk() error { r.disk.Fail(syscall.ENOSPC); return nil }

func (r *inProcess) healDisk() error {
	r.disk.Fail(nil)
	r.disk.Resume()
	return nil
}

func (r *inProcess) spoilState() error {
	if !r.running() {
		return errors.New("it does not run")
	}
	return r.memory.Load().Spoil()
}

func (r *inProcess) block(addresses ...string) error {
	r.gate.block(addresses...)
	return nil
}

func (r *inProcess) blockNodes(addresses ...string) error {
	r.gate.blockNodes(addresses...)
	return nil
}

func (r *inProcess) current() *app.App {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.app
}

func (r *inProcess) leads(context.Context) bool {
	a := r.current()
	return a != nil && a.Cluster().IsLeader()
}

func (r *inProcess) running() bool { return r.current() != nil }

func (r *inProcess) raftAddr() string { return r.config.Cluster.Advertise }

func (r *inProcess) httpAddr() string { return r.config.HTTP.Listen }

func (r *inProcess) logs() []byte { return r.log.bytes() }

func (r *inProcess) state(ctx context.Context) (*fsm.State, error) {
	a := r.current()
	if a == nil {
		return nil, errors.New("it does not run")
	}
	return a.Replica().ReadState(ctx)
}

func (r *inProcess) install(string) error { return ErrMode }

func (r *inProcess) reflag(func([]string) []string) error { return ErrMode }

func (r *inProcess) pid() int { return 0 }

func (r *inProcess) dataDir() string { return r.config.Cluster.DataDir }
