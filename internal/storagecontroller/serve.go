package storagecontroller

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quorate/cluster"
	"quorate/internal/app"
	"quorate/internal/buildinfo"
	"quorate/internal/failpoint"
	"quorate/internal/featureflags"
	"quorate/internal/instance"
	"quorate/internal/serve"
	"quorate/internal/servicemanager"
	"quorate/internal/tracelog"
	"quorate/reconciler"
)

var errNotBool = errors.New("want true or false")

// defaultDataDir is below the working directory, which launchers make one of its
// own for every instance.
const defaultDataDir = "storage_controller_data"

// runReplica runs the replica until a signal ends ctx.
func runReplica(ctx context.Context, f *flags, seams Seams) error {
	spareProcs()
	lines := openLog()
	defer lines.Close(lastLines)
	log := tracelog.New(lines, tracelog.ParseLevel(os.Getenv("RUST_LOG")))
	slog.SetDefault(log)
	cfg, err := f.config(log)
	if err != nil {
		return err
	}
	dir, _ := filepath.Abs(cfg.Cluster.DataDir) // whatever it is called, it has to be found
	if err := checkExported(dir); err != nil {
		return err
	}
	log.Info("Starting storage controller", "version", buildinfo.Of().String(), "data_dir", dir)
	if f.dev {
		log.Warn(
			"Starting in dev mode: secrets and hooks are optional, do not use this in production")
		cfg.Failpoints = failpoint.New(log, func(why string) {
			log.Info("Exiting", "why", why)
			lines.Close(lastLines)
			os.Exit(exitError)
		})
	} else if err := f.strict(); err != nil {
		return err
	} else if err := f.checkPeersDoor(cfg.Cluster, log); err != nil {
		return err
	}
	tellIgnored(f, log)
	tellDataDir(f, dir, log)
	defer watchSecrets(ctx, cfg.Secrets)()
	cfg.LinesLost = lines.Lost
	if cfg.Supervision, err = supervision(log); err != nil {
		return err
	}
	limitMemory(log)
	go manageMemory(ctx) // ends with the process
	cfg.Cluster.Disk, cfg.Machine = seams.Disk, seams.Machine
	cfg.ControlRoutes = seams.ControlRoutes
	if f.shared() {
		entry := instance.EnterWhenFree
		if f.candidate {
			entry = instance.EnterAsCandidate
		}
		return app.RunShared(ctx, cfg, entry)
	}
	a, err := app.New(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return a.Run(ctx)
}

// supervision is about the service manager that has started this process, if one has.
func supervision(log *slog.Logger) (s app.Supervision, err error) {
	s.Manager, err = servicemanager.FromEnvironment(os.Getenv, log)
	if s.Manager != nil {
		reloads := make(chan os.Signal, 1)
		signal.Notify(reloads, syscall.SIGHUP)
		s.Reloads = reloads
	}
	return s, err
}

func version() string { return "storage_controller " + buildinfo.Of().String() }

// strict refuses what is only fit for development.
func (f *flags) strict() error {
	for _, s := range f.secrets {
		if s != f.peer() && !s.isGiven() {
			return fmt.Errorf("--%s (env %s), or --%s-file, is needed unless --dev is given", s.name,
				s.env, s.name)
		}
	}
	if f.controlPlaneURL == "" {
		return errors.New("--control-plane-url is needed unless --dev is given")
	}
	if f.localNotifications {
		return errors.New("--use-local-compute-notifications is only for --dev")
	}
	if f.safekeepersPerTimeline < 3 {
		return errors.New("--timeline-safekeeper-count below 3 is only for --dev")
	}
	return nil
}

func (f *flags) config(log *slog.Logger) (cfg app.Config, err error) {
	if err := f.check(); err != nil {
		return cfg, err
	}
	cfg = app.Config{
		Certificates: serve.NewCertificates(f.certReload.std(), log),
		Labels:       f.labels, CheckEvery: f.checkEvery.std(),
		CAFile:          f.caFile,
		LeaderTimeout:   f.raft.leaderTimeout.std(),
		ControlPlaneURL: f.controlPlaneURL,
		LocalComputes:   f.localNotifications,
		RepoDir:         f.repoDir,
		Reconciler:      f.reconciler(),
		TenantRateLimit: int(f.tenantRateLimit),
		DiskLoss:        f.diskLoss,
		Splits:          f.splits,
		Logger:          log,
		Saves: app.Saves{
			Dir: f.snapshotDir, Every: f.snapshotEvery.std(), Keep: f.snapshotKeep,
		},
	}
	cfg.HTTP.Config = f.serving(cfg.Certificates)
	cfg.Safekeepers = app.Safekeepers{
		Timelines: f.ontoSafekeepers, PerTimeline: f.safekeepersPerTimeline,
	}
	cfg.Safekeepers.Options.PerSafekeeper = f.safekeeperConcurrency
	if text := os.Getenv("POSTHOG_CONFIG"); text != "" {
		if cfg.FeatureFlags, err = featureflags.Parse(text); err != nil {
			log.Warn("Invalid POSTHOG_CONFIG, feature flags are not given to pageservers",
				"err", err)
		}
	}
	if f.httpsSafekeeper {
		cfg.Safekeepers.Scheme = "https"
	}
	cfg.Splits.RequestTimeout = f.splitTimeout.std()
	if f.httpsPageserver {
		cfg.PageserverScheme = "https"
	}
	if f.addressForPeers != "" {
		if u, err := url.Parse(f.addressForPeers); err != nil || u.Host == "" {
			return cfg, fmt.Errorf("%w: --address-for-peers %q is no URL", errUsage,
				f.addressForPeers)
		}
		// Clients append paths to it.
		cfg.HTTP.Address = strings.TrimSuffix(f.addressForPeers, "/") + "/"
	}
	if err = f.loadSecrets(&cfg, log); err != nil {
		return cfg, err
	}
	if cfg.Cluster, err = f.raft.config(); err != nil {
		return cfg, err
	}
	cfg.Cluster.TLS, err = f.raft.tls(cfg.Certificates, f.certReload.std(), log)
	if cfg.Cluster.DataDir == "" {
		cfg.Cluster.DataDir = f.dataDir()
	}
	if err == nil {
		err = checkCandidate(f, cfg.Cluster.DataDir)
	}
	return cfg, err
}

// serving says where the HTTP API is.
func (f *flags) serving(certificates *serve.Certificates) serve.Config {
	return serve.Config{
		Listen: f.listen, ListenTLS: f.listenHTTPS,
		CertFile: f.certFile, KeyFile: f.keyFile, CertReload: f.certReload.std(),
		Certificates: certificates,
	}
}

// reconciler are the settings of the leader's work.
func (f *flags) reconciler() reconciler.Options {
	o := reconciler.Options{
		HeartbeatInterval: f.heartbeat.std(), MaxOffline: f.maxOffline.std(),
		MaxWarmingUp:  f.maxWarmingUp.std(),
		NormalWorkers: f.concurrency, HighWorkers: f.priorityConcurrency,
		MaxSecondaryLag: f.maxSecondaryLag, Chaos: f.chaos(),
		LongReconcile: f.longReconcile.std(), OptimiseMoves: f.balanceMoves,
		OptimisePerNode: f.perNode(), Disks: f.disks,
	}
	if f.repoDir != "" {
		o.BesideNeonLocal()
	}
	return o
}

// perNode is how many moves at a time make the load of one node even: less than none
// for 0.
func (f *flags) perNode() int {
	if f.balancePerNode == 0 {
		return -1
	}
	return f.balancePerNode
}

// many tells whether there are other replicas.
func (f *flags) many() bool {
	return f.raft.members != "" || f.raft.expect > 1 || len(f.raft.join) > 0
}

// everywhere tells whether an address to listen on is that of all interfaces.
func everywhere(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// dataDir is the directory when none is given.
func (f *flags) dataDir() string {
	if f.repoDir == "" {
		return defaultDataDir
	}
	dir := filepath.Join(f.repoDir, "storage_controller_raft")
	if f.shared() {
		return dir
	}
	name := f.raft.serverID
	if name == "" {
		name = f.listen + f.listenHTTPS
	}
	return dir + "_" + strings.NewReplacer(":", "_", "/", "_", "[", "", "]", "").Replace(name)
}

// shared tells whether the data directory is that of a neon_local environment,
// whose instances take turns at it. A replica that was told its peers has a
// directory of its own.
func (f *flags) shared() bool {
	r := &f.raft
	return f.repoDir != "" && r.dataDir == "" && r.members == "" && r.expect == 0 &&
		len(r.join) == 0
}

// check refuses flags that make no sense together.
func (f *flags) check() error {
	if f.listen == "" && f.listenHTTPS == "" {
		return fmt.Errorf("%w: --listen or --listen-https is needed", errUsage)
	}
	if f.tenantRateLimit == 0 || f.safekeepersPerTimeline < 1 {
		return fmt.Errorf(
			"%w: --tenant-rate-limit and --timeline-safekeeper-count must be at least 1", errUsage)
	}
	if err := cmp.Or(checkDisks(f.disks), f.checkSecrets()); err != nil {
		return err
	}
	if every := f.checkEvery.std(); every > 0 && every < time.Second {
		return fmt.Errorf("%w: --consistency-check-interval must be at least 1s, or 0s", errUsage)
	}
	for _, number := range []struct {
		name  string
		value int
	}{
		{"--reconciler-concurrency", f.concurrency},
		{"--priority-reconciler-concurrency", f.priorityConcurrency},
		{"--safekeeper-reconciler-concurrency", f.safekeeperConcurrency},
		{"--bootstrap-expect", f.raft.expect},
	} {
		if number.value < 0 {
			return fmt.Errorf("%w: %s must not be negative", errUsage, number.name)
		}
	}
	if f.snapshotDir != "" && (f.snapshotEvery.std() < time.Second || f.snapshotKeep < 1) {
		return fmt.Errorf("%w: --snapshot-every must be at least 1s and --snapshot-keep at least 1",
			errUsage)
	}
	if listen := cmp.Or(f.listen, f.listenHTTPS); f.addressForPeers == "" && f.many() &&
		everywhere(listen) {
		return fmt.Errorf(
			"%w: --address-for-peers is needed with several replicas, since others cannot use %s",
			errUsage, listen)
	}
	return nil
}

func (r *raftFlags) config() (cfg cluster.Config, err error) {
	cfg = cluster.Config{
		ID: r.serverID, ClusterID: r.clusterID, DataDir: r.dataDir, RaftListen: r.listen,
		Advertise: r.advertise, Version: buildinfo.Of().Short(),
		Expect: r.expect, Join: r.join, GossipListen: r.gossipListen,
		Timeouts: cluster.Timeouts{
			Heartbeat: r.heartbeat.std(), Election: r.election.std(), Store: r.storeLimit.std(),
			Recovery: r.recovery.std(),
		},
		SnapshotThreshold: r.snapshotThreshold, TrailingLogs: r.trailingLogs,
		RemoveAfter: r.removeAfter.std(),
	}
	if cfg.Members, err = parseMembers(r.members); err != nil {
		return cfg, err
	}
	if err := r.checkJoin(); err != nil {
		return cfg, err
	}
	if len(cfg.Members) > 0 {
		own := ""
		for _, m := range cfg.Members {
			if m.ID == r.serverID {
				own = m.RaftAddr
			}
		}
		if own == "" {
			return cfg, fmt.Errorf("%w: --server-id %q is not one of --members", errUsage,
				r.serverID)
		}
		if cfg.RaftListen == "" {
			cfg.RaftListen = own
		}
		if cfg.Advertise == "" {
			cfg.Advertise = own
		}
	}
	if cfg.RaftListen == "" {
		cfg.RaftListen = "127.0.0.1:0"
	}
	if r.gossipKey != "" {
		if cfg.GossipKey, err = base64.StdEncoding.DecodeString(r.gossipKey); err != nil {
			return cfg, fmt.Errorf("%w: --gossip-key is not base64: %w", errUsage, err)
		}
	}
	return cfg, nil
}

// checkJoin refuses a --join that cannot work.
func (r *raftFlags) checkJoin() error {
	if r.gossipListen != "" {
		return nil
	}
	for _, addr := range r.join {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%w: --join: %q is not host:port", errUsage, addr)
		}
	}
	if len(r.join) > 0 && r.members != "" {
		return fmt.Errorf("%w: --members founds a cluster, --join waits to be added to one; "+
			"give one of them", errUsage)
	}
	return nil
}

// parseMembers reads `id=host:port,…`.
func parseMembers(text string) ([]cluster.Member, error) {
	var members []cluster.Member
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		id, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || id == "" || !strings.Contains(addr, ":") {
			return nil, fmt.Errorf("%w: --members: %q is not id=host:port", errUsage, part)
		}
		for _, m := range members {
			if m.ID == id || m.RaftAddr == addr {
				return nil, fmt.Errorf("%w: --members: %q repeats another", errUsage, part)
			}
		}
		members = append(members, cluster.Member{ID: id, RaftAddr: addr})
	}
	return members, nil
}
