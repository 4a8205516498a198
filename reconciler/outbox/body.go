package outbox

import (
	"context"
	"reflect"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// send makes one notification and commits its acknowledgement. It sends nothing
// while a shard of the tenant was never attached, or when nothing is owed. What
// compute has just accepted counts for all shards that the same body is about: of a
// split, the first child that is seen sends it for all.
func (o *Outbox) send(id neon.TenantID, d *delivery) (acks []fsm.Ack, err error) {
	body, acks, more := o.compose(o.Log.State(), id)
	o.mu.Lock()
	repeat, accepted, again := d.repeat, o.accepted[id], d.failures > 0
	send := body != nil && (len(acks) > 0 || repeat)
	if send || body == nil {
		delete(o.accepted, id)
	}
	o.mu.Unlock()
	if !send {
		return nil, nil
	}
	if repeat || !reflect.DeepEqual(body, accepted) {
		if err := o.notify(body, again); err != nil {
			return acks, err
		}
	}
	o.mu.Lock()
	d.repeat = false
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

// notify makes one call. What is tried again leaves others half of the calls: it may
// hang each time.
func (o *Outbox) notify(body *neon.NotifyAttach, again bool) error {
	if again {
		release, err := acquire(o.ctx, o.retries)
		if err != nil {
			return err
		}
		defer release()
	}
	release, err := acquire(o.ctx, o.permits)
	if err != nil {
		return err
	}
	defer release()
	return o.Hook.NotifyAttach(o.ctx, body)
}

func acquire(ctx context.Context, permits chan struct{}) (release func(), err error) {
	select {
	case permits <- struct{}{}:
		return func() { <-permits }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// compose makes the body from the newest state. A shard whose newest generation
// serves is where that is. One on its way is still where compute last acknowledged
// it to be; more is true when compute is owed a notification about such a shard.
func (o *Outbox) compose(
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
		if o.Observed.Serves(&sh) {
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
