// Package outbox tells compute where shards are, as long as the log says that it is
// owed that.
//
// Each tenant has at most one sender at a time, which keeps the order and merges
// what changed meanwhile. The body is made from the newest state when it is sent. An
// acknowledgement is committed; a notification is owed until then, under any leader.
//
// The package decides nothing about a shard. It makes no call but to the hook, and
// it tells a Listener, and no other part, that one failed.
package outbox

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// Hook tells compute where a tenant's shards are. A nil error means applied.
type Hook interface {
	NotifyAttach(ctx context.Context, body *neon.NotifyAttach) error
}

// Refusal is the error of a Hook whose call was answered with a no, for now or for
// ever.
type Refusal struct {
	Err   error
	Wait  time.Duration // before the next try, at least
	Never bool          // the same will not be taken later either
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap gives the reason.
func (r *Refusal) Unwrap() error { return r.Err }

// Log is the replicated log.
type Log interface {
	Propose(ctx context.Context, id fsm.RequestID, c fsm.Command) (fsm.Result, error)
	State() *fsm.State
}

// Observed knows which shards serve.
type Observed interface {
	// Serves reports whether the newest generation of a shard was seen to serve.
	Serves(sh *fsm.Shard) bool
}

// Listener hears of every notification that failed, and how many have failed in a
// row for the tenant.
type Listener interface {
	NotifyFailed(id neon.TenantID, failures int, err error)
}

// Deps is what an Outbox works with.
type Deps struct {
	Log      Log
	Observed Observed
	Hook     Hook
	Listener Listener
	Calls    int // notifications under way at a time
}

// Pauses between tries of a notification that failed. A control plane that answers
// that it will not is not asked again at once.
const (
	retryMin   = 100 * time.Millisecond
	refusedMin = time.Second
	retryMax   = 10 * time.Second
)

// repeatedAtOnce bounds the tenants that are told what compute has acknowledged.
// With a control plane that does not answer each of them keeps its sender, and its place
// until it has failed placeAttempts times or is refused for good.
const (
	repeatedAtOnce = 256
	placeAttempts  = 10
)

// Outbox delivers what the log says is owed to compute.
type Outbox struct {
	Deps
	ctx     context.Context
	permits chan struct{} // for calls
	retries chan struct{} // for calls after one that failed, and they need the others too
	wg      sync.WaitGroup
	tried   wait.Broadcast // a try or a delivery has ended

	mu      sync.Mutex
	pending map[neon.TenantID]*delivery
	// accepted is what compute last took, of tenants of which it is owed more.
	accepted map[neon.TenantID]*neon.NotifyAttach
	closed   bool
}

// delivery is what one sender does. The lock of the outbox guards all but hurry.
type delivery struct {
	again    bool // asked for again while being sent
	waits    bool // between two tries
	repeat   bool // also what compute has acknowledged
	attempts int
	failures int         // in a row
	err      error       // of the last try, unless it succeeded
	tried    []fsm.Ack   // what the last try was about
	hurry    wait.Signal // ends the pause before the next try
	over     func()      // called once when nobody need wait for it any more, unless nil
}

// New makes an outbox that works until ctx ends. Close joins it.
func New(ctx context.Context, d Deps) *Outbox {
	return &Outbox{
		Deps: d, ctx: ctx,
		pending:  make(map[neon.TenantID]*delivery),
		accepted: make(map[neon.TenantID]*neon.NotifyAttach),
		permits:  make(chan struct{}, max(1, d.Calls)),
		retries:  make(chan struct{}, max(1, d.Calls/2)),
	}
}

// Submit asks for a tenant's notification to be delivered. One that failed is tried
// again when its time comes, unless it is urgent or there is news.
func (o *Outbox) Submit(id neon.TenantID, urgency Urgency) {
	_, acks, _ := o.compose(o.Log.State(), id)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if d := o.pending[id]; d != nil {
		d.again = true
		if d.waits && (urgency == Urgent || !slices.Equal(acks, d.tried)) {
			d.hurry.Set()
		}
		return
	}
	o.start(id, &delivery{})
}

// Urgency says whether an API call waits for a notification.
type Urgency uint8

// The urgencies.
const (
	Usual Urgency = iota
	Urgent
)

func (o *Outbox) start(id neon.TenantID, d *delivery) {
	d.hurry = wait.NewSignal()
	o.pending[id] = d
	o.wg.Go(func() {
		defer d.leave()
		o.deliver(id, d)
	})
}

// leave gives up the place of a delivery, if it has one. Only its sender calls it.
func (d *delivery) leave() {
	if d.over != nil {
		d.over()
		d.over = nil
	}
}

// RepeatAll tells compute everything again, also what it has acknowledged. It
// returns when the last tenant has a sender.
func (o *Outbox) RepeatAll() {
	places := make(chan struct{}, repeatedAtOnce)
	leave := func() { <-places }
	for tenant := range o.Log.State().TenantsFrom(neon.TenantID{}) {
		if tenant.Policy.Kind != neon.PlaceAttached || tenant.Deleting {
			continue
		}
		select {
		case places <- struct{}{}:
		case <-o.ctx.Done():
			return
		}
		o.mu.Lock()
		switch d := o.pending[tenant.ID]; {
		case o.closed:
			leave()
		case d == nil:
			o.start(tenant.ID, &delivery{repeat: true, over: leave})
		default:
			d.again, d.repeat = true, true
			leave()
		}
		o.mu.Unlock()
	}
}

// deliver sends until nothing that can be sent is owed.
func (o *Outbox) deliver(id neon.TenantID, d *delivery) {
	pause := time.Duration(0)
	for o.ctx.Err() == nil {
		acks, err := o.send(id, d)
		failures, over := o.note(id, d, acks, err)
		if over {
			return
		}
		if err == nil {
			pause = 0
			continue
		}
		if o.ctx.Err() == nil {
			o.Listener.NotifyFailed(id, failures, err)
		}
		shortest := retryMin
		refusal := (*Refusal)(nil)
		if errors.As(err, &refusal) {
			shortest = max(refusedMin, refusal.Wait)
		}
		if failures >= placeAttempts || refusal != nil && refusal.Never {
			d.leave()
		}
		pause = min(max(2*pause, shortest), max(shortest, retryMax))
		if o.pause(id, d, pause) != nil {
			break
		}
	}
	o.mu.Lock()
	delete(o.pending, id)
	o.mu.Unlock()
	o.tried.Notify()
}

// note counts a try. It returns how many have failed in a row, and whether nothing
// is left to be sent.
func (o *Outbox) note(
	id neon.TenantID, d *delivery, acks []fsm.Ack, err error,
) (failures int, over bool) {
	defer o.tried.Notify()
	o.mu.Lock()
	defer o.mu.Unlock()
	d.attempts++
	d.tried, d.err = acks, err
	if err != nil {
		d.failures++
		d.waits = true
		return d.failures, false
	}
	d.failures = 0
	if over = !d.again; over {
		delete(o.pending, id)
	}
	d.again = false
	return 0, over
}

// pause waits until the next try is due, asked for, or about something else.
func (o *Outbox) pause(id neon.TenantID, d *delivery, pause time.Duration) error {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		d.waits = false
		select {
		case <-d.hurry: // is about the try that follows
		default:
		}
	}()
	if _, acks, _ := o.compose(o.Log.State(), id); !slices.Equal(acks, d.tried) {
		return o.ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-o.ctx.Done():
		return o.ctx.Err()
	case <-d.hurry:
	case <-timer.C:
	}
	return nil
}

// Flush makes everything that is owed be tried at once, unless it is being tried
// already. It returns, after each was tried, how many of them had failed before.
func (o *Outbox) Flush(ctx context.Context) (failing int) {
	before := make(map[*delivery]int)
	o.mu.Lock()
	for _, d := range o.pending {
		before[d] = d.attempts
		if d.failures > 0 {
			failing++
		}
		if d.waits {
			d.hurry.Set()
		}
	}
	o.mu.Unlock()
	tried := func(d *delivery) bool {
		attempts, ok := before[d]
		return !ok || attempts != d.attempts
	}
	for {
		changed := o.tried.Changed()
		if o.all(tried) {
			return failing
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return failing
		}
	}
}

// Trouble is what keeps compute from being told of a tenant.
type Trouble struct {
	Failures int  // tries that have failed, in a row
	Never    bool // the last was refused for good
	Why      string
}

// Trouble describes a tenant whose notification fails; it is zero for all others.
func (o *Outbox) Trouble(id neon.TenantID) (t Trouble) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.pending[id]
	if d == nil || d.err == nil {
		return t
	}
	refusal := (*Refusal)(nil)
	return Trouble{
		Failures: d.failures, Never: errors.As(d.err, &refusal) && refusal.Never,
		Why: d.err.Error(),
	}
}

// Idle reports whether nothing is being sent: what is owed has failed at least once
// and waits.
func (o *Outbox) Idle() bool {
	return o.all(func(d *delivery) bool { return d.waits })
}

// all reports whether a condition holds for all deliveries there are.
func (o *Outbox) all(holds func(*delivery) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.pending {
		if !holds(d) {
			return false
		}
	}
	return true
}

// Owed is the number of tenants that compute has to be told about.
func (o *Outbox) Owed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending)
}

// Tried returns a channel that is closed when the next try or delivery has ended.
func (o *Outbox) Tried() <-chan struct{} { return o.tried.Changed() }

// Close takes nothing more and joins the senders. Their context must have ended.
func (o *Outbox) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wg.Wait()
}
