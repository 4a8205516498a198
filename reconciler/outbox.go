package reconciler

import (
	"context"
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
	pending map[neon.TenantID]bool // true: asked for again while being sent
	permits chan struct{}
	wg      sync.WaitGroup
	closed  bool
}

func newOutbox(t *term) *outbox {
	return &outbox{term: t, pending: make(map[neon.TenantID]bool), permits: make(chan struct{}, max(1, t.Options.HookCalls))}
}

// submit asks for a tenant's notification to be delivered.
func (o *outbox) submit(id neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if _, busy := o.pending[id]; busy {
		o.pending[id] = true
		return
	}
	o.pending[id] = false
	o.wg.Go(func() { o.deliver(id) })
}

// deliver sends until nothing that can be sent is owed.
func (o *outbox) deliver(id neon.TenantID) {
	wait := notifyRetryMin
	for o.ctx.Err() == nil {
		sent, err := o.send(id)
		switch {
		case err != nil:
			o.failed(id, err)
			if pause(o.ctx, wait) != nil {
				break
			}
			wait = min(2*wait, notifyRetryMax)
			continue
		case sent:
			wait = notifyRetryMin
		}
		o.mu.Lock()
		if !o.pending[id] {
			delete(o.pending, id)
			o.mu.Unlock()
			return
		}
		o.pending[id] = false
		o.mu.Unlock()
	}
	o.mu.Lock()
	delete(o.pending, id)
	o.mu.Unlock()
}

// failed says so to those who wait for the tenant's shards: the shards are
// attached, only compute does not know.
func (o *outbox) failed(id neon.TenantID, err error) {
	if o.ctx.Err() != nil {
		return
	}
	o.Logger.Info("compute could not be notified, it will be tried again", "tenant", id, "err", err)
	tenant, ok := o.Log.State().Tenant(id)
	if !ok || tenant.Policy.Kind != neon.PlaceAttached {
		return // compute need not know any more
	}
	for _, shard := range tenant.Shards() {
		o.wait.failed(shard, neon.Errorf(neon.Internal, "Reconcile error on shard %s: %w", shard, err))
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
