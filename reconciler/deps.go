package reconciler

import (
	"context"
	"log/slog"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/reconciler/outbox"
)

// Locations are the calls about locations. One try each, bounded by ctx.
type Locations interface {
	PutLocation(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, conf *neon.LocationConfig,
		opts neon.LocationOptions,
	) error

	// Location looks at one location: found is false when there is none, and conf is
	// nil with found while the pageserver is changing it.
	Location(
		ctx context.Context, node *fsm.Node, shard neon.ShardID,
	) (conf *neon.LocationConfig, found bool, err error)

	// Locations lists the node; a nil configuration is one being changed.
	Locations(ctx context.Context, node *fsm.Node) ([]neon.ListedLocation, error)
}

// Prober asks a node for a sign of life, on a connection of its own.
type Prober interface {
	Utilization(ctx context.Context, node *fsm.Node) (*neon.Utilization, error)
}

// Sizes asks a node for the sizes of what is attached there.
type Sizes interface {
	TopTenants(
		ctx context.Context, node *fsm.Node, req neon.TopTenantsRequest,
	) ([]neon.TopTenant, error)
}

// Migrations are the slow calls of a live migration.
type Migrations interface {
	// SecondaryDownload warms a secondary for at most wait and reports whether it
	// is complete, and how warm it is.
	SecondaryDownload(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, wait time.Duration,
	) (done bool, p neon.SecondaryProgress, err error)

	// SecondaryStatus tells how warm a secondary is.
	SecondaryStatus(
		ctx context.Context, node *fsm.Node, shard neon.ShardID,
	) (neon.SecondaryProgress, error)

	// HeatmapUpload makes an attached location publish what a secondary should hold.
	HeatmapUpload(ctx context.Context, node *fsm.Node, shard neon.ShardID) error

	// Timelines returns the last record of every timeline.
	Timelines(
		ctx context.Context, node *fsm.Node, shard neon.ShardID,
	) (map[neon.TimelineID]neon.Lsn, error)

	// WaitLSN waits for at most timeout until the shard has caught up, and reports
	// whether it has.
	WaitLSN(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, want map[neon.TimelineID]neon.Lsn,
		timeout time.Duration,
	) (reached bool, err error)
}

// Metrics counts what the workers do. Status is ok, ok_no_notify, error or cancel.
type Metrics interface {
	Spawned()
	Completed(status string)

	// Optimised counts shards that were begun to be moved to a better place.
	Optimised(n int)

	// LongRunning and LongEnded frame the part of a reconcile that is over the
	// threshold; the sequence is that of the shard's intent.
	LongRunning(shard neon.ShardID, sequence uint64)
	LongEnded(shard neon.ShardID, sequence uint64)
}

type noMetrics struct{}

func (noMetrics) Spawned()         {}
func (noMetrics) Completed(string) {}
func (noMetrics) Optimised(int)    {}

func (noMetrics) LongRunning(neon.ShardID, uint64) {}
func (noMetrics) LongEnded(neon.ShardID, uint64)   {}

// Options are the reconciler's settings; zero values mean the defaults, which are
// those of the existing controller unless said otherwise.
type Options struct {
	HeartbeatInterval time.Duration // 5 s
	ProbeTimeout      time.Duration // 1 s for one heartbeat
	MaxOffline        time.Duration // 30 s without an answer: Offline
	MaxWarmingUp      time.Duration // 300 s after a re-attach without an answer: Offline

	HighWorkers   int // 256, for what an API call waits for
	NormalWorkers int // 128
	SlowWorkers   int // 256, for warming and catching up, which hold no other permit

	FailoverWorkers int // 128, for shards that no pageserver serves
	PerNode         int // 64 calls of a kind at a time to one node, and as many long steps
	HookCalls       int // 32 notifications at a time

	PutTimeout      time.Duration // 25 s
	LookTimeout     time.Duration // 5 s
	FlushBeforeMove time.Duration // 10 s, the flush_ms of the origin of a migration
	WarmTimeout     time.Duration // 300 s for warming a destination
	WarmRequest     time.Duration // 20 s for one request of it
	CatchUpTimeout  time.Duration // 60 s, then the migration starts over from what is seen
	RetryMin        time.Duration // 100 ms, doubling
	RetryMax        time.Duration // 10 s
	RehomeSecondary time.Duration // 10 min after its node went offline a secondary is placed anew
	SteadyAfter     time.Duration // 5 min after a node fell it is used again for better places
	RepairInterval  time.Duration // 5 s between tries to place what could not be placed
	EvacuationBatch int           // 1000 shards per log entry, about 60 KB
	// 5 min that a tenant which was put to Secondary keeps a second copy
	KeepSecondary time.Duration
	// list a node again only for some time after a call to it has failed
	RelistInDoubt bool
	// how long an attached location that was taken away while its node restarted is left to
	// whoever has done that; 0: it is attached again at once
	Vanished         time.Duration
	StartScanTimeout time.Duration // 15 s for the listing of all nodes at the start of a term

	OperationInterval time.Duration // 250 ms between looks at the operations on nodes
	OperationPause    time.Duration // 5 ms from the end of a move to the look that begins the next
	// 256 shards under way at a time at a node that has all its slots, for all operations
	OperationMoves int
	// 30 s without progress: a move for an operation waits no longer to be warm
	Stalled time.Duration
	// 256 MiB that a drain leaves to download after the cut-over, at most
	MaxSecondaryLag uint64

	OptimiseInterval time.Duration // 20 s between looks for better places
	OptimiseMoves    int           // 16 moves at work at a time
	// 8 of them from one node and to it, to make loads even; less than none: they are not
	OptimisePerNode int
	Disks           Disks
	OptimiseScan    int           // 10000 shards looked at in one interval
	SizeInterval    time.Duration // 1 min between questions for the sizes of shards
	ColdRetry       time.Duration // 5 s between looks at a destination that is not warm
	LongReconcile   time.Duration // 120 s, beyond which the operator is told

	Chaos Chaos
}

// BesideNeonLocal is for controllers beside neon_local. There are test suites that change
// pageservers by hand, and want to find what they left.
func (o *Options) BesideNeonLocal() { o.RelistInDoubt, o.Vanished = true, 30*time.Second }

func (o Options) withDefaults() Options {
	d := func(v *time.Duration, def time.Duration) {
		if *v <= 0 {
			*v = def
		}
	}
	n := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	d(&o.HeartbeatInterval, 5*time.Second)
	d(&o.ProbeTimeout, time.Second)
	d(&o.MaxOffline, 30*time.Second)
	d(&o.MaxWarmingUp, 300*time.Second)
	n(&o.HighWorkers, 256)
	n(&o.NormalWorkers, 128)
	n(&o.SlowWorkers, 256)
	n(&o.FailoverWorkers, 128)
	n(&o.PerNode, 64)
	n(&o.HookCalls, 32)
	d(&o.PutTimeout, 25*time.Second)
	d(&o.LookTimeout, 5*time.Second)
	d(&o.FlushBeforeMove, 10*time.Second)
	d(&o.WarmTimeout, 300*time.Second)
	d(&o.WarmRequest, 20*time.Second)
	d(&o.CatchUpTimeout, 60*time.Second)
	d(&o.RetryMin, 100*time.Millisecond)
	d(&o.RetryMax, 10*time.Second)
	d(&o.RehomeSecondary, 10*time.Minute)
	d(&o.SteadyAfter, 5*time.Minute)
	d(&o.RepairInterval, 5*time.Second)
	d(&o.KeepSecondary, 5*time.Minute)
	n(&o.EvacuationBatch, 1000)
	d(&o.StartScanTimeout, 15*time.Second)
	d(&o.OperationInterval, 250*time.Millisecond)
	d(&o.OperationPause, 5*time.Millisecond)
	n(&o.OperationMoves, 256)
	d(&o.Stalled, 30*time.Second)
	if o.MaxSecondaryLag == 0 {
		o.MaxSecondaryLag = 256 << 20
	}
	d(&o.OptimiseInterval, 20*time.Second)
	n(&o.OptimiseMoves, 16)
	n(&o.OptimiseScan, 10000)
	if o.OptimisePerNode == 0 {
		o.OptimisePerNode = 8
	}
	o.Disks = o.Disks.WithDefaults()
	d(&o.SizeInterval, time.Minute)
	d(&o.ColdRetry, 5*time.Second)
	d(&o.LongReconcile, 120*time.Second)
	return o
}

// Deps is what a Reconciler works with. Hook may be nil: then compute is
// not told. Migrations may be asked long questions; Locations and Prober must not.
type Deps struct {
	Log        decide.Log
	Locations  Locations
	Prober     Prober
	Migrations Migrations
	Sizes      Sizes // nil: the sizes of shards are not known
	Hook       outbox.Hook
	Failpoints failpoint.Points // nil: none
	Metrics    Metrics
	Options    Options
	Logger     *slog.Logger

	// Retell, when set, is asked at the start of the first term: whether compute is
	// to be told again what it has acknowledged.
	Retell func() bool

	// Ended, when set, is called at the end of each term, when nothing of it runs
	// any more and Status still tells what was seen.
	Ended func(*Reconciler)
}
