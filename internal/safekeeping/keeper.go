package safekeeping

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
)

// Calls are the calls to safekeepers. One try each, bounded by ctx.
type Calls interface {
	Utilization(ctx context.Context, sk *fsm.Safekeeper) (neon.SafekeeperUtilization, error)
	BaseURL(sk *fsm.Safekeeper) string
	PullTimeline(
		ctx context.Context, sk *fsm.Safekeeper, body neon.PullTimelineRequest,
	) (neon.PullTimelineResponse, error)
	ExcludeTimeline(
		ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
	) error
	DeleteTimeline(ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef) error
	DeleteTenant(ctx context.Context, sk *fsm.Safekeeper, id neon.TenantID) error
}

// Metrics counts the operations.
type Metrics interface {
	// SafekeeperDone counts an operation that was carried out.
	SafekeeperDone(sk *fsm.Safekeeper)
}

// Options are the settings; zero values mean the defaults.
type Options struct {
	HeartbeatInterval time.Duration // 5 s
	MaxOffline        time.Duration // 30 s without an answer: not available
	PerSafekeeper     int           // 32 operations at a time on one safekeeper
	RetryPause        time.Duration // 1 s between tries of an operation
}

func (o Options) withDefaults() Options {
	if o.HeartbeatInterval == 0 {
		o.HeartbeatInterval = 5 * time.Second
	}
	if o.MaxOffline == 0 {
		o.MaxOffline = 30 * time.Second
	}
	if o.PerSafekeeper == 0 {
		o.PerSafekeeper = 32
	}
	if o.RetryPause == 0 {
		o.RetryPause = time.Second
	}
	return o
}

// Deps is what a Keeper works with. Metrics may be nil.
type Deps struct {
	Log     decide.Log
	Calls   Calls
	Metrics Metrics
	Options Options
	Logger  *slog.Logger
}

type noMetrics struct{}

func (noMetrics) SafekeeperDone(*fsm.Safekeeper) {}

// Keeper runs one term after another. It keeps nothing between terms.
type Keeper struct {
	deps    Deps
	current atomic.Pointer[term]
}

// New makes a Keeper; Run starts it.
func New(d Deps) *Keeper {
	d.Options = d.Options.withDefaults()
	if d.Metrics == nil {
		d.Metrics = noMetrics{}
	}
	return &Keeper{deps: d}
}

// Run works for one leader term. It returns when ctx ends, and joins all that it
// started.
func (k *Keeper) Run(ctx context.Context, number uint64) error {
	d := k.deps
	d.Logger = d.Logger.With("term", number)
	t := newTerm(ctx, d)
	k.current.Store(t)
	defer k.current.Store(nil)
	var wg sync.WaitGroup
	wg.Go(t.heartbeats)
	wg.Go(t.operations)
	<-ctx.Done()
	wg.Wait()
	return context.Cause(ctx)
}

// Changed is to be called after each batch of applied entries, on the goroutine that
// applies them. It returns at once.
func (k *Keeper) Changed(_ *fsm.State, c fsm.Touched) {
	if t := k.current.Load(); t != nil && len(c.Safekeepers) > 0 {
		t.wakeup.Set()
		t.probe.Set()
	}
}

// Load is the result of the last heartbeats of a safekeeper.
type Load struct {
	Available bool
	Timelines uint64
}

// Loads are the loads of the safekeepers that were probed in this term. It is empty on a
// replica that does not lead.
func (k *Keeper) Loads() map[neon.NodeID]Load {
	t := k.current.Load()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[neon.NodeID]Load, len(t.answers))
	for id, a := range t.answers {
		all[id] = Load{Available: time.Since(a.last) < t.Options.MaxOffline, Timelines: a.timelines}
	}
	return all
}

// Busy is the number of operations under way.
func (k *Keeper) Busy() int {
	t := k.current.Load()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.busy)
}

// term is what one leader knows.
type term struct {
	Deps
	ctx    context.Context
	wakeup wait.Signal // operations: look at the state
	probe  wait.Signal // heartbeats: a safekeeper may be new

	mu      sync.Mutex
	answers map[neon.NodeID]answer // to heartbeats, of the safekeepers that were probed
	busy    map[opKey]struct{}
	queued  map[neon.NodeID]int
	cursor  map[neon.NodeID]fsm.SafekeeperOp // where to look for the next operation
	wg      sync.WaitGroup                   // operations under way
}

// answer is what is known from the heartbeats of one safekeeper. The times are zero until
// it answers.
type answer struct {
	first, last time.Time
	timelines   uint64
}

type opKey struct {
	safekeeper neon.NodeID
	ref        neon.TimelineRef
}

func keyOf(o *fsm.SafekeeperOp) opKey { return opKey{o.Safekeeper, o.Ref()} }

func newTerm(ctx context.Context, d Deps) *term {
	return &term{
		Deps: d, ctx: ctx, wakeup: wait.NewSignal(), probe: wait.NewSignal(),
		answers: make(map[neon.NodeID]answer), busy: make(map[opKey]struct{}),
		queued: make(map[neon.NodeID]int), cursor: make(map[neon.NodeID]fsm.SafekeeperOp),
	}
}
