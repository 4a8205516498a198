package testcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"quorate/cluster"
	"quorate/fsm"
	"quorate/reconciler"
	"quorate/testcluster/simpageserver"
)

// Mode says how the controllers run.
type Mode uint8

// The modes.
const (
	InProcess Mode = iota // in this process, real sockets and files
	Virtual               // in this testing/synctest bubble, everything in memory
	Processes             // as processes of their own
)

func (m Mode) String() string {
	switch m {
	case InProcess:
		return "in process"
	case Virtual:
		return "virtual"
	case Processes:
		return "processes"
	}
	return "unknown mode"
}

// Builder describes a cluster. The zero value is one controller and one
// pageserver in this process.
type Builder struct {
	Mode        Mode
	Controllers int // 0 means 1

	// Joiners are further Processes, numbered after Controllers. They are started by
	// Restart, with --join and the addresses of all before them, and wait to be added.
	Joiners     int
	Pageservers int // 0 means 1, negative none
	Zones       int // availability zones the pageservers are dealt into; 0 means 1

	// Safekeepers, each in a zone of its own, make controllers put timelines onto
	// up to three of them; 0 means none.
	Safekeepers int

	// Seed of all random choices of the simulated pageservers.
	Seed uint64

	// Auth makes all clients need tokens; the cluster's own clients have them.
	Auth bool

	// Hook makes controllers notify a simulated control plane.
	Hook bool

	// HeartbeatInterval and MaxOffline are about pageservers; 0 means 100 ms and
	// 1 s, short enough for tests and long enough for a busy machine.
	HeartbeatInterval, MaxOffline time.Duration

	// Raft are the timeouts of the consensus; zero values are the defaults.
	Raft cluster.Timeouts

	// Snapshots are when logs are cut. It has no effect on Processes.
	Snapshots Snapshots

	// Behaviour is how the pageservers work.
	Behaviour simpageserver.Behaviour

	// Store is what shards hold; the zero value has empty ones.
	Store simpageserver.StoreOptions

	// Maintenance is how often pageservers upload, compact and validate; 0 is never.
	Maintenance time.Duration

	// Tune, when set, changes the settings of the leader's work further. It has
	// no effect on Processes.
	Tune func(*reconciler.Options)

	// Proposing, when set, is called with every command before a controller proposes it,
	// and may hold it up. It has no effect on Processes.
	Proposing func(context.Context, fsm.Command)

	// Calling, when set, is called with what a controller is about to connect to, and with
	// each change of a location that reaches a pageserver, and may hold it up. It has no
	// effect on Processes.
	Calling func(what string)

	// Foreseen, when set, is called with every state that an entry of the log leads to, on
	// each controller, before the controller acts on it. It has no effect on Processes.
	Foreseen func(*fsm.State)

	// Failpoints lets tests hold the controllers and make them fail. Processes have
	// that by --dev.
	Failpoints bool

	// DiskLoss makes controllers clear what they observed on a pageserver that re-attaches
	// with an empty disk.
	DiskLoss bool

	// Splits are the settings of shard splits. They have no effect on Processes.
	Splits Splits

	// Binary is the storage_controller of Processes. If it is empty, Start uses the
	// one that the environment variable QUORATE_STORAGE_CONTROLLER names. If that is
	// empty too, it builds the one of the module in use, or looks in PATH.
	Binary string

	// DiskFaults says that Binary is testcluster/testcontroller, so that HangDisk and
	// FillDisk reach the disks of Processes, and SpoilState their memory.
	DiskFaults bool

	// UnreadLogs makes the output of Processes pipes that are not read. What such a pipe
	// holds is in the log once the process has ended.
	UnreadLogs bool

	// Args are further arguments of Processes.
	Args []string

	// Wires puts something between Processes that lets Partition cut them off from
	// each other.
	Wires bool

	// Dir is where data and logs are kept; empty means a temporary directory that
	// Stop removes. Virtual keeps nothing.
	Dir string

	// Logger is told what happens to the cluster; nil discards.
	Logger *slog.Logger
}

// Snapshots says after how many log entries a snapshot is taken, and how many are
// kept behind it for followers that lag; zero values are the defaults.
type Snapshots struct{ Every, Trailing uint64 }

// Splits are the settings of shard splits, automatic ones included. The zero value
// is no automatic split.
type Splits struct {
	RequestTimeout   time.Duration // of the split of one pageserver; 0: none
	Threshold        uint64        // bytes per shard above which a tenant is split
	MaxShards        uint8         // most shards by automatic splits
	InitialThreshold uint64        // bytes above which an unsharded tenant is split
	InitialShards    uint8         // and into how many shards
	Interval         time.Duration // between two looks for large tenants; 0: 20 s
}

// ErrMode is met by faults that a mode cannot inject.
var ErrMode = errors.New("not possible in this mode")

// startTimeout bounds the start of a cluster.
const startTimeout = 30 * time.Second

func (b *Builder) fill() {
	if b.Controllers == 0 {
		b.Controllers = 1
	}
	if b.Pageservers == 0 {
		b.Pageservers = 1
	}
	b.Zones = max(1, b.Zones)
	if b.HeartbeatInterval == 0 {
		b.HeartbeatInterval = 100 * time.Millisecond
	}
	if b.MaxOffline == 0 {
		b.MaxOffline = time.Second
	}
	if b.Logger == nil {
		b.Logger = slog.New(slog.DiscardHandler)
	}
}

// Start starts everything. It waits until there is a leader that has finished starting
// and sees every pageserver active.
func (b Builder) Start(ctx context.Context) (_ *Cluster, err error) {
	b.fill()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := newCluster(b)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if err := c.controllers.start(ctx); err != nil {
		return nil, err
	}
	if err := c.pageservers.start(ctx); err != nil {
		return nil, err
	}
	if err := c.WaitNodes(ctx); err != nil {
		return nil, fmt.Errorf("wait for the pageservers: %w", err)
	}
	if err := c.safekeepers.start(ctx, c.Client()); err != nil {
		return nil, err
	}
	return c, nil
}
