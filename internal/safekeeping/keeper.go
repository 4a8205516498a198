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

// Keeper runs one term after another. Between terms it knows nothing.
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

// Run works for one leader term and returns when ctx ends, with everything it
// started joined.
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

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (k *Keeper) Changed(_ *fsm.State, c fsm.Touched) {
	if t := k.current.Load(); t != nil && len(c.Safekeepers) > 0 {
		poke(t.wakeup)
		poke(t.probe)
	}
}

// Load is what the last heartbeats of a safekeeper said.
type Load struct {
	Available bool
	Timelines uint64
}

// Loads are the loads of the safekeepers that answered in this term; empty on a
// replica that does not lead.
func (k *Keeper) Loads() map[neon.NodeID]Load {
	t := k.current.Load()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[neon.NodeID]Load, len(t.seen))
	for id, s := range t.seen {
		all[id] = Load{Available: time.Since(s.at) < t.Options.MaxOffline, Timelines: s.timelines}
	}
	return all
}

// Busy is how many operations are being worked on.
func (k *Keeper) Busy() int {
	t := k.current.Load()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.busy)
}

// poke leaves a note for somebody who waits, unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// term is what one leader knows.
type term struct {
	Deps
	ctx    context.Context
	wakeup chan struct{} // operations: look at the state
	probe  chan struct{} // heartbeats: somebody may be new

	mu     sync.Mutex
	seen   map[neon.NodeID]sign
	busy   map[opKey]struct{}
	queued map[neon.NodeID]int
	cursor map[neon.NodeID]fsm.SafekeeperOp // where to look for the next operation
	wg     sync.WaitGroup                   // operations under way
}

// sign is the last sign of life.
type sign struct {
	first, at time.Time
	timelines uint64
}

type opKey struct {
	safekeeper neon.NodeID
	ref        neon.TimelineRef
}

func keyOf(o *fsm.SafekeeperOp) opKey { return opKey{o.Safekeeper, o.Ref()} }

func newTerm(ctx context.Context, d Deps) *term {
	return &term{
		Deps: d, ctx: ctx, wakeup: make(chan struct{}, 1), probe: make(chan struct{}, 1),
		seen: make(map[neon.NodeID]sign), busy: make(map[opKey]struct{}),
		queued: make(map[neon.NodeID]int), cursor: make(map[neon.NodeID]fsm.SafekeeperOp),
	}
}

// pause waits unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
