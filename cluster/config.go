package cluster

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// maxServers is the largest membership that this package handles.
const maxServers = 16

// maxAppendEntries bounds the entries that raft reads for one append. An entry holds up
// to 1 MB, so raft's maximum of 1,024 could mean a gigabyte. The reason to raise it, a
// backlog of single-command entries, does not exist here: concurrent commands share
// entries.
const maxAppendEntries = 64

// Member is one server of the cluster.
type Member struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
}

// Timeouts are the durations of the protocol. Zero means the default.
type Timeouts struct {
	// Heartbeat is how long a follower waits for its leader before it asks for votes.
	// Election is how long a candidate waits for them. Default 400 ms each. The death of
	// a process is noticed at once, so these are for frozen and lost hosts, which cost
	// little more than once as much, and up to three times on a busy machine. At 150 ms
	// three of five runs on a busy machine elected needlessly, at 250 ms none. At 500 ms
	// one of 22 frozen leaders cost more than 1.5 s.
	Heartbeat, Election time.Duration
	// Lease is how long a leader goes on without a majority. Default Heartbeat, which is
	// the most that raft allows. No promise rests on the lease: reads ask the voters. A
	// saturated processor alone once exceeded 250 ms.
	Lease time.Duration
	// Commit is the pause after which an idle leader repeats the commit index. Default
	// 250 ms. Reads on followers do not wait for it, and an idle leader pays for each
	// round.
	Commit time.Duration
	// Store is how long a leader waits for one write of its log before it looks for a
	// server to give way to. Default 700 ms. That is far beyond the slowest write of a
	// healthy disk under load (100 ms), and with the hand-over still within a second.
	Store time.Duration
	// StoreGrace is how much longer it waits while no majority without it can write
	// either. Default two fifths of Store, 280 ms: a leader that cannot write gives way
	// within a second, whatever the others can do.
	StoreGrace time.Duration
	// TestWrite is the pause between two test writes to the disk. Default 200 ms: with
	// Store and the hand-over still within a second. At 100 ms the test writes were half
	// of what an idle follower does.
	TestWrite time.Duration
	// Recovery is how long the disk must be healthy again before this server may lead.
	// Default 2 s: until then the healthy servers have elected.
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
	set(&t.StoreGrace, t.Store*2/5)
	set(&t.TestWrite, 200*time.Millisecond)
	set(&t.Recovery, 2*time.Second)
	return t
}

// Disk opens what one server keeps: the log, the vote and the snapshots.
type Disk interface {
	// Open opens the stores. dir is Config.DataDir.
	Open(dir string) (Stores, error)
}

// Stores are what a Disk opens.
type Stores = store.Stores

// Config describes one server.
type Config struct {
	// ID is the server id. Empty: it is read from the data directory. An empty directory
	// gets a new id, so a server whose disk was wiped does not vote as its former self.
	ID string
	// ClusterID refuses a data directory and peers of any other cluster. Empty: it is
	// read from the data directory, or set by SetClusterID.
	ClusterID string
	// DataDir holds everything durable. It may be empty only if Disk needs none. Then
	// the server has no memory of its id, its cluster, or the disks of the others.
	DataDir string
	// RaftListen is the host:port for the other servers. Advertise is what they are told,
	// by default the address listened on.
	RaftListen, Advertise string
	// HTTPAddr is told to the other servers. Opaque to this package.
	HTTPAddr string
	// Level is told to the other servers: what this version of the Machine knows.
	// Opaque to this package.
	Level uint64
	// Version is told to the other servers, for people to read.
	Version string
	// Answer appends the answer to a question that AskLeader has brought here to b, and
	// nothing where it has none. It is called while this server leads, once the Machine has
	// what was acknowledged before the question, and must not block. Nil: there are none.
	Answer func(b, question []byte) []byte
	// Members is the initial membership, identical on every server. With
	// Members, Expect and Join all empty this server bootstraps alone.
	Members []Member
	// Expect bootstraps as soon as exactly so many servers without any state,
	// and with the same Expect, see each other through gossip.
	Expect int
	// Join lists addresses of members of a cluster that this server is to become a member
	// of. Without GossipListen they are raft addresses: the server waits until AddMember
	// is called for it. With GossipListen they are gossip addresses: the leader adds it
	// by itself, and gives it a vote when the number of voters is odd with it, or when
	// another one waits for its vote too. A server that has state ignores Join, and Open
	// fails if the members are of another cluster.
	Join []string
	// GossipListen is the host:port for gossip. Expect requires it.
	// GossipKey (16, 24 or 32 bytes) encrypts it.
	GossipListen string
	GossipKey    []byte
	// RemoveAfter is how long a member must have been missed by one leader until that
	// removes it. 0: never. It leaves at least three voters, of which a majority answers.
	RemoveAfter time.Duration
	// TLS secures the connections between servers. Nil leaves them plain.
	TLS *tls.Config
	// Timeouts of the protocol.
	Timeouts Timeouts
	// DisableCrashDetector leaves the death and the silence of the leader to the timeouts.
	DisableCrashDetector bool
	// Network opens connections. Nil means TCP.
	Network Network
	// Disk opens the stores. Nil means bolt in DataDir.
	Disk Disk
	// Logger: nil discards.
	Logger *slog.Logger
	// SnapshotThreshold is how many log entries are written between two
	// snapshots (default 16384), TrailingLogs how many are kept behind a
	// snapshot for followers that lag (default 32768).
	SnapshotThreshold, TrailingLogs uint64
	// LogBytes is the size of the log beyond which it is shortened, in bytes of entries
	// (default 256 MB).
	LogBytes int64
	// Observer is told how long things took.
	Observer Observer
}

func (cfg Config) raftConfig(id string) *raft.Config {
	t := cfg.Timeouts
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
	return rc
}
