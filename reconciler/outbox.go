package reconciler

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/fsm"
	"quorate/internal/neon"
)

// Pauses between tries of a notification that failed.
const (
	notifyRetryMin = 100 * time.Millisecond
	notifyRetryMax = 10 * time.Second
)

// outbox delivers what the log says is owed to compute. One sender per tenant at
// a time keeps the order and merges what changed meanwhile; the body is made from
// the newest state when it is sent, and what was acknowledged is committed. A
// notification is owed until then, whoever leads.
type outbox struct {
	*term
	mu      sync.Mutex
	pending map[neon.TenantID]*delivery
	permits chan struct{}
	wg      sync.WaitGroup
	closed  bool
}

// delivery is what one sender does. All but poke belongs to the outbox's lock.
type delivery struct {
	again    bool // asked for again while being sent
	attempts int
	failures int           // in a row
	poke     chan struct{} // ends the pause before the next try
}

func newOutbox(t *term) *outbox {
	return &outbox{term: t, pending: make(map[neon.TenantID]*delivery), permits: make(chan struct{}, max(1, t.Options.HookCalls))}
}

// submit asks for a tenant's notification to be delivered.
func (o *outbox) submit(id neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if d := o.pending[id]; d != nil {
		d.again = true
		d.hurry()
		return
	}
	d := &delivery{poke: make(chan struct{}, 1)}
	o.pending[id] = d
	o.wg.Go(func() { o.deliver(id, d) })
}

func (d *delivery) hurry() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// deliver sends until nothing that can be sent is owed.
func (o *outbox) deliver(id neon.TenantID, d *delivery) {
	wait := notifyRetryMin
	for o.ctx.Err() == nil {
		sent, err := o.send(id)
		failures, over := o.note(id, d, sent, err)
		if err != nil {
			o.failed(id, failures, err)
			if d.pause(o.ctx, wait) != nil {
				break
			}
			wait = min(2*wait, notifyRetryMax)
			continue
		}
		if wait = notifyRetryMin; over {
			return
		}
	}
	o.mu.Lock()
	delete(o.pending, id)
	o.mu.Unlock()
}

// note counts a try and tells how many have failed in a row, and whether there is
// nothing left to be sent.
func (o *outbox) note(id neon.TenantID, d *delivery, sent bool, err error) (failures int, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.attempts++
	if err != nil {
		d.failures++
		return d.failures, false
	}
	d.failures = 0
	if over = !d.again; over {
		delete(o.pending, id)
	}
	d.again = false
	return 0, over
}

// pause waits until the next try is due or asked for.
func (d *delivery) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.poke:
	case <-timer.C:
	}
	return nil
}

// flush makes everything that is owed be tried at once and returns, after each was,
// how many are owed still.
func (o *outbox) flush(ctx context.Context) int {
	before := make(map[*delivery]int)
	o.mu.Lock()
	for _, d := range o.pending {
		before[d] = d.attempts
		d.hurry()
	}
	o.mu.Unlock()
	for {
		waiting, owed := 0, 0
		o.mu.Lock()
		for _, d := range o.pending {
			owed++
			if attempts, ok := before[d]; ok && attempts == d.attempts {
				waiting++
			}
		}
		o.mu.Unlock()
		if waiting == 0 || pause(ctx, 10*time.Millisecond) != nil {
			return owed
		}
	}
}

// owed is the number of tenants that compute has to be told about.
func (o *outbox) owed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending)
}

// failed says so to those who wait for the tenant's shards: the shards are
// attached, only compute does not know. A shard in the middle of a live migration
// is not: it stays there until compute knows, or its origin is gone.
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
		if o.cuttingOver(shard) {
			o.Logger.Warn("Live migration blocked by compute notification error, retrying: "+err.Error(), "shard", shard)
			continue
		}
		if o.report.taken(shard) {
			o.Metrics.Completed("ok_no_notify")
		}
		o.wait.failed(shard, neon.Errorf(neon.Internal, "Reconcile error on shard %s: %w", shard, err))
	}
}

// stuck tells the operator of something that does not come to an end by itself.
// The words are those that existing alerts and tests look for.
func (t *term) stuck(what fmt.Stringer, failures int) {
	t.Logger.Warn(fmt.Sprintf("background_reconcile: Shard reconciliation is stuck: %d consecutive launches", failures), "of", what)
}

// cuttingOver tells whether a shard's move waits for compute to be told while the
// location it comes from still serves.
func (t *term) cuttingOver(id neon.ShardID) bool {
	sc, ok := t.scene(t.Log.State(), &task{id: id})
	if !ok || sc.Shard.Attached == 0 {
		return false
	}
	at := sc.On(sc.Shard.Attached)
	return at.attached() && at.Conf.Mode == neon.AttachedMulti && Next(sc).Kind == Notify
}

// gaveUp tells that a live migration goes on although compute was not told,
// because nobody can use the location it comes from any more.
func (t *term) gaveUp(sc *Scene, step Step) {
	at := sc.On(sc.Shard.Attached)
	if sc.owes() && step.Kind == Put && step.Node == sc.Shard.Attached && step.Conf.Mode == neon.AttachedSingle &&
		at.attached() && at.Conf.Mode == neon.AttachedMulti {
		t.Logger.Info("Giving up on compute notification because the origin is unavailable", "shard", sc.Shard.ID)
	}
}

// send makes one notification and commits its acknowledgement. It sends nothing
// while a shard of the tenant was never attached, or when nothing is owed.
func (o *outbox) send(id neon.TenantID) (sent bool, err error) {
	body, acks := o.compose(o.Log.State(), id)
	if len(acks) == 0 {
		return false, nil
	}
	select {
	case o.permits <- struct{}{}:
	case <-o.ctx.Done():
		return false, context.Cause(o.ctx)
	}
	err = o.Hook.NotifyAttach(o.ctx, body)
	<-o.permits
	if err != nil {
		return false, err
	}
	_, err = o.Log.Propose(o.ctx, fsm.RequestID{}, fsm.AckNotifications{Acks: acks})
	return err == nil, err
}

// compose makes the body from the newest state: a shard whose newest generation
// is attached is where that is; one on its way is still where compute last
// acknowledged it to be.
func (o *outbox) compose(st *fsm.State, id neon.TenantID) (*neon.NotifyAttach, []fsm.Ack) {
	tenant, ok := st.Tenant(id)
	if !ok || tenant.Policy.Kind != neon.PlaceAttached {
		return nil, nil
	}
	body := &neon.NotifyAttach{Tenant: id}
	if tenant.Count.Shards() > 1 {
		stripe := tenant.Stripe
		body.StripeSize = &stripe
	}
	var acks []fsm.Ack
	for sh := range st.TenantShards(id) {
		if body.PreferredAZ.IsZero() {
			body.PreferredAZ = sh.PreferredAZ
		}
		node := sh.Told
		if o.attached(&sh) {
			node = sh.GenNode
			if !sh.Notified {
				acks = append(acks, fsm.Ack{Shard: sh.ID, Node: node})
			}
		}
		if node == 0 {
			return nil, nil
		}
		body.Shards = append(body.Shards, neon.NotifyShard{Node: node, Number: sh.ID.Number})
	}
	slices.SortFunc(body.Shards, func(a, b neon.NotifyShard) int { return int(a.Number) - int(b.Number) })
	return body, acks
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
	return l.conf.Mode == neon.AttachedSingle || l.conf.Mode == neon.AttachedMulti && known.caughtUp == sh.GenNode
}

// close takes nothing more and joins the senders; their context has ended.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wg.Wait()
}
