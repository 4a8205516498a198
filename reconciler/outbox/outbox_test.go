package outbox

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// bench is an outbox with a control plane and a log. Shards serve unless they are
// named in away.
type bench struct {
	*Outbox
	t   *testing.T
	log *fsmtest.Log

	mu      sync.Mutex
	away    map[neon.ShardNumber]bool
	bodies  []*neon.NotifyAttach
	answer  error
	latency time.Duration
	hangs   func(neon.TenantID) bool // until its caller gives up, after ten seconds
	refuses func(neon.TenantID) bool // for good
	failed  []int                    // how many in a row, of each failure
}

func (b *bench) NotifyAttach(_ context.Context, body *neon.NotifyAttach) error {
	b.mu.Lock()
	b.bodies = append(b.bodies, body)
	answer, latency, hangs, refuses := b.answer, b.latency, b.hangs, b.refuses
	b.mu.Unlock()
	if hangs != nil && hangs(body.Tenant) {
		time.Sleep(10 * time.Second)
		return context.DeadlineExceeded
	}
	if refuses != nil && refuses(body.Tenant) {
		return &Refusal{Err: errors.New("403 Forbidden"), Never: true}
	}
	time.Sleep(latency)
	return answer
}

func (b *bench) Serves(sh *fsm.Shard) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return sh.GenNode != 0 && !b.away[sh.ID.Number]
}

func (b *bench) NotifyFailed(_ neon.TenantID, failures int, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = append(b.failed, failures)
}

func (b *bench) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// sent is how many notifications came.
func (b *bench) sent() int {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.bodies)
}

func (b *bench) owes(id neon.TenantID) bool {
	for sh := range b.log.State().TenantShards(id) {
		if sh.OwesNotification() {
			return true
		}
	}
	return false
}

// create makes a tenant of two shards, attached on nodes 1 and 2.
func (b *bench) create(n int) neon.TenantID {
	id := neon.TenantID{byte(n), byte(n >> 8)}
	b.log.Must(b.t, fsm.CreateTenant{
		ID: id, Count: 2, Stripe: 2048, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{Attached: 1}, {Attached: 2}},
	})
	for sh := range b.log.State().TenantShards(id) {
		b.log.Must(b.t, fsm.IssueGenerations{Items: []fsm.Issue{{
			Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation,
		}}})
	}
	return id
}

func within(t *testing.T, f func(*bench)) { withCalls(t, 1, f) }

// withCalls has a number of notifications under way at a time.
func withCalls(t *testing.T, calls int, f func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, log: fsmtest.NewLog(), away: map[neon.ShardNumber]bool{}}
		b.log.AddNodes(t, 3, neon.AZ{})
		ctx, cancel := context.WithCancel(t.Context())
		b.Outbox = New(ctx, Deps{Log: b.log, Observed: b, Hook: b, Listener: b, Calls: calls})
		f(b)
		cancel()
		b.Close()
	})
}

func TestWhatIsOwedIsToldOnceAndAcknowledged(t *testing.T) {
	within(t, func(b *bench) {
		id := b.create(1)
		if b.Submit(id, Usual); b.sent() != 1 || b.owes(id) {
			b.t.Fatalf("%d notifications, owed: %v", b.sent(), b.owes(id))
		}
		body := b.bodies[0]
		if len(body.Shards) != 2 || body.Shards[0].Node != 1 || body.Shards[1].Node != 2 ||
			body.StripeSize == nil {
			b.t.Errorf("compute was told %+v", body)
		}
		if b.Submit(id, Urgent); b.sent() != 1 || b.Owed() != 0 || !b.Idle() {
			b.t.Errorf("%d notifications though nothing was owed", b.sent())
		}
	})
}

// TestNothingIsToldOfATenantWithAShardThatNeverServed: compute could not use it.
func TestNothingIsToldOfATenantWithAShardThatNeverServed(t *testing.T) {
	within(t, func(b *bench) {
		id := b.create(1)
		b.set(func() { b.away[1] = true })
		if b.Submit(id, Urgent); b.sent() != 0 {
			b.t.Fatalf("compute was told %+v", b.bodies[0])
		}
		b.set(func() { b.away[1] = false })
		if b.Submit(id, Usual); b.sent() != 1 || b.owes(id) {
			b.t.Errorf("%d notifications, owed: %v", b.sent(), b.owes(id))
		}
	})
}

func TestAFailedNotificationIsRepeatedUntilItIsAcknowledged(t *testing.T) {
	within(t, func(b *bench) {
		b.set(func() { b.answer = errors.New("down") })
		id := b.create(1)
		b.Submit(id, Usual)
		time.Sleep(time.Minute)
		if n := b.sent(); n < 7 || n > 20 {
			b.t.Errorf("%d tries in a minute", n)
		}
		if b.Owed() != 1 || !b.Idle() || !b.owes(id) || b.failed[2] != 3 {
			b.t.Errorf("owed by %d, failures in a row: %v", b.Owed(), b.failed)
		}
		b.set(func() { b.answer = nil })
		if b.Flush(b.t.Context()) != 1 || b.owes(id) || b.Owed() != 0 {
			b.t.Errorf("still owed after it was flushed")
		}
	})
}

// TestOnlyNewsOrAClientEndsThePauseAfterAFailure: a wake-up of the shard alone would
// turn the retries into a busy loop.
func TestOnlyNewsOrAClientEndsThePauseAfterAFailure(t *testing.T) {
	within(t, func(b *bench) {
		b.set(func() { b.answer = &Refusal{Err: errors.New("busy"), Wait: time.Hour} })
		id := b.create(1)
		b.Submit(id, Usual)
		if b.sent(); b.sent() != 1 {
			b.t.Fatalf("%d tries", b.sent())
		}
		if b.Submit(id, Usual); b.sent() != 1 {
			b.t.Error("a wake-up ended the pause")
		}
		if b.Submit(id, Urgent); b.sent() != 2 {
			b.t.Error("a client did not end the pause")
		}
		sh := neon.ShardID{Tenant: id, Number: 0, Count: 2}
		rec, _ := b.log.State().Shard(sh)
		b.log.Must(b.t, fsm.SetIntents{Intents: []fsm.Intent{{
			Shard: sh, Sequence: rec.Sequence, Attached: 3, Issue: true,
		}}})
		if b.Submit(id, Usual); b.sent() != 3 || b.bodies[2].Shards[0].Node != 3 {
			b.t.Error("news did not end the pause")
		}
		time.Sleep(59 * time.Minute)
		if b.sent() != 3 {
			b.t.Error("asked again earlier than the control plane wanted")
		}
	})
}

func TestEverythingIsToldAgainOnDemand(t *testing.T) {
	within(t, func(b *bench) {
		for n := range 10 {
			b.Submit(b.create(n+1), Usual)
		}
		if b.sent() != 10 {
			b.t.Fatalf("%d notifications for 10 tenants", b.sent())
		}
		b.RepeatAll()
		if b.sent() != 20 || b.Owed() != 0 {
			b.t.Errorf("%d notifications, the second time too", b.sent())
		}
	})
}

// TestTenantsThatRefuseForGoodHoldUpNoRepetition: there are more of them than may be
// told at a time, and none of them ever ends.
func TestTenantsThatRefuseForGoodHoldUpNoRepetition(t *testing.T) {
	withCalls(t, 32, func(b *bench) {
		const refusing, others = repeatedAtOnce + 10, 40
		told := make(map[neon.TenantID]int)
		for n := range refusing + others {
			b.Submit(b.create(n+1), Usual)
		}
		b.sent()
		for tenant := range b.log.State().TenantsFrom(neon.TenantID{}) {
			told[tenant.ID] = len(told)
		}
		b.set(func() {
			b.bodies = nil
			b.refuses = func(id neon.TenantID) bool { return told[id] < refusing }
		})
		var done sync.WaitGroup
		done.Go(b.RepeatAll)
		time.Sleep(10 * time.Minute)
		b.sent()
		again := make(map[neon.TenantID]bool)
		b.set(func() {
			for _, body := range b.bodies {
				again[body.Tenant] = true
			}
			b.refuses = nil
		})
		if len(again) < refusing+others {
			b.t.Errorf("%d of %d were told again", len(again), refusing+others)
		}
		time.Sleep(time.Minute)
		done.Wait()
		if b.Owed() != 0 {
			b.t.Errorf("%d are owed", b.Owed())
		}
	})
}

// TestHooksThatHangLeaveRoomForNews: what has failed is tried again, and may not take
// the calls that others need.
func TestHooksThatHangLeaveRoomForNews(t *testing.T) {
	withCalls(t, 32, func(b *bench) {
		b.set(func() { b.hangs = func(id neon.TenantID) bool { return id[1] == 0 } })
		for n := range 200 {
			b.Submit(b.create(n+1), Usual)
		}
		time.Sleep(5 * time.Minute)
		for n := range 20 {
			id := b.create(256 + n)
			b.Submit(id, Usual)
			began := time.Now()
			for b.sent(); b.owes(id) && time.Since(began) < time.Minute; b.sent() {
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(began); took > time.Second {
				b.t.Errorf("compute was told after %s", took)
			}
		}
		b.set(func() { b.hangs = nil })
		time.Sleep(time.Minute)
	})
}

// TestAChangeDuringACallIsToldAfterIt: one sender for a tenant keeps the order.
func TestAChangeDuringACallIsToldAfterIt(t *testing.T) {
	within(t, func(b *bench) {
		b.set(func() { b.latency, b.away[0] = time.Second, true })
		id := b.create(1)
		b.log.Must(b.t, fsm.AckNotifications{Acks: []fsm.Ack{
			{Shard: neon.ShardID{Tenant: id, Number: 0, Count: 2}, Node: 1},
		}})
		b.Submit(id, Usual)
		if b.sent() != 1 || b.Idle() {
			b.t.Fatalf("%d notifications are under way", b.sent())
		}
		tried := b.Tried()
		b.set(func() { b.away[0] = false })
		b.Submit(id, Usual)
		if b.sent() != 1 {
			b.t.Error("two calls for one tenant at a time")
		}
		<-tried
		time.Sleep(10 * time.Second)
		if b.owes(id) || b.Owed() != 0 {
			b.t.Error("the change was not told")
		}
	})
}
