package app

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"quorate/api/auth"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/controlsocket"
	"quorate/internal/failpoint"
	"quorate/internal/featureflags"
	"quorate/internal/secretfiles"
	"quorate/internal/serve"
	"quorate/internal/split"
	"quorate/reconciler"
)

// Config describes one replica.
type Config struct {
	// Cluster is this replica's part in the Raft cluster. HTTPAddr, Network and
	// Logger are filled in from the fields below.
	Cluster cluster.Config

	HTTP   HTTP
	Tokens Tokens

	// Keys verify the tokens of callers; nil means that no token is needed.
	Keys *auth.Keys

	// Certificates are those that this process shows; nil: none.
	Certificates *serve.Certificates

	// Secrets are the files that hold Keys and Tokens; nil: none does. They are looked at
	// by whoever made them.
	Secrets *secretfiles.Watcher

	Labels Labels

	// CheckEvery is how often a leader checks that its state has no contradiction; 0: never.
	CheckEvery time.Duration

	// CAFile holds roots trusted besides the system's by all outgoing calls.
	CAFile string

	// ControlPlaneURL is the prefix of the compute hook; empty means no hook.
	ControlPlaneURL string

	// LocalComputes makes the computes of the neon_local environment in RepoDir be
	// told instead of a control plane.
	LocalComputes bool
	RepoDir       string

	// PageserverScheme is http (the default) or https.
	PageserverScheme string

	// Safekeepers says how safekeepers are called and used.
	Safekeepers Safekeepers

	// Reconciler are the settings of the leader's work.
	Reconciler reconciler.Options

	// Splits are the settings of shard splits.
	Splits SplitOptions

	// TenantRateLimit is how many rate-limited requests a second a tenant may
	// make; 0 means the default of 10.
	TenantRateLimit int

	// LeaderTimeout bounds how long a request waits while no leader is known; 0: 5 s.
	LeaderTimeout time.Duration

	// DiskLoss tells whether a pageserver that reports an empty disk is believed.
	DiskLoss bool

	// FeatureFlags are given to all pageservers.
	FeatureFlags featureflags.Project

	// Saves says whether and where the state is saved again and again.
	Saves Saves

	// Network opens all sockets; nil means TCP.
	Network cluster.Network

	// Failpoints lets tests hold this replica; nil: it cannot be held.
	Failpoints *failpoint.Registry

	// Resolve tells whether a pageserver's host name has an address; nil asks the
	// system.
	Resolve func(ctx context.Context, host string) error

	// Control says whether a control socket is opened in the data directory.
	Control ControlMode

	// ControlRoutes, when set, adds routes to the control socket, for tests.
	ControlRoutes func(*Replica) []controlsocket.Route

	// Granted, when set, is called with every generation that was committed, on
	// the applying goroutine and before any other goroutine can act on it.
	// It costs applying everything twice and is for tests.
	Granted func(fsm.Grant)

	// Foreseen, when set, is called with every state that an entry leads to, before
	// any other goroutine can act on it. It is as expensive as Granted.
	Foreseen func(*fsm.State)

	// Proposing, when set, is called with every command before it is proposed, and may
	// hold it up. It is for tests.
	Proposing func(context.Context, fsm.Command)

	// Machine, when set, is given the state machine and returns what the log drives in its
	// place, for tests. The result should be a cluster.Digester as well.
	Machine func(cluster.Machine) cluster.Machine

	// Supervision is about the service manager of this process; zero: there is none.
	Supervision Supervision

	// Logger; nil discards.
	Logger *slog.Logger

	// LinesLost, when set, tells how many lines of the log were lost.
	LinesLost func() uint64
}

// Saves are snapshots in a directory: one each Every, of which the newest Keep stay. The
// zero value saves none.
type Saves struct {
	Dir   string
	Every time.Duration
	Keep  int
}

// SplitOptions are the settings of shard splits, automatic ones included.
type SplitOptions = split.Options

// HTTP is where the API is served.
type HTTP struct {
	serve.Config

	// Address is the base URL that other replicas and clients are told, with a
	// trailing slash. Empty means the first listener's.
	Address string
}

// Tokens return what this replica presents to others, which may change. An empty one is
// not sent, and nil is always empty.
type Tokens struct {
	Pageserver, Safekeeper, ControlPlane func() string
}

// Labels say where a replica runs, for its metrics.
type Labels struct{ Region, Cloud string }

// ControlMode says how commands on the same machine reach the replica.
type ControlMode uint8

// The modes.
const (
	ControlSocket ControlMode = iota // a socket in the data directory
	ControlNone
)

func (cfg *Config) fill() {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Network == nil {
		cfg.Network = serve.TCP{}
	}
	if cfg.Resolve == nil {
		cfg.Resolve = resolve
	}
	if cfg.PageserverScheme == "" {
		cfg.PageserverScheme = "http"
	}
	if cfg.Safekeepers.PerTimeline == 0 {
		cfg.Safekeepers.PerTimeline = 3
	}
	if cfg.LeaderTimeout == 0 {
		cfg.LeaderTimeout = 5 * time.Second
	}
	if cfg.TenantRateLimit == 0 {
		cfg.TenantRateLimit = 10
	}
	cfg.Cluster.Network, cfg.Cluster.Logger = cfg.Network, cfg.Logger
}

// roots are the system's roots and those of CAFile.
func (cfg *Config) roots() (*x509.CertPool, error) {
	if cfg.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("CA file %s: no certificate in it", cfg.CAFile)
	}
	return pool, nil
}
