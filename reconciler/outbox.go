package reconciler

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// Pauses between tries of a notification that failed. A control plane that answers
// that it will not is not asked again at once.
const (
	notifyRetryMin   = 100 * time.Millisecond
	notifyRefusedMin = time.Second
	notifyRetryMax   = 10 * time.Second
)

// retellAtOnce bounds the tenants that are told what compute has acknowledged: with
// a control plane that does not answer each of them keeps its sender.
const retellAtOnce = 256

// outbox delivers what the log says is owed to compute. One sender per tenant at
// a time keeps the order and merges what changed meanwhile; the body is made from
// the newest state when it is sent, and what was acknowledged is committed. A
// notification is owed until then, whoever leads.
type outbox struct {
	*term
	mu      sync.Mutex
	pending map[neon.TenantID]*delivery
	// accepted is what compute last took, of tenants of which it is owed more.
	accepted map[neon.TenantID]*neon.NotifyAttach
	permits  chan struct{}
	wg       sync.WaitGroup
	closed   bool
}

// delivery is what one sender does. All but poke belongs to the outbox's lock.
type delivery struct {
	again    bool // asked for again while being sent
	waits    bool // between two tries
	retell   bool // also what compute has acknowledged
	attempts int
	failures int           // in a row
	tried    []fsm.Ack     // what the last try was about
	poke     chan struct{} // ends the pause before the next try
	over     func()        // called in the end, unless nil
}

func newOutbox(t *term) *outbox {
	return &outbox{
		term: t, pending: make(map[neon.TenantID]*delivery),
		accepted: make(map[neon.TenantID]*neon.NotifyAttach),
		permits:  make(chan struct{}, max(1, t.Options.HookCalls)),
	}
}

// submit asks for a tenant's notification to be delivered. One that failed is tried
// again when its time comes, unless somebody waits for it or there is news.
func (o *outbox) submit(id neon.TenantID, urgent bool) {
	_, acks, _ := o.compose(o.Log.State(), id)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if d := o.pending[id]; d != nil {
		d.again = true
		if d.waits && (urgent || !slices.Equal(acks, d.tried)) {
			d.hurry()
		}
		return
	}
	o.start(id, &delivery{})
}

func (o *outbox) start(id neon.TenantID, d *delivery) {
	d.poke = make(chan struct{}, 1)
	o.pending[id] = d
	o.wg.Go(func() {
		if d.over != nil {
			defer d.over()
		}
		o.deliver(id, d)
	})
}

// retell tells everything anew, once the nodes were looked at.
func (o *outbox) retell() {
	select {
	case <-o.ready:
	case <-o.ctx.Done():
		return
	}
	places := make(chan struct{}, retellAtOnce)
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
			o.start(tenant.ID, &delivery{retell: true, over: leave})
		default:
			d.again, d.retell = true, true
			leave()
		}
		o.mu.Unlock()
	}
}

func (d *delivery) hurry() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// deliver sends until nothing that can be sent is owed.
func (o *outbox) deliver(id neon.TenantID, d *delivery) {
	wait := time.Duration(0)
	for o.ctx.Err() == nil {
		acks, err := o.send(id, d)
		failures, over := o.note(id, d, acks, err)
		if over {
			return
		}
		if err == nil {
			wait = 0
			continue
		}
		o.failed(id, failures, err)
		shortest := notifyRetryMin
		if refusal := (*HookRefusal)(nil); errors.As(err, &refusal) {
			shortest = max(notifyRefusedMin, refusal.Wait)
		}
		wait = min(max(2*wait, shortest), max(shortest, notifyRetryMax))
		if o.pause(id, d, wait) != nil {
			break
		}
	}
	o.mu.Lock()
	delete(o.pending, id)
	o.mu.Unlock()
}

// note counts a try and tells how many have failed in a row, and whether there is
// nothing left to be sent.
func (o *outbox) note(
	id neon.TenantID, d *delivery, acks []fsm.Ack, err error,
) (failures int, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.attempts++
	d.tried = acks
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
func (o *outbox) pause(id neon.TenantID, d *delivery, wait time.Duration) error {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		d.waits = false
		select {
		case <-d.poke: // is about the try that follows
		default:
		}
	}()
	if _, acks, _ := o.compose(o.Log.State(), id); !slices.Equal(acks, d.tried) {
		return o.ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-o.ctx.Done():
		return o.ctx.Err()
	case <-d.poke:
	case <-timer.C:
	}
	return nil
}

// flush makes everything that is owed be tried at once, unless it is being tried
// already, and returns, after each was, how many of them had failed before.
func (o *outbox) flush(ctx context.Context) (failing int) {
	before := make(map[*delivery]int)
	o.mu.Lock()
	for _, d := range o.pending {
		before[d] = d.attempts
		if d.failures > 0 {
			failing++
		}
		if d.waits {
			d.hurry()
		}
	}
	o.mu.Unlock()
	tried := func(d *delivery) bool {
		attempts, ok := before[d]
		return !ok || attempts != d.attempts
	}
	for !o.all(tried) && pause(ctx, 10*time.Millisecond) == nil {
	}
	return failing
}

// settled tells whether nothing is being sent: what is owed has failed at least
// once and waits.
func (o *outbox) settled() bool {
	return o.all(func(d *delivery) bool { return d.waits })
}

// all tells whether a condition holds for all deliveries there are.
func (o *outbox) all(holds func(*delivery) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.pending {
		if !holds(d) {
			return false
		}
	}
	return true
}

// owed is the number of tenants that compute has to be told about.
func (o *outbox) owed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending)
}

// failed says so to those who wait for the tenant's shards: the shards are
// attached, only compute does not know. A shard in the middle of a live migration
// is not: it stays there until compute knows, or its origin is gone, and whoever
// waits for it does so too, unless there is nothing to be waited for.
func (o *outbox) failed(id neon.TenantID, failures int, err error) {
	if o.ctx.Err() != nil {
		return
	}
	o.Logger.Info("compute could not be notified, it will be tried again", "tenant", id, "err", err)
	if failures%stuckAfter == 0 {
		o.stuck(id, failures)
	}
	tenant, ok := o.Log.State().Tenant(id)
	if !ok || tenant.Policy.Kind != neon.PlaceAttached {
		return // compute need not know any more
	}
	for _, shard := range tenant.Shards() {
		if sh, ok := o.Log.State().Shard(shard); !ok || !sh.OwesNotification() {
			continue
		}
		if o.cuttingOver(shard) {
			// The name of the task is what existing tests allow such lines by.
			o.Logger.Warn(
				"reconciler: Live migration blocked by compute notification error, retrying: "+err.Error(),
				"shard", shard)
			if refusal := (*HookRefusal)(nil); !errors.As(err, &refusal) || !refusal.Never {
				continue
			}
		} else if o.report.taken(shard) {
			o.Metrics.Completed("ok_no_notify")
		}
		o.wait.failed(shard,
			neon.Errorf(neon.Internal, "Reconcile error on shard %s: %w", shard, err))
	}
}

// stuck tells the operator of something that does not come to an end by itself.
// The words are those that existing alerts and tests look for.
func (t *term) stuck(what fmt.Stringer, failures int) {
	t.Logger.Warn(fmt.Sprintf(
		"background_reconcile: Shard reconciliation is stuck: %d consecutive launches",
		failures), "of", what)
}

// cuttingOver tells whether a shard's move waits for compute to be told while the
// location it comes from still serves.
func (t *term) cuttingOver(id neon.ShardID) bool {
	sc, ok := t.scene(t.Log.State(), &task{id: id})
	if !ok || sc.Shard.Attached == 0 {
		return false
	}
	at := sc.On(sc.Shard.Attached)
	return at.Attached() && at.Conf.Mode == neon.AttachedMulti && plan.Next(sc).Kind == plan.Notify
}

// gaveUp tells that a live migration goes on although compute was not told,
// because nobody can use the location it comes from any more.
func (t *term) gaveUp(sc *plan.Scene, step plan.Step) {
	at := sc.On(sc.Shard.Attached)
	if sc.Owes() && step.Kind == plan.Put && step.Node == sc.Shard.Attached &&
		step.Conf.Mode == neon.AttachedSingle &&
		at.Attached() && at.Conf.Mode == neon.AttachedMulti {
		t.Logger.Info("Giving up on compute notification because the origin is unavailable",
			"shard", sc.Shard.ID)
	}
}

// send makes one notification and commits its acknowledgement. It sends nothing
// while a shard of the tenant was never attached, or when nothing is owed; and what
// compute has just accepted, as it does for the first child of a split that is seen,
// goes for the other shards that the same words are about.
func (o *outbox) send(id neon.TenantID, d *delivery) (acks []fsm.Ack, err error) {
	body, acks, more := o.compose(o.Log.State(), id)
	o.mu.Lock()
	retell, accepted := d.retell, o.accepted[id]
	send := body != nil && (len(acks) > 0 || retell)
	if send || body == nil {
		delete(o.accepted, id)
	}
	o.mu.Unlock()
	if !send {
		return nil, nil
	}
	if retell || !reflect.DeepEqual(body, accepted) {
		if err := o.notify(body); err != nil {
			return acks, err
		}
	}
	o.mu.Lock()
	d.retell = false
	if more {
		o.accepted[id] = body
	}
	o.mu.Unlock()
	if len(acks) == 0 {
		return nil, nil
	}
	_, err = o.Log.Propose(o.ctx, fsm.RequestID{}, fsm.AckNotifications{Acks: acks})
	return acks, err
}

func (o *outbox) notify(body *neon.NotifyAttach) error {
	select {
	case o.permits <- struct{}{}:
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	}
	defer func() { <-o.permits }()
	return o.Hook.NotifyAttach(o.ctx, body)
}

// compose makes the body from the newest state: a shard whose newest generation
// is attached is where that is; one on its way is still where compute last
// acknowledged it to be, and more tells that there are such that compute is owed.
func (o *outbox) compose(
	st *fsm.State, id neon.TenantID,
) (body *neon.NotifyAttach, acks []fsm.Ack, more bool) {
	tenant, ok := st.Tenant(id)
	if !ok || tenant.Policy.Kind != neon.PlaceAttached {
		return nil, nil, false
	}
	body = &neon.NotifyAttach{Tenant: id}
	if tenant.Count.Shards() > 1 {
		stripe := tenant.Stripe
		body.StripeSize = &stripe
	}
	for sh := range st.TenantShards(id) {
		if body.PreferredAZ.IsZero() {
			body.PreferredAZ = sh.PreferredAZ
		}
		node := sh.AcknowledgedNode
		if o.attached(&sh) {
			node = sh.GenNode
			if !sh.ComputeAcknowledged {
				acks = append(acks, fsm.Ack{Shard: sh.ID, Node: node})
			}
		} else if sh.OwesNotification() {
			more = true
		}
		if node == 0 {
			return nil, nil, false
		}
		body.Shards = append(body.Shards, neon.NotifyShard{Node: node, Number: sh.ID.Number})
	}
	slices.SortFunc(body.Shards,
		func(a, b neon.NotifyShard) int { return int(a.Number) - int(b.Number) })
	return body, acks, more
}

// attached tells whether the newest generation of a shard was seen to serve.
func (o *outbox) attached(sh *fsm.Shard) bool {
	o.seen.mu.Lock()
	defer o.seen.mu.Unlock()
	known := o.seen.shards[sh.ID]
	if known == nil || sh.GenNode == 0 {
		return false
	}
	l := known.find(sh.GenNode)
	if l == nil || !l.known || l.conf.Generation != sh.Generation {
		return false
	}
	// The destination of a live migration serves once it has caught up.
	return l.conf.Mode == neon.AttachedSingle ||
		l.conf.Mode == neon.AttachedMulti && known.caughtUp == sh.GenNode
}

// close takes nothing more and joins the senders; their context has ended.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wg.Wait()
}
