package controller

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

func (w *world) schedule(id neon.NodeID, to neon.NodeScheduling) {
	w.t.Helper()
	w.log.Must(fsm.SetNodeScheduling{Node: id, Scheduling: to})
}

func (w *world) verdict(id neon.NodeID, to neon.NodeAvailability) {
	w.t.Helper()
	w.log.Must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: id, To: to}}})
}

func (w *world) begin(id neon.NodeID, kind fsm.OperationKind) {
	w.t.Helper()
	w.log.Must(fsm.BeginNodeOperation{Node: id, Kind: kind, Prior: w.node(id).Scheduling})
}

// An operation is a record of the node, with the policy to return to.
func TestOperationsAreRecordedWithThePolicyToReturnTo(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(*Operations, context.Context, Order) error
		kind  fsm.OperationKind
		now   neon.NodeScheduling
		prior neon.NodeScheduling
		force Force
	}{
		{"drain", (*Operations).Drain, fsm.OperationDrain, neon.SchedulingDraining,
			neon.SchedulingActive, Gracefully},
		{"fill", (*Operations).Fill, fsm.OperationFill, neon.SchedulingFilling,
			neon.SchedulingActive, Gracefully},
		{"delete", (*Operations).Delete, fsm.OperationDelete, neon.SchedulingDeleting,
			neon.SchedulingPause, Gracefully},
		{"delete by force", (*Operations).Delete, fsm.OperationDelete, neon.SchedulingDeleting,
			neon.SchedulingActive, ByForce},
	} {
		w := newWorld(t, 2)
		w.tenant(tenantOne, 2)
		w.schedule(1, c.prior)
		hinders := decide.OperationStatus{Stays: decide.Hindered{
			Count: 1, Named: []decide.HinderedShard{{Why: "compute is deaf"}},
		}}
		w.reality.operations = map[neon.NodeID]decide.OperationStatus{1: hinders}
		o := NewOperations(w.Deps)
		if err := c.begin(o, t.Context(), Order{Node: 1, Force: c.force}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		n := w.node(1)
		if op := n.Operation; op.Kind != c.kind || op.Prior != c.prior || op.Total != 1 ||
			op.Force != (c.force == ByForce) || n.Scheduling != c.now {
			t.Errorf("%s: node is %s with %+v", c.name, n.Scheduling, op)
		}
		all, err := o.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []Progress{{
			Node: 1, Kind: c.kind, Force: c.force == ByForce, Total: 1, Attached: 1, Shards: 1,
			OperationStatus: hinders,
		}}
		if !reflect.DeepEqual(all, want) {
			t.Errorf("%s: %+v, want %+v", c.name, all, want)
		}
		if err := o.Cancel(t.Context(), 1, c.kind); err != nil {
			t.Errorf("%s: cancel: %v", c.name, err)
		}
		if n := w.node(1); n.Scheduling != c.prior || n.Operation.Kind != fsm.OperationNone {
			t.Errorf("%s: after the cancellation the node is %+v", c.name, n)
		}
		if all, err := o.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%s: still listed: %v, %v", c.name, all, err)
		}
	}
}

func TestOperationsAreRefusedWithoutATrace(t *testing.T) {
	pause := func(ids ...neon.NodeID) func(*world) {
		return func(w *world) {
			for _, id := range ids {
				w.schedule(id, neon.SchedulingPause)
			}
		}
	}
	offline := func(w *world) { w.verdict(1, neon.NodeOffline) }
	running := func(kind fsm.OperationKind) func(*world) {
		return func(w *world) { w.begin(1, kind) }
	}
	tombstone := func(w *world) { w.log.Must(fsm.DeleteNode{Node: 1}) }
	drain, fill, remove := (*Operations).Drain, (*Operations).Fill, (*Operations).Delete
	type begin = func(*Operations, context.Context, Order) error
	both := Order{Node: 1, Others: Concurrently}
	for name, c := range map[string]struct {
		nodes int
		given func(*world)
		begin begin
		order Order
		code  neon.Code
		text  string
	}{
		"drain of an unknown node": {
			1, nil, drain, Order{Node: 9}, neon.NotFound, "Node 9 not registered",
		},
		"drain of a tombstone": {
			2, tombstone, drain, Order{Node: 1}, neon.NotFound, "Node 1 not registered",
		},
		"drain of an offline node": {
			2, offline, drain, Order{Node: 1}, neon.Unavailable, "Node 1 is currently unavailable",
		},
		"drain without another node": {
			2, pause(1, 2), drain, Order{Node: 1}, neon.PreconditionFailed,
			"No other schedulable nodes to drain to",
		},
		"drain of a paused node": {
			2, pause(1), drain, Order{Node: 1}, neon.PreconditionFailed,
			"Node 1 cannot be drained due to Pause policy",
		},
		"drain of a node with the policy of a drain": {
			2, func(w *world) { w.schedule(1, neon.SchedulingDraining) }, drain, Order{Node: 1},
			neon.Conflict, "Node 1 has drain in progress",
		},
		"drain during a drain": {
			2, running(fsm.OperationDrain), drain, both, neon.PreconditionFailed,
			"Background operation already ongoing for node: drain 1",
		},
		"drain during an operation on another node": {
			2, running(fsm.OperationFill), drain, Order{Node: 2}, neon.PreconditionFailed,
			"Background operation already ongoing for node: fill 1",
		},
		"fill of an offline node": {
			2, offline, fill, Order{Node: 1}, neon.Unavailable, "Node 1 is currently unavailable",
		},
		"fill of the only node": {
			1, nil, fill, Order{Node: 1}, neon.PreconditionFailed, "No other nodes to fill from",
		},
		"fill of a node with the policy of a fill": {
			2, func(w *world) { w.schedule(1, neon.SchedulingFilling) }, fill, Order{Node: 1},
			neon.Conflict, "Node 1 has fill in progress",
		},
		"fill of a paused node": {
			2, pause(1), fill, Order{Node: 1}, neon.PreconditionFailed,
			"Node 1 cannot be filled due to Pause policy",
		},
		"delete of an unknown node": {
			1, nil, remove, Order{Node: 9}, neon.NotFound, "Node 9 not registered",
		},
		"delete without another node": {
			1, pause(1), remove, Order{Node: 1}, neon.PreconditionFailed,
			"No other schedulable nodes to move shards",
		},
		"delete of a node with the policy of a deletion": {
			2, func(w *world) { w.schedule(1, neon.SchedulingDeleting) }, remove, Order{Node: 1},
			neon.Conflict, "Node 1 has delete in progress",
		},
		"delete of a node that waits for its restart": {
			2, func(w *world) { w.schedule(1, neon.SchedulingPauseForRestart) }, remove,
			Order{Node: 1}, neon.PreconditionFailed,
			"Node 1 cannot be deleted due to PauseForRestart policy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.nodes)
			if c.given != nil {
				c.given(w)
			}
			o := NewOperations(w.Deps)
			w.refuses(c.code, c.text, func(ctx context.Context) error {
				return c.begin(o, ctx, c.order)
			})
		})
	}
}

// A client that expects other operations shares the budget of moves with them.
func TestOperationsRunConcurrentlyForClientsThatExpectThat(t *testing.T) {
	w := newWorld(t, 3)
	w.begin(1, fsm.OperationDrain)
	o := NewOperations(w.Deps)
	if err := o.Fill(t.Context(), Order{Node: 2, Others: Concurrently}); err != nil {
		t.Fatal(err)
	}
	all, err := o.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Kind != fsm.OperationDrain ||
		all[1].Kind != fsm.OperationFill {
		t.Errorf("%+v, %v", all, err)
	}
}

// The answer to the first try was lost. The second one must not hear that an operation is
// under way: it is its own.
func TestARepeatedOrderFindsItsOwnOperation(t *testing.T) {
	w := newWorld(t, 2)
	w.log.Upgrade(t)
	o := NewOperations(w.Deps)
	order := func() context.Context { return decide.WithRequest(t.Context(), [32]byte{1}) }
	cancel := func() context.Context { return decide.WithRequest(t.Context(), [32]byte{3}) }
	lost := neon.Errorf(neon.OutcomeUnknown, "lost")
	w.log.After = func(fsm.Command) error { return lost }
	if err := o.Drain(order(), Order{Node: 1}); neon.CodeOf(err) != neon.OutcomeUnknown {
		t.Fatal(err)
	}
	w.log.After = nil
	begun := w.node(1).Operation.Begun
	if err := o.Drain(order(), Order{Node: 1}); err != nil || w.node(1).Operation.Begun != begun {
		t.Errorf("%v, begun at %d and %d", err, begun, w.node(1).Operation.Begun)
	}
	w.refuses(neon.PreconditionFailed, "already ongoing", func(context.Context) error {
		return o.Drain(decide.WithRequest(t.Context(), [32]byte{2}), Order{Node: 1})
	})
	w.log.After = func(fsm.Command) error { return lost }
	if err := o.Cancel(cancel(), 1, fsm.OperationDrain); neon.CodeOf(err) != neon.OutcomeUnknown {
		t.Fatal(err)
	}
	w.log.After = nil
	w.begin(1, fsm.OperationFill) // another client was faster than the second try
	proposed := len(w.log.Proposed())
	if err := o.Cancel(cancel(), 1, fsm.OperationDrain); err != nil {
		t.Errorf("a repeated cancellation: %v", err)
	}
	if w.node(1).Operation.Kind != fsm.OperationFill || len(w.log.Proposed()) != proposed {
		t.Errorf("the fill was cancelled in place of the drain: %+v", w.node(1))
	}
}

func TestCancellationsAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 3)
	w.begin(1, fsm.OperationDrain)
	w.begin(2, fsm.OperationDelete)
	w.begin(3, fsm.OperationFill)
	w.verdict(2, neon.NodeOffline)
	w.verdict(3, neon.NodeOffline)
	o := NewOperations(w.Deps)
	for _, c := range []struct {
		node neon.NodeID
		kind fsm.OperationKind
		code neon.Code
		text string
	}{
		{9, fsm.OperationDrain, neon.NotFound, "Node 9 not registered"},
		{1, fsm.OperationFill, neon.PreconditionFailed, "Node 1 has no fill in progress"},
		{3, fsm.OperationFill, neon.Unavailable, "Node 3 is currently unavailable"},
		{3, fsm.OperationDelete, neon.PreconditionFailed, "Node 3 has no delete in progress"},
	} {
		w.refuses(c.code, c.text, func(ctx context.Context) error {
			return o.Cancel(ctx, c.node, c.kind)
		})
	}
	// The deletion of a node that is dead can be cancelled nevertheless.
	if err := o.Cancel(t.Context(), 2, fsm.OperationDelete); err != nil {
		t.Error(err)
	}
	if n := w.node(2); n.Operation.Kind != fsm.OperationNone ||
		n.Scheduling != neon.SchedulingActive {
		t.Errorf("node is %+v", n)
	}
}

func TestDeleteNowWaitsForTheTombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.tenant(tenantOne, 1)
		o := NewOperations(w.Deps)
		time.AfterFunc(5*time.Second, func() {
			w.log.Must(fsm.DeleteNode{Node: 1, Begun: w.node(1).Operation.Begun})
		})
		begun := time.Now()
		if err := o.DeleteNow(t.Context(), 1); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("it was answered after %s", took)
		}
		if n := w.node(1); !n.Tombstone {
			t.Errorf("node is %+v", n)
		}
		proposed := len(w.log.Proposed())
		for _, gone := range []neon.NodeID{1, 9} {
			if err := o.DeleteNow(t.Context(), gone); err != nil {
				t.Errorf("node %d: %v", gone, err)
			}
		}
		if len(w.log.Proposed()) != proposed {
			t.Errorf("proposed %v", w.log.Proposed()[proposed:])
		}
	})
}

func TestDeleteNowEndsWhenItsDeletionDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		after func(*world)
		code  neon.Code
		text  string
		took  time.Duration
	}{
		"the leader is slow": {
			func(*world) {}, neon.Timeout, "Timeout waiting for the deletion of node 1",
			decide.LongWait,
		},
		"it is cancelled": {
			func(w *world) {
				w.log.Must(fsm.EndNodeOperation{
					Node: 1, Begun: w.node(1).Operation.Begun, Ending: fsm.Cancelled,
				})
			}, neon.Conflict, "the deletion of node 1 was ended by another request", time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				time.AfterFunc(time.Second, func() { c.after(w) })
				begun := time.Now()
				w.fails(c.code, c.text, func(ctx context.Context) error {
					return NewOperations(w.Deps).DeleteNow(ctx, 1)
				})
				if took := time.Since(begun); took != c.took {
					t.Errorf("it was answered after %s", took)
				}
				if n := w.node(1); n.Tombstone {
					t.Error("the node is a tombstone")
				}
			})
		})
	}
}

// A node whose shards have no other place keeps them.
func TestDeleteNowIsRefusedWhenShardsHaveNoPlace(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.refuses(neon.Conflict, "", func(ctx context.Context) error {
		return NewOperations(w.Deps).DeleteNow(ctx, 1)
	})
}

// A forced deletion replaces whatever else is done about the node.
func TestDeleteNowReplacesAnotherOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.begin(1, fsm.OperationDrain)
		w.fails(neon.Timeout, "node 1", func(ctx context.Context) error {
			return NewOperations(w.Deps).DeleteNow(ctx, 1)
		})
		if op := w.node(1).Operation; op.Kind != fsm.OperationDelete || !op.Force ||
			op.Prior != neon.SchedulingActive {
			t.Errorf("operation is %+v", op)
		}
	})
}

// The id of a deleted node is free only after its tombstone is forgotten.
func TestTombstonesKeepTheIDUntilTheyAreForgotten(t *testing.T) {
	w := newWorld(t, 2)
	shard := w.tenant(tenantOne, 1)[0]
	o, nodes := NewOperations(w.Deps), NewNodes(w.Deps)
	w.fails(neon.Internal, "Node 9 not found for update", func(ctx context.Context) error {
		return o.Drop(ctx, 9)
	})
	for range 2 { // dropping twice is the same as once
		if err := o.Drop(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.log.Proposed()); n != 1 {
		t.Errorf("%d proposals", n)
	}
	if sh := w.shard(shard); sh.Attached != 0 || sh.GenNode != 1 {
		t.Errorf("shard is %+v", sh)
	}
	all, err := o.Tombstones(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != 1 || all[0].HTTPAddr != "ps" {
		t.Errorf("%+v, %v", all, err)
	}
	w.fails(neon.Conflict, "Node 1", func(ctx context.Context) error {
		return nodes.Register(ctx, register(1))
	})
	w.refuses(neon.NotFound, "Node 1 not registered", func(ctx context.Context) error {
		return nodes.Configure(ctx, neon.NodeConfigure{ID: 1}, Exclusively)
	})
	w.refuses(neon.Conflict, "Node 2 is in use, consider using tombstone API first",
		func(ctx context.Context) error { return o.ForgetTombstone(ctx, 2) })
	for _, id := range []neon.NodeID{1, 1, 9} {
		if err := o.ForgetTombstone(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if all, err := o.Tombstones(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	// The number stays, its owner does not: a new node of that id never has it.
	if sh := w.shard(shard); sh.GenNode != 0 || sh.Generation != 1 {
		t.Errorf("shard is %+v", sh)
	}
	if err := nodes.Register(t.Context(), register(1)); err != nil {
		t.Error(err)
	}
}

func TestReadsOfOperationsNeedALinearizableRead(t *testing.T) {
	w := newWorld(t, 2)
	o := NewOperations(w.Deps)
	w.unreadable(map[string]func(context.Context) error{
		"list":       func(ctx context.Context) error { _, err := o.List(ctx); return err },
		"tombstones": func(ctx context.Context) error { _, err := o.Tombstones(ctx); return err },
		"delete":     func(ctx context.Context) error { return o.DeleteNow(ctx, 9) },
		"drain":      func(ctx context.Context) error { return o.Drain(ctx, Order{Node: 9}) },
	})
}
