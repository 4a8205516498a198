package app

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"

	"quorate/api"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/computehook"
	"quorate/internal/controller"
	"quorate/internal/deletion"
	"quorate/internal/duty"
	"quorate/internal/imports"
	"quorate/internal/localhook"
	"quorate/internal/membership"
	"quorate/internal/metrics"
	"quorate/internal/pageserver"
	"quorate/internal/safekeeper"
	"quorate/internal/split"
	"quorate/reconciler"
)

// wire builds everything above the log.
func (a *App) wire() error {
	roots, err := a.cfg.roots()
	if err != nil {
		return err
	}
	a.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newRaftMetrics(a.cluster), newProcessMetrics(a.cfg.LinesLost))
	metrics := metrics.New(a.registry, a.store.State)
	a.replica.observe = metrics.Command
	conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	pooled := a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf))
	heartbeats := a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf))
	heartbeats.DisableKeepAlives = true
	calls := pageservers{pageserver.New(pageserver.Options{
		Transport: pooled, Heartbeats: heartbeats, Token: a.cfg.Tokens.Pageserver,
		UseHTTPS: a.cfg.PageserverScheme == "https", Observe: observe(metrics),
	})}
	a.calls, a.flagSource = calls, a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf))
	deps := reconciler.Deps{
		Log: a.replica, Locations: calls, Prober: calls, Migrations: calls,
		Metrics: metrics, Options: a.cfg.Reconciler, Logger: a.log,
		Ended: a.leadership.stepped.termEnded,
	}
	// Who is alone takes over from nobody: whoever restarts him hears everything
	// again. Of several, the log knows what compute has acknowledged.
	deps.Retell = func() bool { return len(a.cluster.Members()) < 2 }
	if a.cfg.Failpoints != nil {
		deps.Failpoints = a.cfg.Failpoints
	}
	if a.cfg.ControlPlaneURL != "" {
		a.importHook = a.controlPlane(conf)
	}
	switch {
	case a.cfg.LocalComputes:
		local := localhook.New(localhook.Options{
			Dir: a.cfg.RepoDir, Dial: a.cfg.dialContext, Logger: a.log,
		})
		deps.Hook, a.keeperHook = local, localKeepers{local}
	case a.cfg.ControlPlaneURL != "":
		remote := a.controlPlane(conf)
		deps.Hook, a.keeperHook = remote, remote
	}
	a.reconciler = reconciler.New(deps)
	a.registry.MustRegister(queueMetrics(a.reconciler)...)
	a.store.Subscribe(a.reconciler.Changed)
	toSafekeepers := a.safekeeperCalls(conf, metrics)
	a.keeper = a.newKeeper(toSafekeepers, metrics)
	a.store.Subscribe(a.keeper.Changed)
	a.leadership.cluster, a.leadership.replica = a.cluster, a.replica
	a.readiness = &readiness{app: a}
	a.api = a.newAPI(outward{calls, toSafekeepers}, metrics,
		a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf)))
	return nil
}

// controlPlane makes a client of the control plane.
func (a *App) controlPlane(conf *tls.Config) hook {
	return hook{computehook.New(computehook.Options{
		BaseURL: a.cfg.ControlPlaneURL, Token: a.cfg.Tokens.ControlPlane,
		Transport: a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf)),
	})}
}

// outgoing remembers a transport, whose idle connections Close ends.
func (a *App) outgoing(t *http.Transport) *http.Transport {
	a.transports = append(a.transports, t)
	return t
}

// outward are the calls of controllers.
type outward struct {
	pageservers pageservers
	safekeepers safekeepers
}

// safekeeperCalls makes the client of safekeepers.
func (a *App) safekeeperCalls(conf *tls.Config, metrics *metrics.Recorder) safekeepers {
	pooled := a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf))
	heartbeats := a.outgoing(pageserver.NewTransport(a.cfg.dialContext, conf))
	heartbeats.DisableKeepAlives = true
	return safekeepers{safekeeper.New(safekeeper.Options{
		Transport: pooled, Heartbeats: heartbeats, Token: a.cfg.Tokens.Safekeeper,
		UseHTTPS: a.cfg.Safekeepers.Scheme == "https", Observe: observeSafekeepers(metrics),
	})}
}

func (a *App) newAPI(
	calls outward, metrics *metrics.Recorder, peers http.RoundTripper,
) *api.Server {
	leader := reality{a.reconciler}
	deps := controller.Deps{
		Log: a.replica, Reality: leader, Nodes: leader, Passes: leader,
		Pageservers: calls.pageservers,
		Resolve:     a.cfg.Resolve, Locks: controller.NewLocks(a.log),
		Options: controller.Options{
			UseHTTPS: a.cfg.PageserverScheme == "https", HandleDiskLoss: a.cfg.DiskLoss,
			UseHTTPSSafekeepers: a.cfg.Safekeepers.Scheme == "https",
			OntoSafekeepers:     a.cfg.Safekeepers.Timelines,
		},
		Failpoints: a.cfg.Failpoints, Logger: a.log,
	}
	timelines := a.timelineWork(calls, deps)
	a.splits = split.New(split.Deps{
		Log: a.replica, Reconciler: leader, Pageservers: splitCalls{calls.pageservers},
		Failpoints: a.cfg.Failpoints, Options: a.cfg.Splits, Logger: a.log,
	})
	debug := controller.NewDebug(deps)
	a.leadership.stepped.look = debug.Observed
	options := api.Options{
		Tenants: controller.NewTenants(deps), Shards: controller.NewShards(deps), Splits: a.splits,
		Nodes:      controller.NewNodes(deps),
		Operations: controller.NewOperations(deps), Upcalls: controller.NewUpcalls(deps),
		Timelines: timelines, Debug: debug,
		Safekeepers:     controller.NewSafekeepers(deps),
		TenantDeletions: a.tenantDeletions, TimelineDeletions: a.timelineDeletions,
		Migrations: a.migrations,
		Leadership: a.leadership, Readiness: a.readiness, Cluster: a.describe,
		State: a.replica.State,
		Peers: peers, PublicKey: a.cfg.PublicKey, RatePerSec: a.cfg.TenantRateLimit,
		Registry: a.registry, Metrics: metrics, Logger: a.log,
	}
	if a.cfg.Failpoints != nil {
		options.Failpoints = a.cfg.Failpoints
	}
	return api.New(options)
}

// timelineWork makes the requests about timelines, and the leader's work on them.
func (a *App) timelineWork(calls outward, deps controller.Deps) *controller.Timelines {
	members := membership.Deps{
		Log: a.replica, Safekeepers: calls.safekeepers, Loads: a.keeper, Hook: a.keeperHook,
		Failpoints: a.cfg.Failpoints, PerTimeline: a.cfg.Safekeepers.PerTimeline, Logger: a.log,
	}
	creator := membership.NewCreator(members)
	a.migrations = membership.NewMigrator(members)
	turns := new(duty.Turns[neon.TimelineRef])
	a.imports = imports.New(imports.Deps{
		Log: a.replica, Pageservers: calls.pageservers, Safekeepers: creator, Hook: a.importHook,
		Turns: turns, Failpoints: a.cfg.Failpoints, OntoSafekeepers: a.cfg.Safekeepers.Timelines,
		Logger: a.log,
	})
	a.store.Subscribe(a.imports.Changed)
	a.timelineDeletions = deletion.NewTimelines(a.replica, calls.pageservers, turns, a.log)
	a.store.Subscribe(a.timelineDeletions.Changed)
	a.tenantDeletions = deletion.NewTenants(a.replica, deps.Reality, calls.pageservers, a.log)
	return controller.NewTimelines(deps, creator, a.imports)
}

// reality is the reconciler as the controllers see it.
type reality struct{ *reconciler.Reconciler }

func (r reality) Kick(shards ...neon.ShardID) { r.Reconciler.Kick(shards...) }

func (r reality) LimitWarming(id neon.ShardID, warm, request *time.Duration) {
	r.Reconciler.LimitWarming(id, reconciler.WarmLimits{Total: warm, Request: request})
}

func (r reality) Status(id neon.ShardID) controller.ShardStatus {
	s := r.Reconciler.Status(id)
	return controller.ShardStatus{
		Reconciling: s.Reconciling, LastError: s.LastError, PendingNotify: s.PendingNotify,
		ConsecutiveFailures: s.Failures, Observed: s.Observed,
	}
}

// ReAttached forgets what was seen of the node: an empty disk or not, what it
// holds now is looked at again.
func (r reality) ReAttached(node neon.NodeID, _ controller.Disk, _ []fsm.Location) {
	r.Reconciler.ReAttached(node)
}

// resolve tells whether a host has an address.
func resolve(ctx context.Context, host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	_, err := net.DefaultResolver.LookupHost(ctx, host)
	return err
}
