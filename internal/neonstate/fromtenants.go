package neonstate

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
)

func (w *fromRows) takeTenants() {
	for _, h := range w.c.Health {
		w.health[healthKey{h.Tenant, h.Number, h.Count}] = h
	}
	rows := w.c.Shards
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Tenant == rows[0].Tenant {
			n++
		}
		w.takeTenant(rows[:n])
		rows = rows[n:]
	}
}

// takeTenant takes the rows of one tenant. A split that has not ended is undone, as the
// existing controller does it when it starts.
func (w *fromRows) takeTenant(rows []neondb.ShardRow) {
	name := rows[0].Tenant
	id, err := neon.ParseTenantID(name)
	if _, had := w.tenants[id]; err == nil && (had || id.String() != name) {
		err = fmt.Errorf("tenant id %q: %w", name, errText)
	}
	if err != nil {
		w.f.add(Wrong, BadRow, "tenant "+clip(name), "%v: its %d shards are not taken", err,
			len(rows))
		return
	}
	sets := map[int32][]neondb.ShardRow{}
	for _, r := range rows {
		sets[r.Count] = append(sets[r.Count], r)
	}
	counts := slices.Sorted(maps.Keys(sets))
	if len(counts) > 2 || counts[0] < 0 || counts[len(counts)-1] > math.MaxUint8 {
		w.f.add(Wrong, IncompleteTenant, "tenant "+name,
			"has shards of the counts %v: none are taken", counts)
		return
	}
	set := sets[counts[0]]
	tenant := fsm.Tenant{ID: id, Count: neon.ShardCount(counts[0])}
	if !complete(set, tenant.Count) {
		w.f.add(Wrong, IncompleteTenant, "tenant "+name,
			"has %d shards of count %d: none are taken", len(set), counts[0])
		return
	}
	if !w.settings(&tenant, set) {
		return
	}
	shards := make([]fsm.Shard, len(set))
	for i, r := range set {
		if shards[i], err = w.shard(&tenant, r); err != nil {
			w.f.add(Wrong, BadRow, "shard "+shards[i].ID.String(),
				"%v: its tenant is not taken", err)
			return
		}
	}
	w.tenants[id] = tenant
	w.r.Tenants = append(w.r.Tenants, tenant)
	w.r.Shards = append(w.r.Shards, shards...)
	if len(counts) == 2 {
		w.takeSplit(tenant, shards, sets[counts[1]])
	} else if set[0].Splitting != 0 {
		w.f.add(Changed, SplitFlag, "tenant "+name, "is marked as splitting and has no children")
	}
}

// complete reports whether there is one row of each shard.
func complete(set []neondb.ShardRow, count neon.ShardCount) bool {
	if len(set) != count.Shards() {
		return false
	}
	for i, r := range set {
		if r.Number != int32(i) {
			return false
		}
	}
	return true
}

// settings takes what is the same for all shards of a tenant.
func (w *fromRows) settings(t *fsm.Tenant, set []neondb.ShardRow) bool {
	mixed := false
	for i, r := range set {
		policy, err := placement(r.Placement)
		scheduling, err2 := shardScheduling(r.Scheduling)
		config, ignored, err3 := tenantConfig(r.Config)
		for _, err := range []error{err, err2, err3} {
			if err != nil {
				w.f.add(Wrong, BadRow, "tenant "+t.ID.String(), "%v: it is not taken", err)
				return false
			}
		}
		if policy.Secondaries > 1024 || r.Stripe < 0 {
			w.f.add(Wrong, BadRow, "tenant "+t.ID.String(),
				"%d secondaries, stripe size %d: it is not taken", policy.Secondaries, r.Stripe)
			return false
		}
		if ignored != nil && (i == 0 || r.Config != set[i-1].Config) {
			w.f.add(Wrong, UnknownSetting, "tenant "+t.ID.String(), "%v", ignored)
		}
		stripe := neon.StripeSize(r.Stripe)
		if i == 0 {
			t.Policy, t.Scheduling, t.Config, t.Stripe = policy, scheduling, config, stripe
			continue
		}
		mixed = mixed || policy != t.Policy || scheduling != t.Scheduling || config != t.Config ||
			stripe != t.Stripe
		if policy.Kind > t.Policy.Kind { // nothing that serves is taken away
			t.Policy = policy
		}
	}
	if mixed {
		w.f.add(Wrong, MixedSettings, "tenant "+t.ID.String(),
			"its shards have different settings: those of shard 0 hold for all, and the placement "+
				"%s", t.Policy)
	}
	return true
}

func (w *fromRows) shard(t *fsm.Tenant, r neondb.ShardRow) (fsm.Shard, error) {
	sh := fsm.Shard{ID: neon.ShardID{
		Tenant: t.ID, Number: neon.ShardNumber(r.Number), Count: t.Count,
	}}
	if r.PreferredAZ != nil {
		sh.PreferredAZ = neon.MakeAZ(*r.PreferredAZ)
		if err := names(*r.PreferredAZ); err != nil {
			return sh, err
		}
	}
	if h, ok := w.health[healthKey{r.Tenant, r.Number, r.Count}]; ok {
		sh.Unhealthy, sh.ScrubbedAt = !h.Healthy, max(0, h.ScrubbedAt.UnixMilli())
	}
	if r.Generation != nil {
		if *r.Generation < 0 {
			return sh, fmt.Errorf("generation %d is none", *r.Generation)
		}
		sh.Generation, sh.HasGeneration = neon.Generation(*r.Generation), true
		if *r.Generation > maxConvertible {
			w.f.add(Wrong, GenerationTooHigh, sh.ID, "generation %d leaves too few numbers",
				*r.Generation)
		}
	} else {
		severity := Changed
		if t.Policy.Kind == neon.PlaceAttached {
			severity = Wrong
		}
		w.f.add(severity, NoGeneration, sh.ID, "has no generation, and is placed %s", t.Policy)
	}
	w.owner(t, r, &sh)
	w.listed(t, &sh)
	return sh, nil
}

// owner takes the pageserver that the generation was issued to.
func (w *fromRows) owner(t *fsm.Tenant, r neondb.ShardRow, sh *fsm.Shard) {
	if r.Pageserver == nil {
		return
	}
	id := neon.NodeID(*r.Pageserver)
	n, known := w.nodes[id]
	switch {
	case !known:
		w.f.add(Changed, UnknownNode, sh.ID,
			"its generation was issued to pageserver %d, which does not exist: it is placed anew",
			*r.Pageserver)
	case !sh.HasGeneration:
		w.f.add(Wrong, OwnerWithout, sh.ID, "pageserver %d has it, in no generation", id)
	case t.Policy.Kind != neon.PlaceAttached:
		w.f.add(Changed, OwnerUnwanted, sh.ID, "pageserver %d has it, and it is placed %s", id,
			t.Policy)
	case n.Tombstone:
		sh.GenNode = id
		w.f.add(Changed, DeletedNode, sh.ID,
			"its generation was issued to pageserver %d, which is deleted: it is placed anew", id)
	default:
		sh.GenNode, sh.Attached = id, id
	}
}

// listed takes what pageservers have of a shard: its secondaries, which no row has.
func (w *fromRows) listed(t *fsm.Tenant, sh *fsm.Shard) {
	issued := sh.Generation
	if w.c.Mark != nil && sh.HasGeneration {
		issued -= min(issued, neondb.Jump)
	}
	for _, l := range w.observed[sh.ID] {
		if l.conf == nil {
			continue
		}
		if g := l.conf.Generation; g != nil && *g > issued {
			w.f.add(Wrong, GenerationBehind, sh.ID,
				"pageserver %d has generation %d, and the database %d: it is an older copy", l.node,
				*g, issued)
			sh.HasGeneration = true
			if sh.Generation = max(sh.Generation, min(*g, maxConvertible)); *g > maxConvertible {
				w.f.add(Wrong, Exhausted, sh.ID,
					"pageserver %d has generation %d, which leaves too few numbers", l.node, *g)
			}
		}
		n, taken := w.nodes[l.node]
		switch {
		case n.Tombstone:
		case l.conf.Mode == neon.AttachedSingle && l.node != sh.GenNode:
			w.f.add(Changed, AttachedElsewhere, sh.ID,
				"pageserver %d has it attached, and the database says %d", l.node, sh.GenNode)
		case taken && l.conf.Mode == neon.Secondary && l.node != sh.Attached &&
			t.Policy.Kind != neon.PlaceDetached && len(sh.Secondary) < 1024:
			sh.Secondary = append(sh.Secondary, l.node)
		}
	}
}

// strangers reports what pageservers have of shards that do not exist.
func (w *fromRows) strangers() {
	known := make(map[neon.ShardID]bool, len(w.c.Shards))
	for _, r := range w.c.Shards {
		if id, err := neon.ParseTenantID(r.Tenant); err == nil {
			known[neon.ShardID{
				Tenant: id, Number: neon.ShardNumber(r.Number), Count: neon.ShardCount(r.Count),
			}] = true
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.observed), neon.ShardID.Compare) {
		if known[id] {
			continue
		}
		all := w.observed[id]
		i := slices.IndexFunc(all, location.attached)
		if i < 0 {
			w.f.add(Left, NotWanted, id, "pageserver %d has it, and no row: it will be detached",
				all[0].node)
			continue
		}
		w.f.add(Wrong, AttachedStranger, id, "pageserver %d serves it, and it has no row: the "+
			"database is an older copy, or this shard will be detached", all[i].node)
	}
}

// attached reports whether a pageserver serves what it has.
func (l location) attached() bool {
	return l.conf != nil && l.conf.Mode.Attached()
}

// takeSplit takes a split that has not ended: the children are removed again.
func (w *fromRows) takeSplit(t fsm.Tenant, parents []fsm.Shard, children []neondb.ShardRow) {
	w.f.add(Changed, SplitUnderWay, "tenant "+t.ID.String(),
		"a split from %d to %d shards has not ended: it is undone", t.Count.Shards(),
		children[0].Count)
	sp := fsm.Split{
		Tenant: t.ID, Phase: fsm.SplitAborting, Count: neon.ShardCount(children[0].Count),
		Stripe: neon.StripeSize(max(0, children[0].Stripe)), Code: neon.Conflict,
		Reason: "The tenant was moved during its split",
	}
	if !neon.CanSplit(t.Count, sp.Count) || sp.Stripe == 0 ||
		t.Policy.Kind != neon.PlaceAttached {
		return
	}
	for _, sh := range parents {
		if sh.Attached == 0 || sh.Attached != sh.GenNode {
			return // what is left of the children shows in the listings of pageservers
		}
		sp.Parents = append(sp.Parents, fsm.SplitParent{
			Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation,
		})
	}
	w.r.Splits = append(w.r.Splits, sp)
}
