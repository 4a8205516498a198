package reconciler

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// watch is what an operator sees, and a place at which tests hold workers.
type watch struct {
	mu    sync.Mutex
	log   bytes.Buffer
	held  []string // the places at which workers stay
	long  map[neon.ShardID]int
	ended map[string]int
}

func newWatch() *watch { return &watch{long: map[neon.ShardID]int{}, ended: map[string]int{}} }

func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (w *watch) lines(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), text)
}

func (w *watch) Spawned()      {}
func (w *watch) Optimised(int) {}

func (w *watch) Completed(status string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended[status]++
}

func (w *watch) LongRunning(id neon.ShardID, _ uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.long[id]++
}

func (w *watch) LongEnded(id neon.ShardID, _ uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.long, id)
}

func (w *watch) longs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.long)
}

func (w *watch) hold(places ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = places
}

func (w *watch) Pausable(ctx context.Context, place string) error {
	_, _ = w.Write([]byte("at failpoint " + place + "\n"))
	for {
		if !w.Armed(place) {
			return ctx.Err()
		}
		if err := wait.Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *watch) Armed(place string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.held, place)
}

func (w *watch) Sleep(context.Context, string) error { return nil }

func (w *watch) Return(context.Context, string) (string, bool, error) { return "", false, nil }

func watching(t *testing.T, nodes int, f func(*bench, *watch)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		b := newBench(t, nodes)
		b.depose()
		b.watch = w
		b.opts.LongReconcile = 5 * time.Second
		b.lead()
		defer func() { b.depose() }()
		b.awaitIdle()
		f(b, w)
	})
}

func first(b *bench) fsm.Shard {
	for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
		return sh
	}
	b.t.Fatal("there is no shard")
	return fsm.Shard{}
}

func TestALongReconcileIsToldUntilItEnds(t *testing.T) {
	for _, place := range []string{"post-generation-inc", "post-notify", "post-detach"} {
		testALongReconcile(t, "reconciler-live-migrate-"+place)
	}
}

func testALongReconcile(t *testing.T, place string) {
	const line = "Reconcile passed the long running threshold of 5s"
	watching(t, 3, func(b *bench, w *watch) {
		b.create(5, 1, neon.Attached(0))
		b.awaitIdle()
		elapse(10 * time.Second)
		if w.longs() != 0 || w.lines(line) != 0 {
			b.t.Fatal("short ones are told")
		}
		w.hold(place)
		migrate(b, first(b))
		elapse(4 * time.Second)
		if w.longs() != 0 {
			b.t.Error("told too early")
		}
		elapse(2 * time.Second)
		if w.longs() != 1 || w.lines(line) != 1 {
			b.t.Errorf("%d series and %d lines", w.longs(), w.lines(line))
		}
		w.hold("")
		elapse(time.Second)
		b.awaitIdle()
		if w.longs() != 0 {
			b.t.Error("its end was not told")
		}
		w.hold(place)
		migrate(b, first(b))
		elapse(6 * time.Second)
		b.depose()
		if w.longs() != 0 {
			b.t.Error("a series outlives its leader")
		}
		w.hold("")
		b.lead()
		b.awaitIdle()
		b.check()
	})
}

func TestWorkIsCancelledAndTakenUpAgain(t *testing.T) {
	places := []string{
		"reconciler-live-migrate-pre-generation-inc", "reconciler-live-migrate-post-generation-inc",
		"reconciler-live-migrate-pre-await-lsn", "reconciler-live-migrate-post-notify",
		"reconciler-live-migrate-post-detach",
	}
	for _, place := range places {
		watching(t, 3, func(b *bench, w *watch) {
			b.create(1, 1, neon.Attached(0))
			b.awaitIdle()
			id := first(b).ID
			tenant, _ := b.log.State().Tenant(id.Tenant)
			// it is to stay where it goes
			b.must(fsm.UpdateTenant{
				ID: tenant.ID, Sequence: tenant.Sequence, Scheduling: new(neon.ShardEssential),
			})
			if err := b.now.Cancel(context.Background(), id); err != nil {
				b.t.Errorf("with nothing to cancel: %v", err)
			}
			w.hold(place)
			to := migrate(b, first(b))
			elapse(time.Second)
			err := b.now.Cancel(context.Background(), id)
			if err == nil || err.Error() != "Reconcile error on shard "+id.String()+": Cancelled" {
				b.t.Errorf("%s: %v", place, err)
			}
			if w.ended["cancel"] != 1 {
				b.t.Errorf("%s: %v", place, w.ended)
			}
			if err := b.now.Cancel(context.Background(), id); err != nil {
				b.t.Errorf("%s: cancelled a second time: %v", place, err)
			}
			w.hold("")
			elapse(11 * time.Second)
			b.awaitIdle()
			b.check()
			if at := first(b).Attached; at != to {
				b.t.Errorf("%s: it went to %d, not %d", place, at, to)
			}
		})
	}
}

func TestCancelEndsACall(t *testing.T) {
	watching(t, 3, func(b *bench, w *watch) {
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.latency = 800 * time.Millisecond })
		migrate(b, first(b))
		elapse(300 * time.Millisecond)
		began := time.Now()
		if err := b.now.Cancel(context.Background(), first(b).ID); err == nil ||
			time.Since(began) > 100*time.Millisecond {
			b.t.Errorf("after %s: %v", time.Since(began), err)
		}
		b.fleet.set(func() { b.fleet.latency = time.Millisecond })
		elapse(11 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// While the origin of a live migration serves, compute must be told first: a client that
// waits goes on waiting, and the operator hears of it.
func TestAMigrationWaitsForComputeAsLongAsItsOriginServes(t *testing.T) {
	const blocked, gone = "Live migration blocked by compute notification error, retrying: busy", "Giving up on compute notification"
	watching(t, 3, func(b *bench, w *watch) {
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		sh := first(b)
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy") })
		to := migrate(b, sh)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := b.now.Await(ctx, b.log.State().Index, sh.ID); neon.CodeOf(err) != neon.Timeout {
			b.t.Errorf("who waits hears %v", err)
		}
		if w.lines(blocked) < 3 || w.lines(gone) != 0 {
			b.t.Errorf("told %d times, gave up %d times", w.lines(blocked), w.lines(gone))
		}
		if at := b.fleet.at[sh.Attached][sh.ID]; at.Mode != neon.AttachedStale {
			b.t.Errorf("the origin is %s", at.Mode)
		}
		b.fleet.set(func() { b.fleet.down[sh.Attached] = true })
		elapse(8 * time.Second)
		if w.lines(gone) != 1 || b.fleet.at[to][sh.ID].Mode != neon.AttachedSingle {
			b.t.Errorf("gave up %d times, the destination is %s", w.lines(gone),
				b.fleet.at[to][sh.ID].Mode)
		}
		b.fleet.set(func() { b.fleet.hookErr = nil; b.fleet.down[sh.Attached] = false })
		elapse(11 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// A leader that finds a shard attached beside an origin that it has not listed yet does
// not take it for one without: it tells compute first, like its predecessor.
func TestANewLeaderLooksForTheOriginOfAMigration(t *testing.T) {
	watching(t, 3, func(b *bench, w *watch) {
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		sh := first(b)
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy") })
		to := migrate(b, sh)
		elapse(5 * time.Second)
		b.depose()
		b.fleet.set(
			func() { b.fleet.lists = map[neon.NodeID]time.Duration{sh.Attached: 3 * time.Second} })
		b.lead()
		for range 100 {
			elapse(100 * time.Millisecond)
			b.fleet.set(func() {
				if mode := b.fleet.at[to][sh.ID].Mode; mode != neon.AttachedMulti {
					b.t.Errorf("it is %s beside its origin", mode)
				}
			})
		}
		b.fleet.set(func() { b.fleet.hookErr = nil })
		elapse(11 * time.Second)
		b.awaitIdle()
		b.check()
		// One whose origin is gone for good is not held up for long.
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy") })
		sh = first(b)
		to = migrate(b, sh)
		elapse(5 * time.Second)
		b.depose()
		b.fleet.set(func() { b.fleet.down[sh.Attached], b.fleet.lists = true, nil })
		b.lead()
		elapse(8 * time.Second)
		b.fleet.set(func() {
			if mode := b.fleet.at[to][sh.ID].Mode; mode != neon.AttachedSingle {
				b.t.Errorf("it is %s although its origin is gone", mode)
			}
			b.fleet.hookErr, b.fleet.down[sh.Attached] = nil, false
		})
		elapse(11 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// A leader that has to number a destination anew, as its predecessor died before the
// attachment, does not take the shard for one without an origin either.
func TestANewLeaderAttachesBesideAnOriginThatItHasNotListed(t *testing.T) {
	watching(t, 3, func(b *bench, w *watch) {
		b.log.Upgrade(b.t)
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		sh := first(b)
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy") })
		b.refusePuts(func(n neon.NodeID, _ neon.ShardID) bool { return n != sh.Attached })
		to := migrate(b, sh)
		elapse(5 * time.Second)
		b.depose()
		if now := first(b); now.GenNode != to || now.PriorNode != sh.Attached {
			b.t.Fatalf("its number was not issued: %+v", now)
		}
		takePuts(b, sh)
		b.fleet.set(
			func() { b.fleet.lists = map[neon.NodeID]time.Duration{sh.Attached: 3 * time.Second} })
		b.lead()
		for range 100 {
			elapse(100 * time.Millisecond)
			b.fleet.set(func() {
				if mode := b.fleet.at[to][sh.ID].Mode; mode == neon.AttachedSingle {
					b.t.Errorf("it is %s beside its origin", mode)
				}
			})
		}
		b.fleet.set(func() { b.fleet.hookErr = nil })
		elapse(11 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// A look over everything tries at once what is owed to compute, and a tenant that
// compute does not take is told to the operator.
func TestOwedNotificationsAreTriedOnDemandAndToldWhenStuck(t *testing.T) {
	watching(t, 3, func(b *bench, w *watch) {
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy") })
		b.create(1, 1, neon.Attached(0))
		elapse(time.Second)
		for range 12 {
			if n, err := b.now.ReconcileAll(context.Background()); n != 1 || err != nil {
				b.t.Fatalf("%d owed, %v", n, err)
			}
			if !b.now.Status(first(b).ID).PendingNotify {
				b.t.Error("nothing is owed")
			}
		}
		if n := w.lines(
			"background_reconcile: Shard reconciliation is stuck: 10 consecutive launches"); n != 1 {
			b.t.Errorf("told %d times", n)
		}
		b.fleet.set(func() { b.fleet.hookErr = nil })
		if _, err := b.now.ReconcileAll(context.Background()); err != nil ||
			b.now.Status(first(b).ID).PendingNotify {
			b.t.Errorf("still owed: %v", err)
		}
		b.awaitIdle()
		b.check()
	})
}

// A move may be given less time to warm its destination than usual; the next one has
// the usual time again.
func TestWarmLimitsAreForOneMove(t *testing.T) {
	watching(t, 3, func(b *bench, _ *watch) {
		b.create(1, 1, neon.Attached(0))
		b.awaitIdle()
		id := first(b).ID
		limits := func() [2]time.Duration {
			total, request := b.now.current.Load().limits.of(id)
			return [2]time.Duration{total, request}
		}
		usual := limits()
		b.now.LimitWarming(id, new(time.Second), nil)
		if l := limits(); l[0] != time.Second || l[1] != usual[1] {
			b.t.Errorf("%v, usually %v", l, usual)
		}
		migrate(b, first(b))
		b.awaitIdle()
		if l := limits(); l != usual {
			b.t.Errorf("after the move %v, usually %v", l, usual)
		}
	})
}

// An evacuation can be held before it numbers anything, and the nodes that come back
// meanwhile, with newer numbers, lose their attachments to those it chose.
func TestAnEvacuationHeldByATestRacesWithTheReturnOfTheNodes(t *testing.T) {
	watching(t, 4, func(b *bench, w *watch) {
		const active = "heartbeat-pre-node-state-configure"
		b.create(1, 2, neon.Attached(0))
		b.awaitIdle()
		var gone []neon.NodeID
		for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
			if !slices.Contains(gone, sh.Attached) {
				gone = append(gone, sh.Attached)
			}
		}
		w.hold(beforeIssue)
		b.fleet.set(func() {
			for _, n := range gone {
				b.fleet.down[n] = true
			}
		})
		elapse(b.opts.MaxOffline + 2*time.Second)
		if w.lines("going offline") != len(gone) || w.lines("at failpoint "+beforeIssue) < 2 {
			b.t.Fatalf("the evacuation is not held: %s", &w.log)
		}
		w.hold(beforeIssue, active)
		for _, n := range gone {
			r := b.must(fsm.ReAttach{Node: n})
			b.now.ReAttached(n)
			b.fleet.set(func() {
				b.fleet.down[n] = false
				for _, l := range r.ReAttached {
					b.fleet.at[n][l.Shard] = neon.LocationConfig{
						Mode: l.Mode, Generation: new(l.Generation), ShardNumber: l.Shard.Number,
						ShardCount: l.Shard.Count,
					}
				}
			})
		}
		before := w.lines("at failpoint " + epilogue)
		elapse(3 * time.Second)
		w.hold(epilogue, active)
		elapse(3 * time.Second)
		if w.lines("at failpoint "+epilogue) < before+2 {
			b.t.Fatalf("the evacuation did not go on: %s", &w.log)
		}
		w.hold(epilogue)
		elapse(3 * time.Second)
		if w.lines("transition to active") != len(gone) {
			b.t.Errorf("the nodes are not used: %s", &w.log)
		}
		w.hold()
		b.awaitIdle()
		b.check()
	})
}
