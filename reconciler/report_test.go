package reconciler

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/outbox"
)

// tally counts how reconciles begin and end.
type tally struct {
	noMetrics
	mu sync.Mutex
	by map[string]int
}

func (y *tally) Spawned() { y.Completed("spawned") }

func (y *tally) Completed(status string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.by[status]++
}

// take returns what was counted since it was last called.
func (y *tally) take() map[string]int {
	y.mu.Lock()
	defer y.mu.Unlock()
	by := y.by
	y.by = map[string]int{}
	return by
}

func (y *tally) demand(t *testing.T, what string, want map[string]int) {
	t.Helper()
	got := y.take()
	for _, status := range []string{"spawned", "ok", "ok_no_notify", "error", "cancel"} {
		if got[status] != want[status] {
			t.Errorf("%s: %d %s, want %d", what, got[status], status, want[status])
		}
	}
}

// counting starts the leader of a bench anew with a tally.
func counting(b *bench) *tally {
	y := &tally{by: map[string]int{}}
	b.depose()
	b.metric = y
	b.lead()
	b.awaitIdle()
	return y
}

// A reconcile is one from its beginning to the moment compute knows, however many
// passes that takes.
func TestReconcileThatTellsComputeCountsOnce(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		y := counting(b)
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		y.demand(t, "attaching", map[string]int{"spawned": 1, "ok": 1})
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy") })
		b.create(1, 2, neon.Attached(0))
		elapse(time.Second)
		y.demand(t, "attaching while compute is busy",
			map[string]int{"spawned": 2, "ok_no_notify": 2})
		b.fleet.set(func() { b.fleet.hookErr = nil })
		b.awaitIdle()
		y.take()
		b.depose()
		b.lead()
		b.awaitIdle()
		y.demand(t, "a new leader", nil)
	})
}

// A test that watches the counters sees that a node which was offline is dealt with:
// one reconcile for each shard with a location there, whatever was found.
func TestReturnOfANodeIsOneReconcilePerShard(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		y := counting(b)
		for _, id := range b.create(4, 1, neon.Attached(1)) { // not to be moved home again
			tenant, _ := b.log.State().Tenant(id)
			b.must(fsm.UpdateTenant{
				ID: id, Sequence: tenant.Sequence, Scheduling: new(neon.ShardEssential),
			})
		}
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[2] = true })
		elapse(b.opts.MaxOffline + 5*time.Second)
		b.awaitIdle()
		y.take()
		b.fleet.set(func() { b.fleet.down[2] = false })
		elapse(5 * time.Second)
		b.awaitIdle()
		y.demand(t, "return", map[string]int{"spawned": 4, "ok": 4})
	})
}

// Who asks for everything to be reconciled learns what cannot be.
func TestReconcileAllNamesTheShardThatKeepsFailing(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		b.create(2, 1, neon.Attached(0))
		b.awaitIdle()
		// the first of the next tenant
		broken := neon.ShardID{Tenant: neon.TenantID{0xaa, 0, 0, 2}, Count: 2}
		failures := 0
		b.fleet.set(func() {
			b.fleet.onPut = func(_ neon.NodeID, id neon.ShardID) error {
				if id == broken {
					failures++
					return errors.New("out of order")
				}
				return nil
			}
		})
		b.create(1, 2, neon.Attached(0))
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := b.now.ReconcileAll(ctx)
		if err == nil ||
			!strings.Contains(err.Error(), "Reconcile error on shard "+broken.String()+": ") ||
			!strings.Contains(err.Error(), "out of order") {
			t.Errorf("%v", err)
		}
		b.fleet.set(func() {
			b.fleet.onPut = func(neon.NodeID, neon.ShardID) error {
				if failures > 0 {
					failures = 0
					return errors.New("once more")
				}
				return nil
			}
		})
		if _, err := b.now.ReconcileAll(ctx); err != nil {
			t.Errorf("what was mended while it waited: %v", err)
		}
		b.awaitIdle()
	})
}

// A client that has everything reconciled sees compute told once each time,
// whether it can be or not, and nothing is told behind his back.
func TestReconcileAllTriesEachNotificationOnce(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		b.create(1, 1, neon.Attached(1))
		b.awaitIdle()
		sh := first(b)
		node, _ := b.log.State().Node(sh.Attached)
		b.fleet.set(func() {
			b.fleet.hookErr = &outbox.Refusal{Err: errors.New("Control plane tenant busy")}
			b.fleet.down[sh.Attached] = true
			b.fleet.notes = 0
		})
		b.must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{
			Node: sh.Attached, From: neon.NodeActive, To: neon.NodeOffline,
			Incarnation: node.Incarnation,
		}}})
		all := func(what string, want, notes int, owes bool) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			n, err := b.now.ReconcileAll(ctx)
			b.fleet.mu.Lock()
			defer b.fleet.mu.Unlock()
			if now := first(b); err != nil || n != want || b.fleet.notes != notes ||
				now.OwesNotification() != owes {
				t.Errorf("%s: %d found, %d notifications, owed %v; %v", what, n, b.fleet.notes,
					now.OwesNotification(), err)
			}
			b.fleet.notes = 0
		}
		all("right after the verdict", 1, 1, true)
		elapse(30 * time.Millisecond)
		all("compute is busy", 1, 1, true)
		b.fleet.set(func() { b.fleet.hookErr = nil })
		all("compute takes it", 1, 1, false)
		all("nothing is left", 0, 0, false)
	})
}

// A control plane that asks for time gets it, and a refusal for good is told to a client
// that waits for a move, which nothing else would end.
func TestHowANotificationWasRefusedDecidesWhatFollows(t *testing.T) {
	watching(t, 3, func(b *bench, _ *watch) {
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		b.fleet.set(func() {
			b.fleet.hookErr, b.fleet.notes = &outbox.Refusal{
				Err: errors.New("too many"), Wait: 5 * time.Second,
			}, 0
		})
		migrate(b, first(b))
		elapse(5 * time.Second)
		b.fleet.set(func() {
			if b.fleet.notes != 1 {
				t.Errorf("told %d times in the time that was asked for", b.fleet.notes)
			}
			b.fleet.hookErr = nil
		})
		elapse(12 * time.Second)
		b.awaitIdle()
		b.check()
		b.fleet.set(
			func() { b.fleet.hookErr = &outbox.Refusal{Err: errors.New("forbidden"), Never: true} })
		sh := first(b)
		migrate(b, sh)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := b.now.Await(ctx, b.log.State().Index, sh.ID)
		if err == nil || neon.CodeOf(err) == neon.Timeout ||
			!strings.Contains(err.Error(), "forbidden") {
			t.Errorf("who waits hears %v", err)
		}
		b.fleet.set(func() { b.fleet.hookErr = nil })
		elapse(12 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// Who restarts a controller that is alone hears everything again, once; a successor
// tells only what is owed.
func TestARestartTellsEverythingAgain(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(5, 2, neon.Attached(0))
		b.awaitIdle()
		for _, retell := range []bool{false, true} {
			b.depose()
			b.fleet.set(func() { b.fleet.notes = 0 })
			b.retell = retell
			b.lead()
			elapse(time.Minute)
			want := 0
			if retell {
				want = 5
			}
			b.fleet.mu.Lock()
			if b.fleet.notes != want {
				t.Errorf("again %v: %d notifications, want %d", retell, b.fleet.notes, want)
			}
			b.fleet.mu.Unlock()
			b.awaitIdle()
			b.check()
		}
	})
}

// A move that takes its time counts as its three parts, and a split as the removal
// of what its parents had and the making of what its children get.
func TestMovesAndSplitsCountInParts(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		y := counting(b)
		id := b.create(1, 1, neon.Attached(1))[0]
		b.pin(id)
		b.awaitIdle()
		y.take()
		sh := first(b)
		to := neon.NodeID(6) - sh.Attached - sh.Secondary[0]
		b.must(fsm.SetIntents{Intents: []fsm.Intent{{
			Shard: sh.ID, Sequence: sh.Sequence, Attached: sh.Attached,
			Secondary: []neon.NodeID{sh.Secondary[0], to}, PreferredNode: to,
		}}})
		b.awaitIdle()
		if sh = first(b); sh.Attached != to {
			t.Fatalf("it is on node %d", sh.Attached)
		}
		y.demand(t, "a move", map[string]int{"spawned": 3, "ok": 3})

		b.splitIn2(id)
		y.demand(t, "a split", map[string]int{"spawned": 3, "ok": 3})
	})
}

// splitIn2 splits a tenant of one shard as its pageserver would, and waits until all
// is as it should be.
func (b *bench) splitIn2(id neon.TenantID) {
	tenant, _ := b.log.State().Tenant(id)
	sh, _ := b.log.State().Shard(tenant.Shards()[0])
	b.must(fsm.BeginSplit{
		Tenant: id, Sequence: tenant.Sequence, Count: 2, Stripe: 2048,
		Parents: []fsm.SplitParent{{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation}},
	})
	sp, _ := b.log.State().Split(id)
	b.fleet.set(func() {
		there := b.fleet.at[sh.Attached]
		for _, child := range sp.Children(sh.ID) {
			c := there[sh.ID]
			c.ShardNumber, c.ShardCount, c.StripeSize = child.Number, child.Count, 2048
			there[child] = c
		}
		delete(there, sh.ID)
		for _, n := range sh.Secondary {
			delete(b.fleet.at[n], sh.ID)
		}
	})
	b.must(fsm.CommitSplit{Tenant: id, Began: sp.Began})
	elapse(5 * time.Second)
	sp, _ = b.log.State().Split(id)
	b.must(fsm.ForgetLeftovers{Tenant: id, Leftovers: sp.Leftovers})
	b.awaitIdle()
}

// Compute hears of a split once, with all children, however they are found one after
// another.
func TestComputeHearsOfASplitOnce(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := b.create(1, 1, neon.Attached(0))[0]
		b.awaitIdle()
		b.fleet.notes = 0
		b.fleet.onLook = func(sh neon.ShardID) {
			if sh.Number == 1 {
				elapse(time.Second)
			}
		}
		b.splitIn2(id)
		b.check()
		b.fleet.mu.Lock()
		defer b.fleet.mu.Unlock()
		if b.fleet.notes != 1 {
			t.Errorf("%d notifications", b.fleet.notes)
		}
	})
}
