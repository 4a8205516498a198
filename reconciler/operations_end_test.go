package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
	"quorate/internal/wait"
	"quorate/reconciler/outbox"
)

// endless is something that keeps one shard from going where an operation wants it, for
// good.
type endless struct {
	name  string
	spoil func(b *bench, sh fsm.Shard)
	mend  func(b *bench, sh fsm.Shard)
	says  string // what the outcome says of it
	fills bool   // it keeps no fill from anything
}

func refuseCompute(err error) func(*bench, fsm.Shard) {
	return func(b *bench, sh fsm.Shard) {
		b.fleet.set(func() {
			b.fleet.hookErrOf = func(id neon.TenantID) error {
				if id == sh.ID.Tenant {
					return err
				}
				return nil
			}
		})
	}
}

func tellCompute(b *bench, _ fsm.Shard) { b.fleet.set(func() { b.fleet.hookErrOf = nil }) }

func (b *bench) refusePuts(refuses func(neon.NodeID, neon.ShardID) bool) {
	b.fleet.set(func() {
		b.fleet.onPut = func(n neon.NodeID, id neon.ShardID) error {
			if refuses(n, id) {
				return errRefused
			}
			return nil
		}
	})
}

func takePuts(b *bench, _ fsm.Shard) { b.fleet.set(func() { b.fleet.onPut = nil }) }

// other is a node on which a shard should have nothing.
func (b *bench) other(sh fsm.Shard) neon.NodeID {
	for n := range b.log.State().Nodes() {
		if !sh.Intends(n.ID) {
			return n.ID
		}
	}
	b.t.Fatal("there is no other node")
	return 0
}

func endlesses() []endless {
	return []endless{
		{
			"compute refuses for good",
			refuseCompute(&outbox.Refusal{Err: errors.New("403 Forbidden"), Never: true}),
			tellCompute, "403 Forbidden", false,
		},
		{
			"compute does not answer", refuseCompute(errors.New("no answer")), tellCompute,
			"no answer", false,
		},
		{
			"a node holds a number ahead",
			func(b *bench, sh fsm.Shard) {
				n, g := b.other(sh), sh.Generation+1000
				b.fleet.set(func() {
					if b.fleet.at[n] == nil {
						b.fleet.at[n] = map[neon.ShardID]neon.LocationConfig{}
					}
					b.fleet.at[n][sh.ID] = neon.LocationConfig{
						Mode: neon.AttachedSingle, Generation: &g,
					}
				})
				elapse(2 * time.Minute) // it is listed
			},
			func(b *bench, sh fsm.Shard) {
				b.fleet.set(func() { delete(b.fleet.at[b.other(sh)], sh.ID) })
				elapse(2 * time.Minute)
			},
			"newer than", false,
		},
		{
			"no other node takes it",
			func(b *bench, sh fsm.Shard) {
				b.refusePuts(func(n neon.NodeID, id neon.ShardID) bool {
					return id == sh.ID && n != sh.Attached
				})
			},
			takePuts, errRefused.Error(), false,
		},
		{
			"its node does not give it up",
			func(b *bench, sh fsm.Shard) {
				b.refusePuts(func(n neon.NodeID, id neon.ShardID) bool {
					return id == sh.ID && n == sh.Attached
				})
			},
			takePuts, errRefused.Error(), true,
		},
		{
			"its tenant is being split",
			func(b *bench, sh fsm.Shard) {
				tenant, _ := b.log.State().Tenant(sh.ID.Tenant)
				b.must(fsm.BeginSplit{
					Tenant: tenant.ID, Sequence: tenant.Sequence, Count: 2, Stripe: 2048,
					Parents: []fsm.SplitParent{{
						Shard: sh.ID, Node: sh.GenNode, Generation: sh.Generation,
					}},
				})
			},
			func(b *bench, sh fsm.Shard) {
				sp, _ := b.log.State().Split(sh.ID.Tenant)
				b.must(fsm.AbortSplit{Tenant: sh.ID.Tenant, Began: sp.Began})
				b.must(fsm.FinishAbortedSplit{Tenant: sh.ID.Tenant, Began: sp.Began})
			},
			"being split", true,
		},
		{
			"the log refuses its move",
			func(b *bench, sh fsm.Shard) {
				b.fleet.set(func() {
					b.refuses = func(in fsm.Intent) bool {
						return in.Shard == sh.ID && in.PreferredNode != 0
					}
				})
			},
			func(b *bench, _ fsm.Shard) { b.fleet.set(func() { b.refuses = nil }) },
			logRefuses, false,
		},
	}
}

// TestAnOperationEndsWhateverOneShardDoes: it says which one is left and why, and has
// done all the others.
func TestAnOperationEndsWhateverOneShardDoes(t *testing.T) {
	for _, kind := range []fsm.OperationKind{
		fsm.OperationDrain, fsm.OperationFill, fsm.OperationDelete,
	} {
		for _, x := range endlesses() {
			t.Run(fmt.Sprintf("%s, %s", kind, x.name), func(t *testing.T) {
				testEndless(t, kind, x)
			})
		}
	}
}

func testEndless(t *testing.T, kind fsm.OperationKind, x endless) {
	watching(t, 4, func(b *bench, w *watch) {
		for _, id := range b.create(24, 1, neon.Attached(1)) {
			b.pin(id) // or what was drained comes back by itself
		}
		b.awaitIdle()
		n := b.busiest()
		id := b.firstOn(n)
		if kind == fsm.OperationFill { // what was drained comes back
			b.begin(n, fsm.OperationDrain)
			b.ended()
			b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingActive})
			id = b.toFill(n)
		}
		sh, _ := b.log.State().Shard(id)
		x.spoil(b, sh)
		begun := time.Now()
		b.begin(n, kind)
		b.endedWithin(15 * time.Minute)
		line := w.last("background operation")
		if kind == fsm.OperationFill && x.fills {
			if !strings.Contains(line, "left=0") {
				b.t.Errorf("the outcome is %s", line)
			}
		} else if !strings.Contains(line, id.String()) || !strings.Contains(line, x.says) {
			b.t.Errorf("after %s the outcome is %s", time.Since(begun), line)
		}
		node, _ := b.log.State().Node(n)
		left := b.attachedOn(n)
		switch {
		case node.Tombstone, node.Scheduling == neon.SchedulingDeleting:
			b.t.Errorf("the node is %+v", node)
		case kind == fsm.OperationFill && left == 0, kind != fsm.OperationFill && left > 1:
			b.t.Errorf("%d are attached on node %d", left, n)
		}
		x.mend(b, sh)
		b.awaitIdle()
		b.check()
	})
}

// TestAnOperationNamesWhatItWaitsFor: also while it still waits.
func TestAnOperationNamesWhatItWaitsFor(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		b.create(24, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		id := b.firstOn(n)
		sh, _ := b.log.State().Shard(id)
		refuseCompute(errors.New("no answer"))(b, sh)
		b.begin(n, fsm.OperationDrain)
		elapse(10 * time.Second)
		want := decide.Hindered{Count: 1, Named: []decide.HinderedShard{{
			Shard: id, Why: "compute cannot be told: no answer",
		}}}
		if s := b.now.Operation(n); !reflect.DeepEqual(s.Waits, want) || s.Stays.Count != 0 {
			b.t.Errorf("the drain says %+v", s)
		}
		tellCompute(b, sh)
		b.endedWithin(time.Minute)
		if s := b.now.Operation(n); s.Waits.Count+s.Stays.Count != 0 {
			b.t.Errorf("afterwards it says %+v", s)
		}
		b.awaitIdle()
		b.check()
	})
}

// beginAt begins an operation as a client does now.
func (b *bench) beginAt(n neon.NodeID, kind fsm.OperationKind) (begun time.Time) {
	b.t.Helper()
	begun = time.Now()
	b.must(fsm.BeginNodeOperation{
		Node: n, Kind: kind, Prior: neon.SchedulingActive, At: begun.UnixMilli(),
	})
	return begun
}

// succeed has leaders follow each other until no operation is left, or for a limited time.
func (b *bench) succeed(each, limit time.Duration) {
	for begun := time.Now(); operating(b.log.State()) > 0 && time.Since(begun) < limit; {
		elapse(each)
		b.depose()
		b.lead()
	}
}

// TestAnOperationEndsHoweverOftenLeadersChange: an obstacle is timed by a leader, and none
// leads for long enough. How the operation ended is in the log.
func TestAnOperationEndsHoweverOftenLeadersChange(t *testing.T) {
	results := map[fsm.OperationKind]fsm.Ending{
		fsm.OperationDrain: fsm.Finished, fsm.OperationDelete: fsm.GaveUp,
	}
	for kind, result := range results {
		for _, x := range endlesses() {
			t.Run(fmt.Sprintf("%s, %s", kind, x.name), func(t *testing.T) {
				scenario(t, 4, func(b *bench) {
					b.create(24, 1, neon.Attached(1))
					b.awaitIdle()
					n := b.busiest()
					sh, _ := b.log.State().Shard(b.firstOn(n))
					x.spoil(b, sh)
					begun := b.beginAt(n, kind)
					b.succeed(20*time.Second, 2*time.Hour)
					o := howEnded(b, n, kind)
					if d := time.UnixMilli(o.EndedAt).Sub(begun); d > handedPatience+time.Minute {
						b.t.Errorf("it ended after %s", d)
					}
					if o.Ending != result || o.Left.Count != 1 || o.Attached > 1 || o.Total < 2 ||
						len(o.Left.Named) != 1 || o.Left.Named[0].Shard != sh.ID ||
						!strings.Contains(o.Left.Named[0].Why, x.says) {
						b.t.Errorf("it ended as %+v", o)
					}
				})
			})
		}
	}
}

// cold is a fleet whose secondaries lack nearly everything until a moment, and whose
// downloads are slow until then.
type cold struct {
	*fleet
	until func(neon.ShardID) time.Time
}

func (f cold) SecondaryDownload(
	ctx context.Context, node *fsm.Node, id neon.ShardID, atMost time.Duration,
) (bool, neon.SecondaryProgress, error) {
	done, p, err := f.fleet.SecondaryDownload(ctx, node, id, atMost)
	if err == nil && time.Now().Before(f.until(id)) {
		p.BytesDownloaded /= 10
		return false, p, wait.Sleep(ctx, atMost)
	}
	return done, p, err
}

func (f cold) SecondaryStatus(
	ctx context.Context, node *fsm.Node, id neon.ShardID,
) (neon.SecondaryProgress, error) {
	p, err := f.fleet.SecondaryStatus(ctx, node, id)
	if err == nil && time.Now().Before(f.until(id)) {
		p.BytesDownloaded /= 10
	}
	return p, err
}

// TestWhatTakesItsTimeIsWaitedForByAllLeaders: no leader lives for as long as the moves of a
// drain take, and nothing is in their way. They arrive. If they do not within half an hour
// the drain ends nevertheless.
func TestWhatTakesItsTimeIsWaitedForByAllLeaders(t *testing.T) {
	for _, tt := range []struct {
		cold, ends time.Duration
		arrives    bool
	}{
		{12 * time.Minute, 14 * time.Minute, true},
		{5 * time.Hour, movePatience + time.Minute, false},
	} {
		scenario(t, 4, func(b *bench) {
			for _, id := range b.create(24, 1, neon.Attached(1)) {
				b.pin(id)
			}
			b.awaitIdle()
			n := b.busiest()
			warm := time.Now().Add(tt.cold)
			b.migrations = cold{b.fleet, func(neon.ShardID) time.Time { return warm }}
			b.depose()
			b.lead()
			b.awaitIdle()
			begun := b.beginAt(n, fsm.OperationDrain)
			b.succeed(4*time.Second, 6*time.Hour)
			o := howEnded(b, n, fsm.OperationDrain)
			if d := time.UnixMilli(o.EndedAt).Sub(begun); d > tt.ends ||
				(o.Left.Count == 0) != tt.arrives {
				b.t.Errorf("cold for %s: it ended after %s as %+v", tt.cold, d, o)
			}
		})
	}
}

// TestAnOperationThatGetsOnGivesNothingUpSoon: leaders change, and what one finds in the way
// goes away soon. An operation that has got on a short time ago waits for it, though it was
// begun long ago.
func TestAnOperationThatGetsOnGivesNothingUpSoon(t *testing.T) {
	const each = 2 * time.Minute
	scenario(t, 4, func(b *bench) {
		b.create(24, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		were := b.attachedTo(n)
		slices.SortFunc(were, neon.ShardID.Compare)
		begun := time.Now()
		b.depose()
		b.opts.OperationMoves = 1
		b.migrations = cold{b.fleet, func(id neon.ShardID) time.Time { // one after another
			return begun.Add(time.Duration(slices.Index(were, id)+1) * each)
		}}
		b.lead()
		b.awaitIdle()
		b.beginAt(n, fsm.OperationDrain)
		b.succeed(4*time.Second, time.Duration(len(were))*each-each/2)
		if len(were) < 5 || b.attachedOn(n) != 1 {
			t.Fatalf("of %d there are %d left", len(were), b.attachedOn(n))
		}
		b.fleet.set(func() {
			b.fleet.stalls = map[neon.NodeID]call{
				1: callWarm, 2: callWarm, 3: callWarm, 4: callWarm,
			}
		})
		elapse(20 * time.Second)
		b.fleet.set(func() { b.fleet.stalls = nil })
		b.succeed(time.Minute, 10*time.Minute)
		if o := howEnded(b, n, fsm.OperationDrain); o.Left.Count != 0 {
			t.Errorf("it ended as %+v", o)
		}
	})
}

func sequenceOf(b *bench, id neon.TenantID) uint64 {
	tenant, _ := b.log.State().Tenant(id)
	return tenant.Sequence
}

func howEnded(b *bench, n neon.NodeID, kind fsm.OperationKind) fsm.Outcome {
	b.t.Helper()
	for o := range b.log.State().Outcomes() {
		if o.Node == n && o.Kind == kind {
			return o
		}
	}
	b.t.Fatalf("no %s of node %d has ended", kind, n)
	return fsm.Outcome{}
}

// TestADeletedNodeLeavesWordOfWhatLostItsPlace.
func TestADeletedNodeLeavesWordOfWhatLostItsPlace(t *testing.T) {
	for _, force := range []bool{false, true} {
		scenario(t, 3, func(b *bench) {
			b.log.Upgrade(b.t)
			ids := b.create(6, 1, neon.Attached(1))
			b.awaitIdle()
			n := b.busiest()
			id := b.firstOn(n)
			b.must(fsm.UpdateTenant{
				ID: id.Tenant, Sequence: sequenceOf(b, id.Tenant),
				Scheduling: new(neon.ShardStop),
			})
			b.must(fsm.BeginNodeOperation{
				Node: n, Kind: fsm.OperationDelete, Prior: neon.SchedulingActive, Force: force,
				At: time.Now().UnixMilli(),
			})
			b.endedWithin(5 * time.Minute)
			o := howEnded(b, n, fsm.OperationDelete)
			if node, _ := b.log.State().Node(n); !node.Tombstone || o.Ending != fsm.Finished ||
				o.Force != force || o.Left.Count != 1 || o.Left.Named[0].Shard != id ||
				!strings.Contains(o.Left.Named[0].Why, "Stop") {
				b.t.Errorf("of %d tenants, force %v: it ended as %+v", len(ids), force, o)
			}
		})
	}
}

// last is the last line with a text.
func (w *watch) last(text string) (line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range strings.Lines(w.log.String()) {
		if strings.Contains(l, text) {
			line = l
		}
	}
	return line
}

// stubborn is a log that refuses some intents, as if the shard had changed each time.
type stubborn struct {
	*fsmtest.Log
	b *bench
}

func (l stubborn) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	in, ok := c.(fsm.SetIntents)
	l.b.fleet.mu.Lock()
	refuses := l.b.refuses
	l.b.fleet.mu.Unlock()
	if ok && refuses != nil {
		in.Intents = slices.Clone(in.Intents)
		for i := range in.Intents {
			if refuses(in.Intents[i]) {
				in.Intents[i].Sequence++
			}
		}
		c = in
	}
	return l.Log.Propose(ctx, id, c)
}

// toFill is a shard that a fill of a node would bring.
func (b *bench) toFill(n neon.NodeID) neon.ShardID {
	o := b.now.current.Load().operations
	op := newOperation(&fsm.Node{ID: n, Operation: fsm.Operation{Kind: fsm.OperationFill}})
	o.begin(b.log.State(), op)
	if len(op.plan) < 2 {
		b.t.Fatalf("a fill would bring %d shards", len(op.plan))
	}
	return op.plan[0]
}

// endedWithin waits, in virtual time, until no operation is left.
func (b *bench) endedWithin(long time.Duration) {
	b.t.Helper()
	for began := time.Now(); operating(b.log.State()) > 0; elapse(time.Second) {
		if time.Since(began) > long {
			b.t.Errorf("an operation does not end within %s", long)
			return
		}
	}
}

// An operation ends, however much a pageserver says about why it refuses something. An answer
// may have 1 MiB, and nothing of it is cut off on the way to the entry.
func TestAnOperationEndsHoweverLongTheReasonsAre(t *testing.T) {
	log := fsmtest.NewLog()
	log.Upgrade(t)
	log.Must(t, fsm.RegisterNode{ID: 1, Addr: fsm.NodeAddr{HTTPHost: "h", HTTPPort: 1}})
	log.Must(t, fsm.BeginNodeOperation{
		Node: 1, Kind: fsm.OperationDrain, Prior: neon.SchedulingActive, At: 1,
	})
	n, _ := log.State().Node(1)
	o := &operations{
		ctx: t.Context(), log: log, logger: slog.New(slog.DiscardHandler),
		running: make(map[neon.NodeID]*operation),
		status:  make(map[neon.NodeID]decide.OperationStatus),
	}
	why := make(map[neon.ShardID]string)
	for i := range 16 {
		why[neon.Unsharded(neon.TenantID{byte(i + 1)})] = strings.Repeat("x", 80<<10)
	}
	o.end(newOperation(&n), fsm.Finished, why)
	if operating(log.State()) > 0 {
		t.Error("it does not end")
	}
}

// A tenant is stopped while its secondary is taken away from a node that is deleted. What is
// left of it stays, and the deletion ends nevertheless.
func TestADeletionEndsBesideATenantThatIsStopped(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		n := sh.Secondary[0]
		b.refusePuts(func(on neon.NodeID, _ neon.ShardID) bool { return on == n })
		b.begin(n, fsm.OperationDelete)
		elapse(3 * time.Second)
		if now, _ := b.log.State().Shard(id); now.Intends(n) {
			t.Fatalf("the secondary is still wanted: %+v", now)
		}
		b.schedule(id.Tenant, neon.ShardStop)
		b.endedWithin(time.Minute)
	})
}

// TestADeletionWaitsForWhatTheNodeRemoves: the process goes on with the remote data of a
// tenant, and only its answer tells when it ends. What is waited for is named, and a
// deletion that has waited for long gives up. Only a forced one does not wait.
func TestADeletionWaitsForWhatTheNodeRemoves(t *testing.T) {
	for name, x := range map[string]struct {
		force, ends bool
		ending      fsm.Ending
	}{
		"it ends": {ends: true}, "it does not end": {ending: fsm.GaveUp}, "by force": {force: true},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 4, func(b *bench) {
				ids := b.create(24, 1, neon.Attached(1))
				b.awaitIdle()
				n := b.busiest()
				b.must(fsm.BeginDeleteTenant{ID: ids[0]})
				tenant, _ := b.log.State().Tenant(ids[0])
				note := fsm.NoteRemover{ID: tenant.ID, Sequence: tenant.Sequence, Node: n}
				note.Term = b.log.State().Leader.Term
				b.must(note)
				begun := time.Now()
				b.must(fsm.BeginNodeOperation{
					Node: n, Kind: fsm.OperationDelete, Prior: neon.SchedulingActive,
					At: begun.UnixMilli(), Force: x.force,
				})
				elapse(10 * time.Minute)
				node, _ := b.log.State().Node(n)
				waits := b.now.Operation(n).Waits
				if node.Tombstone != x.force {
					b.t.Errorf("after 10 minutes the node is %+v", node)
				} else if !x.force && (b.attachedOn(n) != 0 || waits.Count != 1 ||
					waits.Named[0] != decide.HinderedShard{
						Shard: tenant.Shards()[0], Why: removesData,
					}) {
					b.t.Errorf("%d are attached, and it waits for %+v", b.attachedOn(n), waits)
				}
				if x.ends {
					b.must(fsm.FinishDeleteTenant{ID: tenant.ID})
				}
				b.endedWithin(time.Hour)
				o := howEnded(b, n, fsm.OperationDelete)
				if o.Ending != x.ending || (o.Left.Count > 0) != (x.ending == fsm.GaveUp) {
					b.t.Errorf("it ended as %+v", o)
				}
			})
		})
	}
}
