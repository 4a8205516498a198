package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/scheduler"
)

// Operations begins, cancels and describes the long operations on nodes. Every leader
// works on them. The whole cluster runs one at a time, unless the client says that it
// expects others.
type Operations struct{ Deps }

// NewOperations makes an Operations.
func NewOperations(d Deps) *Operations { return &Operations{d} }

// Force says whether a deletion waits for the node.
type Force uint8

// The values of Force.
const (
	Gracefully Force = iota // everything leaves the node first
	ByForce                 // the node is not waited for
)

// Others says whether a client expects operations on other nodes.
type Others uint8

// The values of Others.
const (
	Exclusively  Others = iota // refuse while there is any
	Concurrently               // share the budget of moves with them
)

// Order is the order for one operation.
type Order struct {
	Node   neon.NodeID
	Others Others
	Force  Force // of a deletion
}

func (o Order) command(kind fsm.OperationKind) fsm.BeginNodeOperation {
	return fsm.BeginNodeOperation{
		Node: o.Node, Kind: kind, Force: o.Force == ByForce, Exclusive: o.Others == Exclusively,
	}
}

// Drain begins to move what is attached on a node away.
func (o *Operations) Drain(ctx context.Context, order Order) error {
	id := order.Node
	return o.begin(ctx, order.command(fsm.OperationDrain), func(s *fsm.State, n *fsm.Node) error {
		switch {
		case !n.Available():
			return unavailable(id)
		case !schedulable(s):
			return neon.Errorf(neon.PreconditionFailed, "No other schedulable nodes to drain to")
		case n.Scheduling == neon.SchedulingDraining:
			return neon.Errorf(neon.Conflict, "Node %d has drain in progress", id)
		case n.Scheduling != neon.SchedulingActive:
			return neon.Errorf(neon.PreconditionFailed,
				"Node %d cannot be drained due to %s policy", id, n.Scheduling)
		}
		return nil
	})
}

// Fill begins to bring attached shards to a node.
func (o *Operations) Fill(ctx context.Context, order Order) error {
	id := order.Node
	return o.begin(ctx, order.command(fsm.OperationFill), func(s *fsm.State, n *fsm.Node) error {
		total := 0
		for range s.Nodes() {
			total++
		}
		switch {
		case !n.Available():
			return unavailable(id)
		case total <= 1:
			return neon.Errorf(neon.PreconditionFailed, "No other nodes to fill from")
		case n.Scheduling == neon.SchedulingFilling:
			return neon.Errorf(neon.Conflict, "Node %d has fill in progress", id)
		case n.Scheduling != neon.SchedulingActive:
			return neon.Errorf(neon.PreconditionFailed, "Node %d cannot be filled due to %s policy",
				id, n.Scheduling)
		}
		return nil
	})
}

// Delete begins to move everything away from a node, which then becomes a tombstone.
func (o *Operations) Delete(ctx context.Context, order Order) error {
	id := order.Node
	return o.begin(ctx, order.command(fsm.OperationDelete), func(s *fsm.State, n *fsm.Node) error {
		switch {
		case !schedulable(s):
			return neon.Errorf(neon.PreconditionFailed, "No other schedulable nodes to move shards")
		case n.Scheduling == neon.SchedulingDeleting:
			return neon.Errorf(neon.Conflict, "Node %d has delete in progress", id)
		case n.Scheduling != neon.SchedulingActive && n.Scheduling != neon.SchedulingPause:
			return neon.Errorf(neon.PreconditionFailed,
				"Node %d cannot be deleted due to %s policy", id, n.Scheduling)
		}
		return nil
	})
}

func unavailable(id neon.NodeID) error {
	return neon.Errorf(neon.Unavailable, "Node %d is currently unavailable", id)
}

func schedulable(s *fsm.State) bool {
	for n := range s.Nodes() {
		if n.Schedulable() {
			return true
		}
	}
	return false
}

// ongoing describes the operation that forbids a change of a node: its own, or that of any
// node if the client expects none.
func ongoing(s *fsm.State, id neon.NodeID, others Others) (string, bool) {
	n, runs := s.Operating()
	if others == Concurrently {
		n, _ = s.Node(id)
		runs = n.Operation.Kind != fsm.OperationNone
	}
	return fmt.Sprintf("%s %d", n.Operation.Kind, n.ID), runs
}

// begin commits the beginning of an operation, unless another operation forbids it or
// allow returns an error.
func (o *Operations) begin(
	ctx context.Context, c fsm.BeginNodeOperation, allow func(*fsm.State, *fsm.Node) error,
) error {
	others := Concurrently
	if c.Exclusive {
		others = Exclusively
	}
	_, err := decide.Commit(ctx, o.Log, func(s *fsm.State) (fsm.Command, error) {
		n, ok := s.Node(c.Node)
		if !ok || n.Tombstone {
			return nil, notRegistered(c.Node)
		}
		if what, runs := ongoing(s, c.Node, others); runs {
			return nil, neon.Errorf(neon.PreconditionFailed,
				"Background operation already ongoing for node: %s", what)
		}
		if err := allow(s, &n); err != nil {
			return nil, err
		}
		c.Prior, c.At = n.Scheduling, timeOf(s)
		return c, nil
	})
	return err
}

// timeOf is the time for what is recorded about an operation, as far as a state records it.
func timeOf(s *fsm.State) int64 {
	if s.KeepsOutcomes() {
		return time.Now().UnixMilli()
	}
	return 0
}

// Cancel ends the operation of that kind on a node. The node gets back the policy that it
// had before. Moves that have not reached their cut-over are cancelled.
func (o *Operations) Cancel(ctx context.Context, id neon.NodeID, kind fsm.OperationKind) error {
	_, err := decide.Commit(ctx, o.Log, func(s *fsm.State) (fsm.Command, error) {
		n, ok := s.Node(id)
		if !ok || n.Tombstone {
			return nil, notRegistered(id)
		}
		if kind != fsm.OperationDelete && !n.Available() {
			return nil, unavailable(id)
		}
		c := fsm.EndNodeOperation{
			Node: id, Begun: n.Operation.Begun, Ending: fsm.Cancelled, At: timeOf(s),
		}
		if n.Operation.Kind == kind {
			return c, nil
		}
		return nil, neon.Errorf(neon.PreconditionFailed, "Node %d has no %s in progress", id, kind)
	})
	if err == nil {
		o.Logger.Info("Cancelling background "+kind.String()+" operation", "node", id)
	}
	return err
}

// DeleteNow gives every shard of a node another place, does not wait for the shards to
// get there, and makes the node a tombstone. It is refused as a Conflict when there is no
// place for a shard. A node that is not known was deleted already.
func (o *Operations) DeleteNow(ctx context.Context, id neon.NodeID) error {
	_, err := decide.Commit(ctx, o.Log, func(s *fsm.State) (fsm.Command, error) {
		n, ok := s.Node(id)
		if !ok || n.Tombstone || n.Operation.Kind == fsm.OperationDelete && n.Operation.Force {
			return nil, nil
		}
		if err := scheduler.New(s, o.Reality.Loads()).MayLose(id); err != nil {
			return nil, err
		}
		return fsm.BeginNodeOperation{
			Node: id, Kind: fsm.OperationDelete, Force: true, Prior: n.Scheduling, At: timeOf(s),
		}, nil
	})
	if err != nil {
		return err
	}
	return o.awaitTombstone(ctx, id)
}

func (o *Operations) awaitTombstone(ctx context.Context, id neon.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, decide.LongWait)
	defer cancel()
	for {
		changed := o.Log.Changed()
		n, ok := o.Log.State().Node(id)
		if !ok || n.Tombstone {
			return nil
		}
		if n.Operation.Kind != fsm.OperationDelete {
			return neon.Errorf(neon.Conflict,
				"the deletion of node %d was ended by another request", id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return neon.Errorf(neon.Timeout, "Timeout waiting for the deletion of node %d", id)
		}
	}
}

// Drop makes a node a tombstone at once. Nothing is moved before. It is refused while the node
// removes a tenant's data: only a deletion by force says that its process is dead.
func (o *Operations) Drop(ctx context.Context, id neon.NodeID) error {
	_, err := decide.Commit(ctx, o.Log, func(s *fsm.State) (fsm.Command, error) {
		n, ok := s.Node(id)
		switch {
		case !ok:
			return nil, neon.Errorf(neon.Internal, "Node %d not found for update", id)
		case n.Tombstone:
			return nil, nil
		}
		return fsm.DeleteNode{Node: id, At: timeOf(s)}, nil
	})
	return err
}

// Tombstones describes the deleted nodes by id, from a linearizable read.
func (o *Operations) Tombstones(ctx context.Context) ([]neon.NodeDescribe, error) {
	s, err := o.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	all := []neon.NodeDescribe{}
	for node := range s.Tombstones() {
		all = append(all, describeRecord(node))
	}
	return all, nil
}

// ForgetTombstone lets the id of a deleted node register again.
func (o *Operations) ForgetTombstone(ctx context.Context, id neon.NodeID) error {
	_, err := decide.Commit(ctx, o.Log, func(s *fsm.State) (fsm.Command, error) {
		n, ok := s.Node(id)
		switch {
		case !ok:
			return nil, nil
		case !n.Tombstone:
			return nil, neon.Errorf(neon.Conflict,
				"Node %d is in use, consider using tombstone API first", id)
		}
		return fsm.ForgetTombstone{Node: id}, nil
	})
	return err
}

// Progress describes an operation that runs.
type Progress struct {
	Node     neon.NodeID
	Kind     fsm.OperationKind
	Force    bool
	Total    int // attached shards on the node when it was begun
	Attached int // and now
	Shards   int // locations of either kind now

	decide.OperationStatus
}

// List describes every operation that runs, by node, from a linearizable read and from
// what the leader knows beside it.
func (o *Operations) List(ctx context.Context) (all []Progress, err error) {
	s, err := o.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	for n := range s.Nodes() {
		if op := n.Operation; op.Kind != fsm.OperationNone {
			c := s.Counts(n.ID)
			all = append(all, Progress{
				Node: n.ID, Kind: op.Kind, Force: op.Force, Total: op.Total, Attached: c.Attached,
				Shards: c.Shards, OperationStatus: o.Reality.Operation(n.ID),
			})
		}
	}
	return all, nil
}

// Ended lists how operations have ended, one of each kind for each node, the latest first,
// from a linearizable read. Nodes that are gone are among them.
func (o *Operations) Ended(ctx context.Context) ([]fsm.Outcome, error) {
	s, err := o.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	all := slices.Collect(s.Outcomes())
	slices.Reverse(all)
	return all, nil
}
