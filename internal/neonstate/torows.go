package neonstate

import (
	"fmt"
	"math"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
)

// toRows is the work of ToRows.
type toRows struct {
	s *fsm.State
	c *neondb.Content
	f Findings
}

// ToRows converts our state into the rows of an existing controller. All generations jump
// over what can have been issued since the state was saved.
func ToRows(s *fsm.State, now time.Time) (*neondb.Content, Findings, error) {
	w := &toRows{s: s, c: &neondb.Content{}}
	r := fsm.RecordsOf(s)
	for _, n := range r.Nodes {
		w.node(n)
	}
	for _, t := range r.Tenants {
		if err := w.tenant(t); err != nil {
			return nil, w.f, err
		}
	}
	for _, sp := range r.Splits {
		if sp.Active() {
			w.f.add(Changed, SplitUnderWay, "tenant "+sp.Tenant.String(),
				"a split to %d shards has not ended: its parents are written", sp.Count)
		}
	}
	for _, k := range r.Safekeepers {
		w.safekeeper(k)
	}
	for _, tl := range r.Timelines {
		w.timeline(tl, now)
	}
	for _, op := range r.Ops {
		w.op(op)
	}
	for _, i := range r.Imports {
		if err := w.imported(i); err != nil {
			return nil, w.f, err
		}
	}
	for d := range s.TimelineDeletes() {
		w.f.add(Left, TimelineDeleting, "timeline "+d.Ref().String(),
			"its deletion has not ended: delete it again")
	}
	for t := range s.Travels() {
		w.f.add(Wrong, Travelling, "tenant "+t.Tenant.String(),
			"its remote data is being put back in time: let that end first")
	}
	w.f.Sort()
	return w.c, w.f, nil
}

func (w *toRows) node(n fsm.Node) {
	row := neondb.NodeRow{
		ID: int64(n.ID), Scheduling: spelled(nodePolicies, n.Scheduling), AZ: n.AZ.String(),
		HTTPHost: n.Addr.HTTPHost, HTTPPort: int32(n.Addr.HTTPPort), PGHost: n.Addr.PGHost,
		PGPort: int32(n.Addr.PGPort), HTTPSPort: optional(n.Addr.HTTPSPort), Lifecycle: "active",
		GRPCPort: optional(n.Addr.GRPCPort),
	}
	if n.Addr.GRPCHost != "" {
		row.GRPCHost = &n.Addr.GRPCHost
	}
	if n.Tombstone {
		row.Lifecycle = "deleted"
	}
	if n.Operation.Kind != fsm.OperationNone {
		w.f.add(Left, NodeOperation, fmt.Sprintf("pageserver %d", n.ID),
			"a %s is under way: begin it again", n.Operation.Kind)
	}
	w.c.Nodes = append(w.c.Nodes, row)
}

func optional(port uint16) *int32 {
	if port == 0 {
		return nil
	}
	return new(int32(port))
}

func (w *toRows) tenant(t fsm.Tenant) error {
	policy, err := t.Policy.MarshalJSON()
	if err != nil {
		return err
	}
	if t.Deleting {
		w.f.add(Wrong, TenantDeleting, "tenant "+t.ID.String(),
			"is being deleted, and would stay as a detached one: let that end first")
	}
	for sh := range w.s.TenantShards(t.ID) {
		row := neondb.ShardRow{
			Tenant: t.ID.String(), Number: int32(sh.ID.Number), Count: int32(t.Count),
			Stripe: int32(min(t.Stripe, neon.MaxStripeSize)), Placement: string(policy),
			Config: t.Config.JSON(), Scheduling: `"` + string(t.Scheduling) + `"`,
		}
		if !sh.PreferredAZ.IsZero() {
			row.PreferredAZ = new(sh.PreferredAZ.String())
		}
		if sh.HasGeneration {
			next := uint64(sh.Generation) + fsm.RecoveryGap
			if next > math.MaxInt32 {
				w.f.add(Wrong, Exhausted, sh.ID,
					"generation %d is more than an existing controller can count", next)
			}
			row.Generation = new(int32(min(next, math.MaxInt32)))
		}
		if sh.GenNode != 0 {
			row.Pageserver = new(int64(sh.GenNode))
		}
		w.lost(&sh)
		w.c.Shards = append(w.c.Shards, row)
		w.c.Health = append(w.c.Health, neondb.HealthRow{
			Tenant: row.Tenant, Number: row.Number, Count: row.Count, Healthy: !sh.Unhealthy,
			ScrubbedAt: time.UnixMilli(sh.ScrubbedAt).UTC(),
		})
	}
	return nil
}

// lost reports what no row says of a shard.
func (w *toRows) lost(sh *fsm.Shard) {
	switch {
	case sh.Unmanaged:
		w.f.add(Left, Unmanaged, sh.ID, "a client attaches it itself: it will be managed")
	case sh.PreferredNode != 0:
		w.f.add(Left, MoveUnderWay, sh.ID, "is on its way to pageserver %d: begin it again",
			sh.PreferredNode)
	}
}

func (w *toRows) safekeeper(k fsm.Safekeeper) {
	if k.Gone {
		w.f.add(Left, SafekeeperGone, fmt.Sprintf("safekeeper %d", k.ID),
			"is gone for good, and written as one that is decommissioned")
	}
	w.c.Safekeepers = append(w.c.Safekeepers, neondb.SafekeeperRow{
		ID: int64(k.ID), Region: k.Region, Version: k.Version, Host: k.Host, Port: int32(k.Port),
		HTTPPort: int32(k.HTTPPort), AZ: k.AZ.String(), HTTPSPort: optional(k.HTTPSPort),
		Scheduling: spelled(safekeeperPolicies, k.Scheduling), // pause, and not disabled
	})
}

func (w *toRows) timeline(tl fsm.Timeline, now time.Time) {
	if tl.Generation > math.MaxInt32 {
		w.f.add(Wrong, Exhausted, "timeline "+tl.Ref().String(),
			"generation %d is more than an existing controller can count", tl.Generation)
	}
	row := neondb.TimelineRow{
		Tenant: tl.Tenant.String(), Timeline: tl.ID.String(), StartLsn: tl.StartLsn.String(),
		Generation: int32(min(tl.Generation, math.MaxInt32)), Set: numbers(tl.Set),
		ComputeNotified: int32(tl.ComputeAcknowledged),
		QuorumNotified:  int32(tl.QuorumAcknowledged),
	}
	if tl.Joint() {
		row.NewSet = numbers(tl.NewSet)
	}
	if tl.Deleted {
		row.DeletedAt = new(now.UTC().Truncate(time.Microsecond))
	}
	w.c.Timelines = append(w.c.Timelines, row)
}

func numbers(set []neon.NodeID) []int64 {
	all := []int64{}
	for _, id := range set {
		all = append(all, int64(id))
	}
	return all
}

func (w *toRows) op(op fsm.SafekeeperOp) {
	row := neondb.OpRow{
		Safekeeper: int64(op.Safekeeper), Tenant: op.Tenant.String(),
		Generation: int32(min(op.Generation, math.MaxInt32)), Kind: op.Kind.String(),
	}
	if !op.WholeTenant() {
		row.Timeline = op.Timeline.String()
	}
	w.c.Ops = append(w.c.Ops, row)
}

func (w *toRows) imported(i fsm.Import) error {
	if i.Finished {
		w.f.add(Left, ImportFinished, "timeline "+i.Ref().String(),
			"was imported: that its creation may be repeated is forgotten")
		return nil
	}
	text, err := statusText(&i)
	if err != nil {
		return err
	}
	w.c.Imports = append(w.c.Imports, neondb.ImportRow{
		Tenant: i.Tenant.String(), Timeline: i.Timeline.String(), Statuses: text,
	})
	return nil
}
