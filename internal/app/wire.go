package app

import (
	"context"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"quorate/api"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controller"
	"quorate/internal/deletion"
	"quorate/internal/duty"
	"quorate/internal/featureflags"
	"quorate/internal/imports"
	"quorate/internal/leadership"
	"quorate/internal/membership"
	"quorate/internal/metrics"
	"quorate/internal/pageserver"
	"quorate/internal/safekeeper"
	"quorate/internal/safekeeping"
	"quorate/internal/split"
	"quorate/internal/timetravel"
	"quorate/reconciler"
)

// wire builds everything above the log, from the outside inwards.
func (a *App) wire(store *fsm.Store, registry *prometheus.Registry, recorder *metrics.Recorder) {
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newRaftMetrics(a.cluster), newMemberMetrics(a.cluster.Members),
		newProcessMetrics(a.cfg.LinesLost), newCertificateMetrics(a.cfg.Certificates.Expiries),
		newSecretMetrics(a.cfg.Secrets), infoMetric(a.cfg.Cluster.Version, a.cfg.Labels))
	c := calls{
		pageservers: newPageservers(&a.cfg, a.outgoing, recorder),
		safekeepers: newSafekeepers(&a.cfg, a.outgoing, recorder),
		hooks:       newHooks(&a.cfg, a.outgoing),
	}
	rec := a.newReconciler(c, recorder)
	registry.MustRegister(queueMetrics(rec)...)
	store.Subscribe(rec.Changed)
	keeper := newKeeper(&a.cfg, a.replica, c.safekeepers, recorder)
	store.Subscribe(keeper.Changed)
	a.readiness = leadership.NewReadiness(a.cluster, rec, a.cfg.LeaderTimeout)
	deps := a.controllerDeps(c, rec)
	a.leader = a.newLeaderWork(c, rec, keeper)
	store.Subscribe(a.leader.travels.Changed)
	registry.MustRegister(a.leader.consistency.series()...)
	creator := a.wireTimelines(store, c, keeper)
	a.api = a.newAPI(deps, creator, registry, recorder)
	a.answering.Store(a.api)
}

// answer answers the questions of other replicas.
func (a *App) answer(b, question []byte) []byte {
	if s := a.answering.Load(); s != nil && !a.machine.outdate.Load() {
		return s.Answer(b, question)
	}
	return b
}

// newLeaderWork makes what is done by the leader, but for the work on timelines.
func (a *App) newLeaderWork(
	c calls, rec *reconciler.Reconciler, keeper *safekeeping.Keeper,
) *leaderWork {
	return &leaderWork{
		log: a.log, cluster: a.cluster, replica: a.replica, leadership: a.leadership,
		address:    a.cfg.HTTP.Address,
		reconciler: rec, keeper: keeper,
		tenantDeletions: deletion.NewTenants(a.replica, rec, c.pageservers, a.log),
		travels:         timetravel.New(a.replica, rec, c.pageservers, a.log),
		splits: split.New(split.Deps{
			Log: a.replica, Reconciler: rec, Pageservers: c.pageservers,
			Failpoints: a.cfg.Failpoints, Options: a.cfg.Splits, Logger: a.log,
		}),
		flags: &featureflags.Poller{
			Project: a.cfg.FeatureFlags, Source: a.outgoing.pooled(), State: a.replica.State,
			Pageservers: c.pageservers, Logger: a.log,
		},
		consistency: newConsistency(a.cfg.CheckEvery,
			func() error { return fsm.Check(a.replica.State()) }, a.log),
	}
}

// wireTimelines makes the leader's work on timelines. The result places new timelines
// on safekeepers.
func (a *App) wireTimelines(
	store *fsm.Store, c calls, keeper *safekeeping.Keeper,
) *membership.Creator {
	members := membership.Deps{
		Log: a.replica, Safekeepers: c.safekeepers, Loads: keeper, Hook: c.hooks.safekeepers,
		Failpoints: a.cfg.Failpoints, PerTimeline: a.cfg.Safekeepers.PerTimeline, Logger: a.log,
	}
	creator := membership.NewCreator(members)
	turns, creating := new(duty.Turns[neon.TimelineRef]), new(duty.Turns[neon.TimelineRef])
	w := a.leader
	w.migrations = membership.NewMigrator(members)
	w.imports = imports.New(imports.Deps{
		Log: a.replica, Pageservers: c.pageservers, Safekeepers: creator, Hook: c.hooks.imports,
		Turns: turns, Failpoints: a.cfg.Failpoints, OntoSafekeepers: a.cfg.Safekeepers.Timelines,
		Logger: a.log,
	})
	store.Subscribe(w.imports.Changed)
	w.timelineDeletions = deletion.NewTimelines(
		a.replica, w.reconciler, c.pageservers, turns, creating, a.log)
	w.creating = creating
	store.Subscribe(w.timelineDeletions.Changed)
	return creator
}

// calls are the ways to the outside.
type calls struct {
	pageservers *pageserver.Client
	safekeepers *safekeeper.Client
	hooks       hooks
}

func (a *App) newReconciler(c calls, recorder *metrics.Recorder) *reconciler.Reconciler {
	deps := reconciler.Deps{
		Log: a.replica, Locations: c.pageservers, Prober: c.pageservers,
		Migrations: c.pageservers, Sizes: c.pageservers, Hook: c.hooks.attach,
		Metrics: recorder, Options: a.cfg.Reconciler, Logger: a.log,
		Ended: func(r *reconciler.Reconciler) {
			debug := controller.NewDebug(controller.Deps{Log: a.replica, Reality: r})
			a.leadership.TermEnds(debug.Observed)
		},
	}
	// A single replica takes over from no other: who restarts it may want compute to
	// hear everything again. Of several, the log knows what compute has acknowledged.
	deps.Retell = func() bool { return len(a.cluster.Members()) < 2 }
	if a.cfg.Failpoints != nil {
		deps.Failpoints = a.cfg.Failpoints
	}
	return reconciler.New(deps)
}

func (a *App) controllerDeps(c calls, rec *reconciler.Reconciler) controller.Deps {
	return controller.Deps{
		Log: a.replica, Reality: rec, Nodes: rec, Passes: rec,
		Pageservers: c.pageservers,
		Resolve:     a.cfg.Resolve, Locks: controller.NewLocks(a.log),
		Options: controller.Options{
			UseHTTPS: a.cfg.PageserverScheme == "https", HandleDiskLoss: a.cfg.DiskLoss,
			UseHTTPSSafekeepers: a.cfg.Safekeepers.Scheme == "https",
			OntoSafekeepers:     a.cfg.Safekeepers.Timelines,
		},
		Failpoints: a.cfg.Failpoints, Logger: a.log,
	}
}

func (a *App) newAPI(
	deps controller.Deps, creator *membership.Creator, registry *prometheus.Registry,
	recorder *metrics.Recorder,
) *api.Server {
	w := a.leader
	options := api.Options{
		Tenants: controller.NewTenants(deps), Shards: controller.NewShards(deps), Splits: w.splits,
		Nodes:      controller.NewNodes(deps),
		Operations: controller.NewOperations(deps), Upcalls: controller.NewUpcalls(deps),
		Timelines:       controller.NewTimelines(deps, creator, w.imports, w.creating),
		Debug:           controller.NewDebug(deps),
		Safekeepers:     controller.NewSafekeepers(deps),
		TenantDeletions: w.tenantDeletions, TimelineDeletions: w.timelineDeletions,
		Travels:    w.travels,
		Migrations: w.migrations,
		Leadership: a.leadership, Readiness: a.readiness,
		LeaderTimeout: a.cfg.LeaderTimeout,
		Cluster:       a.admin.View, Members: a.admin.List, Membership: a.admin,
		State: a.replica.State, AskLeader: a.cluster.AskLeader,
		Peers: a.outgoing.pooled(), Keys: a.cfg.Keys,
		RatePerSec: a.cfg.TenantRateLimit,
		Registry:   registry, Metrics: recorder, Logger: a.log,
	}
	if a.cfg.Failpoints != nil {
		options.Failpoints = a.cfg.Failpoints
	}
	return api.New(options)
}

// resolve returns an error unless a host has an address.
func resolve(ctx context.Context, host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	_, err := net.DefaultResolver.LookupHost(ctx, host)
	return err
}
