package cluster

import (
	"crypto/tls"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// maxServers is the largest membership this package handles.
const maxServers = 16

// Member is one server of the cluster.
type Member struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
}

// Timeouts are the durations of the protocol; zero means the default.
type Timeouts struct {
	// Heartbeat is how long a follower waits for its leader before it asks for
	// votes, Election how long a candidate waits for them. Default 400 ms each:
	// frozen and lost hosts cost twice to three times that, while the death of a
	// process is noticed at once. At 150 ms three of five runs on a busy machine
	// elected needlessly, at 250 ms none; at 500 ms one of 22 frozen leaders cost
	// more than 1.5 s.
	Heartbeat, Election time.Duration
	// Lease is how long a leader goes on without a majority. Default Heartbeat, the
	// most that raft allows: nothing is safe because of the lease (reads ask the
	// voters), and 250 ms of it were once exceeded by a saturated processor alone.
	Lease time.Duration
	// Commit is the pause after which an idle leader repeats the commit index.
	// Default 250 ms: reads on followers do not wait for it, and each round is
	// paid for by a leader with nothing to do.
	Commit time.Duration
	// Store is how long a leader waits for one write of its log before it looks for
	// somebody to give way to. Default 700 ms: far beyond the slowest write of a
	// healthy disk under load (100 ms), and with the hand-over still within a second.
	Store time.Duration
	// Patience is how much longer it waits while no majority without it can write
	// either. Default two fifths of Store, 280 ms: a leader that cannot write
	// gives way within a second, whatever the others can do.
	Patience time.Duration
	// Canary is the pause between two test writes to the disk. Default 200 ms:
	// with Store and the hand-over still within a second, and half of what a
	// follower does when nobody asks for anything at 100 ms.
	Canary time.Duration
	// Recovery is how long the disk must be healthy again before this server
	// may lead. Default 2 s: until then the healthy servers have elected.
	Recovery time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&t.Heartbeat, 400*time.Millisecond)
	set(&t.Election, t.Heartbeat)
	set(&t.Lease, t.Heartbeat)
	set(&t.Commit, 250*time.Millisecond)
	set(&t.Store, 700*time.Millisecond)
	set(&t.Patience, t.Store*2/5)
	set(&t.Canary, 200*time.Millisecond)
	set(&t.Recovery, 2*time.Second)
	return t
}

// OpenStores opens the log, the vote and the snapshots of a server. dir is Config.DataDir.
type OpenStores func(dir string) (
	raft.LogStore, raft.StableStore, raft.SnapshotStore, io.Closer, error,
)

// Config describes one server.
type Config struct {
	// ID is the server id. Empty: read from the data directory, which gets a
	// new one when it is empty, so a server whose disk was wiped does not vote
	// as its former self.
	ID string
	// ClusterID refuses a data directory and peers of any other cluster. Empty:
	// learnt from the data directory or through SetClusterID.
	ClusterID string
	// DataDir holds everything durable. Empty: everything lives in memory.
	DataDir string
	// RaftListen is the host:port for the other servers; Advertise is what they
	// are told, by default the address listened on.
	RaftListen, Advertise string
	// HTTPAddr is told to the other servers. Opaque to this package.
	HTTPAddr string
	// Level is told to the other servers: what this version of the Machine knows.
	// Opaque to this package.
	Level uint64
	// Members is the initial membership, identical on every server. With
	// Members, Expect and Join all empty this server bootstraps alone.
	Members []Member
	// Expect bootstraps as soon as exactly so many servers without any state,
	// and with the same Expect, see each other through gossip.
	Expect int
	// Join lists gossip addresses of other servers. A server without state that
	// finds a cluster is added to it by its leader, as a voter once it caught up.
	Join []string
	// GossipListen is the host:port for gossip; required by Expect and Join.
	// GossipKey (16, 24 or 32 bytes) encrypts it.
	GossipListen string
	GossipKey    []byte
	// TLS secures the connections between servers; nil leaves them plain.
	TLS *tls.Config
	// Timeouts of the protocol.
	Timeouts Timeouts
	// DisableCrashDetector leaves the death of the leader to the timeouts.
	DisableCrashDetector bool
	// Network opens connections; nil means TCP.
	Network Network
	// Stores opens the stores; nil means bolt in DataDir, or memory without one.
	Stores OpenStores
	// Logger; nil discards.
	Logger *slog.Logger
	// SnapshotThreshold is how many log entries are written between two
	// snapshots (default 16384), TrailingLogs how many are kept behind a
	// snapshot for followers that lag (default 32768).
	SnapshotThreshold, TrailingLogs uint64
}

func (cfg Config) raftConfig(id string, t Timeouts) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(id)
	rc.HeartbeatTimeout = t.Heartbeat
	rc.ElectionTimeout = t.Election
	rc.LeaderLeaseTimeout = t.Lease
	rc.CommitTimeout = t.Commit
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = true
	rc.ShutdownOnRemove = false
	rc.NoLegacyTelemetry = true
	rc.SnapshotInterval = 30 * time.Second
	rc.SnapshotThreshold = cfg.SnapshotThreshold
	if rc.SnapshotThreshold == 0 {
		rc.SnapshotThreshold = 16384
	}
	rc.TrailingLogs = cfg.TrailingLogs
	if rc.TrailingLogs == 0 {
		rc.TrailingLogs = 32768
	}
	rc.Logger = raftLogger(cfg.Logger)
	return rc
}
