package storagecontroller

import (
	"os"
	"time"

	"github.com/spf13/pflag"

	"quorate/api/neon"
	"quorate/internal/app"
	"quorate/reconciler"
)

// flags are the command line. The names and defaults of the first groups are
// those that neon_local and existing deployments pass.
type flags struct {
	listen, listenHTTPS string
	addressForPeers     string
	repoDir             string
	candidate           bool
	dev, version        bool
	labels              app.Labels
	checkEvery          duration

	databaseURL string // and what follows: accepted, not used
	dbTimeout   duration
	kick, lazy  boolValue

	set     *pflag.FlagSet
	secrets []*secretFlag

	publicKey                                       string
	jwtToken, safekeeperToken, hookToken, peerToken string
	controlPlaneURL                                 string

	maxOffline, maxWarmingUp, heartbeat, longReconcile duration

	concurrency, priorityConcurrency int
	tenantRateLimit                  uint32
	httpsPageserver                  bool
	keyFile, certFile, caFile        string
	certReload                       duration
	localNotifications               bool
	safekeepersPerTimeline           int
	safekeeperConcurrency            int
	ontoSafekeepers, httpsSafekeeper bool
	diskLoss                         bool
	maxSecondaryLag                  uint64
	balanceMoves, balancePerNode     int
	disks                            reconciler.Disks
	chaosInterval                    duration
	chaosExit                        schedule

	splits       app.SplitOptions
	splitTimeout duration

	raft raftFlags

	snapshotDir   string
	snapshotEvery duration
	snapshotKeep  int
}

// raftFlags say who this replica's peers are and where its log is.
type raftFlags struct {
	dataDir              string
	listen, advertise    string
	members, serverID    string
	expect               int
	join                 []string
	gossipListen         string
	gossipKey            string
	heartbeat, election  duration
	certFile, keyFile    string
	caFile               string
	insecure             bool
	snapshotThreshold    uint64
	trailingLogs         uint64
	clusterID            string
	storeLimit, recovery duration
	removeAfter          duration
	leaderTimeout        duration
}

// duration is a flag in the notation of pageserver configuration, such as `1m 30s`.
type duration struct{ neon.Duration }

func (d *duration) Set(s string) (err error) {
	d.Duration, err = neon.ParseDuration(s)
	return err
}

func (d *duration) Type() string { return "duration" }

func (d *duration) std() time.Duration { return time.Duration(d.Duration) }

// defaultDBTimeout is that of the existing controller.
const defaultDBTimeout = 5 * time.Second

func durationVar(fs *pflag.FlagSet, d *duration, name string, def time.Duration, usage string) {
	d.Duration = neon.Duration(def)
	fs.Var(d, name, usage)
}

// boolValue is a flag that takes its value as `--flag true` or `--flag=true`.
type boolValue struct{ value bool }

func (b *boolValue) String() string {
	if b.value {
		return "true"
	}
	return "false"
}

func (b *boolValue) Set(s string) error {
	switch s {
	case "true":
		b.value = true
	case "false":
		b.value = false
	default:
		return errNotBool
	}
	return nil
}

func (b *boolValue) Type() string { return "true|false" }

func (f *flags) register(fs *pflag.FlagSet) {
	f.set = fs
	f.registerServing(fs)
	f.registerWork(fs)
	f.registerSplits(fs)
	registerDisks(fs, &f.disks)
	f.raft.register(fs)
	f.registerSnapshots(fs)
	registerIgnored(f, fs)
	fs.BoolVarP(&f.version, "version", "V", false, "print the version")
}

func (f *flags) registerServing(fs *pflag.FlagSet) {
	fs.StringVarP(&f.listen, "listen", "l", "",
		"`host:port` of the HTTP API; this or --listen-https is needed")
	fs.StringVar(&f.listenHTTPS, "listen-https", "", "`host:port` of the HTTP API over TLS")
	fs.StringVar(&f.addressForPeers, "address-for-peers", "",
		"base `URL` at which other replicas and clients reach this one")
	fs.StringVar(&f.repoDir, "neon-local-repo-dir", "", "`directory` of the neon_local environment")
	fs.BoolVar(&f.candidate, "start-as-candidate", false,
		"ask the instance that uses the data directory of --neon-local-repo-dir to step down (members of a cluster elect their leader)")
	fs.BoolVar(&f.dev, "dev", false, "development mode: run without tokens and hooks")
	f.secretVar(fs, &f.publicKey, "public-key", "PUBLIC_KEY",
		"Ed25519 public `key`s that sign callers' tokens: PEM, base64, JSON web keys, or the name of a file or a directory with them")
	f.secretVar(fs, &f.jwtToken, "jwt-token", "PAGESERVER_JWT_TOKEN", "`token` for pageservers")
	f.secretVar(fs, &f.safekeeperToken, "safekeeper-jwt-token", "SAFEKEEPER_JWT_TOKEN",
		"`token` for safekeepers")
	f.secretVar(fs, &f.hookToken, "control-plane-jwt-token", "CONTROL_PLANE_JWT_TOKEN",
		"`token` for the compute hook")
	f.secretVar(fs, &f.peerToken, "peer-jwt-token", "PEER_JWT_TOKEN",
		"`token` for other controllers; accepted, not used: requests are forwarded with the client's own")
	fs.StringVar(&f.controlPlaneURL, "control-plane-url", "", "`URL` prefix of the compute hook")
	fs.StringVar(&f.keyFile, "ssl-key-file", "server.key", "key `file` for --listen-https")
	fs.StringVar(&f.certFile, "ssl-cert-file", "server.crt",
		"certificate `file` for --listen-https")
	durationVar(fs, &f.certReload, "ssl-cert-reload-period", time.Minute,
		"how often the files of certificates, keys and tokens are looked at")
	fs.StringVar(&f.caFile, "ssl-ca-file", "",
		"`file` with root certificates trusted besides the system's")
}

func (f *flags) registerWork(fs *pflag.FlagSet) {
	durationVar(fs, &f.chaosInterval, "chaos-interval", 0,
		"pause between random migrations by which the leader tests its own cluster; 0 is never")
	fs.Var(&f.chaosExit, "chaos-exit-crontab",
		"`schedule` (sec min hour day month weekday) of exits of the leader; with --chaos-interval")
	fs.Uint64Var(&f.maxSecondaryLag, "max-secondary-lag-bytes", 0,
		"largest lag of a secondary that a drain moves to; 0 is 256 MiB")
	fs.IntVar(&f.balanceMoves, "optimise-moves", 16,
		"shards moved at once to better places and to make the loads of pageservers even")
	fs.IntVar(&f.balancePerNode, "optimise-moves-per-node", 8,
		"how many of them may leave or come to one pageserver to make loads even (0: loads are not made even)")
	durationVar(fs, &f.maxOffline, "max-offline-interval", 30*time.Second,
		"silence after which a pageserver is offline")
	durationVar(fs, &f.maxWarmingUp, "max-warming-up-interval", 300*time.Second,
		"silence after a re-attach after which a pageserver is offline")
	durationVar(fs, &f.heartbeat, "heartbeat-interval", 5*time.Second,
		"pause between heartbeats to pageservers")
	durationVar(fs, &f.longReconcile, "long-reconcile-threshold", 120*time.Second,
		"when the reconciliation of a shard counts as long")
	fs.IntVar(&f.concurrency, "reconciler-concurrency", 128,
		"shards reconciled at once in the background")
	fs.IntVar(&f.priorityConcurrency, "priority-reconciler-concurrency", 256,
		"shards reconciled at once for waiting requests")
	fs.Uint32Var(&f.tenantRateLimit, "tenant-rate-limit", 10, "requests a second for one tenant")
	fs.BoolVar(&f.httpsPageserver, "use-https-pageserver-api", false, "call pageservers over TLS")
	fs.BoolVar(&f.localNotifications, "use-local-compute-notifications", false,
		"tell the computes of neon_local instead of a control plane")
	fs.BoolVar(&f.httpsSafekeeper, "use-https-safekeeper-api", false, "call safekeepers over TLS")
	fs.BoolVar(&f.ontoSafekeepers, "timelines-onto-safekeepers", false,
		"choose the safekeepers of new timelines")
	fs.IntVar(&f.safekeeperConcurrency, "safekeeper-reconciler-concurrency", 32,
		"operations at once on one safekeeper")
	fs.IntVar(&f.safekeepersPerTimeline, "timeline-safekeeper-count", 3,
		"safekeepers of a timeline")
	durationVar(fs, &f.checkEvery, "consistency-check-interval", 0,
		"pause between checks of the leader that its state has no contradiction (0s: none)")
	fs.StringVar(&f.labels.Region, "neon-region", "",
		"`name` that is the label neon_region of storage_controller_info")
	fs.StringVar(&f.labels.Cloud, "neon-cloud", "",
		"`name` that is the label neon_cloud of storage_controller_info")
	fs.BoolVar(&f.diskLoss, "handle-ps-local-disk-loss", false,
		"clear what was observed on a pageserver that re-attaches with an empty disk; "+
			"otherwise its listing alone tells what is missing")
}

func (f *flags) registerSplits(fs *pflag.FlagSet) {
	fs.Uint64Var(&f.splits.Threshold, "split-threshold", 0,
		"size in `bytes` above which a shard is split (0: never)")
	fs.Uint8Var(&f.splits.MaxShards, "max-split-shards", 16,
		"most shards by automatic splits (0 and 1: none)")
	fs.Uint64Var(&f.splits.InitialThreshold, "initial-split-threshold", 0,
		"size in `bytes` above which an unsharded tenant is split (0: never)")
	fs.Uint8Var(&f.splits.InitialShards, "initial-split-shards", 2, "shards after that")
	durationVar(fs, &f.splitTimeout, "shard-split-request-timeout", 0,
		"longest split request to a pageserver (0s: no limit)")
}

func (r *raftFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&r.dataDir, "data-dir", "",
		"`directory` of the log and the snapshots (default: storage_controller_raft in --neon-local-repo-dir, whose instances take turns at it, else ./storage_controller_data)")
	fs.StringVar(&r.serverID, "server-id", "",
		"id of this replica in the cluster (default: made once and kept in the data directory)")
	fs.StringVar(&r.members, "members", "",
		"`id=host:port,…` of all first members, the same on each; needs --server-id")
	fs.StringVar(&r.listen, "raft-listen", "",
		"`host:port` for the other replicas (default: this replica's address in --members, else 127.0.0.1:0)")
	fs.StringVar(&r.advertise, "raft-advertise", "",
		"`host:port` the other replicas are told (default: the address listened on)")
	fs.IntVar(&r.expect, "bootstrap-expect", 0,
		"found a cluster once exactly this many new replicas have met by gossip")
	fs.StringSliceVar(&r.join, "join", nil,
		"raft `addresses` of members of the cluster that this replica, if its data directory is empty, waits to be added to (storcon_cli cluster add); with --gossip-listen the gossip addresses of replicas to meet")
	fs.StringVar(&r.gossipListen, "gossip-listen", "",
		"`host:port` for gossip (default: no gossip)")
	fs.StringVar(&r.gossipKey, "gossip-key", os.Getenv("QUORATE_GOSSIP_KEY"),
		"`key` that encrypts gossip, 16, 24 or 32 bytes in base64 (env QUORATE_GOSSIP_KEY)")
	fs.Lookup("gossip-key").DefValue = ""
	fs.StringVar(&r.clusterID, "cluster-id", "",
		"refuse peers and data of any other cluster (default: learnt)")
	durationVar(fs, &r.removeAfter, "autopilot-remove-after", 0,
		"how long a member must be gone until the leader removes it; it leaves three voters, of which a majority answers (0s: never)")
	durationVar(fs, &r.heartbeat, "raft-heartbeat", 0,
		"silence of the leader after which a follower asks for votes (0s: 400ms)")
	durationVar(fs, &r.election, "raft-election", 0,
		"how long a candidate waits for votes (0s: as --raft-heartbeat)")
	durationVar(fs, &r.storeLimit, "raft-store-deadline", 0,
		"longest write of the log before a leader gives way (0s: 700ms)")
	durationVar(fs, &r.recovery, "raft-disk-recovery", 0,
		"how long a disk must be healthy again before the replica may lead (0s: 2s)")
	durationVar(fs, &r.leaderTimeout, "leader-timeout", 0,
		"how long a request waits while no leader is known (0s: 5s; 40s beside neon_local)")
	fs.Uint64Var(&r.snapshotThreshold, "raft-snapshot-threshold", 0,
		"log entries between two snapshots (0: 16384)")
	fs.Uint64Var(&r.trailingLogs, "raft-trailing-logs", 0,
		"log entries kept behind a snapshot (0: 32768)")
	fs.StringVar(&r.certFile, "raft-tls-cert", "",
		"certificate `file` of this replica for its peers; with --raft-tls-key and --raft-tls-ca")
	fs.StringVar(&r.keyFile, "raft-tls-key", "", "key `file` of --raft-tls-cert")
	fs.StringVar(&r.caFile, "raft-tls-ca", "",
		"`file` with the roots that sign the peers' certificates, and no others; a certificate names the --server-id")
	fs.BoolVar(&r.insecure, "insecure-peers", false,
		"let whoever reaches the Raft and gossip addresses have the cluster: no certificates, no gossip key")
}

func (f *flags) registerSnapshots(fs *pflag.FlagSet) {
	fs.StringVar(&f.snapshotDir, "snapshot-dir", "",
		"`directory` into which this replica saves snapshots of the state (default: none are saved)")
	durationVar(fs, &f.snapshotEvery, "snapshot-every", time.Hour, "pause between two of them")
	fs.IntVar(&f.snapshotKeep, "snapshot-keep", 24, "how many of them are kept, the newest ones")
}
