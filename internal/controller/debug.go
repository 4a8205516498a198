package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/scheduler"
)

// Debug shows the state of the controller to operators and tests.
type Debug struct{ Deps }

// NewDebug makes a Debug.
func NewDebug(d Deps) *Debug { return &Debug{d} }

// Shards dumps all that is known of every shard, from a linearizable read. It leaves out
// the shards of a Detached tenant that were not seen on any pageserver.
func (d *Debug) Shards(ctx context.Context) ([]neon.ShardDump, error) {
	s, err := d.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]neon.ShardDump, 0, s.ShardCount())
	var tenant fsm.Tenant
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if tenant.ID != sh.ID.Tenant {
			tenant, _ = s.Tenant(sh.ID.Tenant)
		}
		status := d.Reality.Status(sh.ID)
		if tenant.Policy.Kind == neon.PlaceDetached && len(status.Observed) == 0 &&
			!status.Reconciling {
			continue
		}
		e := dump(tenant, sh, status)
		if s.Importing(tenant.ID) {
			e.Importing = neon.ImportImporting
		}
		if s.Splitting(tenant.ID) {
			e.Splitting = neon.SplitSplitting
		}
		all = append(all, e)
	}
	return all, nil
}

func dump(tenant fsm.Tenant, sh fsm.Shard, status decide.ShardStatus) neon.ShardDump {
	e := neon.ShardDump{
		Shard: sh.ID,
		Identity: neon.ShardIdentity{
			Number: sh.ID.Number, Count: sh.ID.Count, StripeSize: tenant.Stripe,
			Layout: neon.ShardLayoutV1,
		},
		Sequence: sh.Sequence, Policy: tenant.Policy,
		Intent: neon.IntentDump{
			Attached: nodeOrNull(sh.Attached), Secondary: sh.Secondary, PreferredAZ: sh.PreferredAZ,
		},
		Observed:  observed(status),
		Config:    tenant.Config,
		Splitting: neon.SplitIdle, Importing: neon.ImportIdle,
		LastError:                  status.LastError,
		ConsecutiveReconciles:      uint64(max(0, status.Failures)),
		PendingComputeNotification: status.PendingNotify,
		PreferredNode:              nodeOrNull(sh.PreferredNode), Scheduling: tenant.Scheduling,
	}
	if sh.HasGeneration {
		e.Generation = &sh.Generation
	}
	return e
}

func observed(status decide.ShardStatus) neon.ObservedLocations {
	o := neon.ObservedLocations{
		Locations: make(neon.Table[neon.NodeID, neon.ObservedLocation], len(status.Observed)),
	}
	for node, conf := range status.Observed {
		o.Locations[node] = neon.ObservedLocation{Config: conf}
	}
	return o
}

// Observed is what the leader has seen of every shard with a location. An instance that
// steps down answers with it.
func (d *Debug) Observed() neon.GlobalObserved {
	all := neon.GlobalObserved{}
	for sh := range d.Log.State().ShardsFrom(neon.ShardID{}) {
		if status := d.Reality.Status(sh.ID); len(status.Observed) > 0 {
			all[sh.ID] = observed(status)
		}
	}
	return all
}

// Scheduler dumps what placement decides on, from a linearizable read.
func (d *Debug) Scheduler(ctx context.Context) (neon.SchedulerDump, error) {
	s, err := d.Log.ReadState(ctx)
	if err != nil {
		return neon.SchedulerDump{}, err
	}
	out := neon.SchedulerDump{Nodes: neon.Table[neon.NodeID, neon.SchedulerNode]{}}
	for n := range s.Nodes() {
		c := s.Counts(n.ID)
		e := neon.SchedulerNode{
			Shards: uint64(c.Shards), AttachedShards: uint64(c.Attached),
			HomeShards: uint64(c.Home), AZ: n.AZ.String(),
		}
		if u, ok := d.Nodes.Utilization(n.ID); ok && n.Schedulable() {
			e.MaySchedule.Load = &u
		}
		out.Nodes[n.ID] = e
	}
	return out, nil
}

// Check verifies every invariant of the replicated state, from a linearizable read. The
// error is Internal and has everything that was found.
func (d *Debug) Check(ctx context.Context) error {
	s, err := d.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	if err := fsm.Check(s); err != nil {
		return neon.Errorf(neon.Internal, "%w", err)
	}
	return nil
}

// ReconcileAll runs one pass over all shards; 0 means that nothing is left to do.
func (d *Debug) ReconcileAll(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, decide.LongWait)
	defer cancel()
	return d.Passes.ReconcileAll(ctx)
}

// Attachment is the newest generation of a shard and the node it was issued to.
type Attachment struct {
	Generation neon.Generation
	Node       neon.NodeID
}

// Inspect finds the attachment of a shard, from a linearizable read; nil when it
// is unknown or not attached.
func (d *Debug) Inspect(ctx context.Context, id neon.ShardID) (*Attachment, error) {
	s, err := d.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	sh, ok := s.Shard(id)
	if !ok || sh.Attached == 0 || !sh.HasGeneration {
		return nil, nil
	}
	return &Attachment{Generation: sh.Generation, Node: sh.Attached}, nil
}

// Explain says for every node why a shard is or is not placed there. The error is
// NotFound for an unknown shard.
func (d *Debug) Explain(ctx context.Context, id neon.ShardID) (e scheduler.Explanation, err error) {
	s, err := d.Log.ReadState(ctx)
	if err != nil {
		return e, err
	}
	sh, ok := s.Shard(id)
	if !ok {
		return e, neon.Errorf(neon.NotFound, "Tenant shard not found")
	}
	return scheduler.New(s, d.Reality.Loads()).Explain(sh), nil
}

// Leader is the replica that took up its duties last, from a linearizable read.
func (d *Debug) Leader(ctx context.Context) (fsm.Leader, error) {
	s, err := d.Log.ReadState(ctx)
	if err != nil {
		return fsm.Leader{}, err
	}
	return s.Leader, nil
}
