package neonstate

import (
	"errors"
	"fmt"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
)

func (w *fromRows) takeSafekeepers() {
	for _, row := range w.c.Safekeepers {
		k := fsm.Safekeeper{
			ID: neon.NodeID(row.ID), Region: row.Region, Version: row.Version, Host: row.Host,
			AZ: neon.MakeAZ(row.AZ), Scheduling: safekeeperPolicies[row.Scheduling],
		}
		err := errors.Join(port(&k.Port, &row.Port), port(&k.HTTPPort, &row.HTTPPort),
			port(&k.HTTPSPort, row.HTTPSPort), names(row.Region, row.Host, row.AZ))
		if row.ID <= 0 {
			err = fmt.Errorf("the id is not positive")
		}
		if k.Scheduling == "" {
			err = fmt.Errorf("scheduling policy %q: %w", clip(row.Scheduling), errText)
		}
		if err != nil {
			w.f.add(Wrong, BadRow, fmt.Sprintf("safekeeper %d", row.ID), "%v", err)
			continue
		}
		w.keepers[k.ID] = true
		w.r.Safekeepers = append(w.r.Safekeepers, k)
	}
}

func (w *fromRows) takeTimelines() {
	for _, row := range w.c.Timelines {
		subject := "timeline " + clip(row.Tenant) + "/" + clip(row.Timeline)
		tl, err := w.timeline(row)
		if errors.Is(err, errUnknownSafekeeper) {
			w.f.add(Wrong, UnknownSafekeeper, subject, "%v: it is not taken", err)
			continue
		}
		if err != nil {
			w.f.add(Wrong, BadTimeline, subject, "%v: it is not taken", err)
			continue
		}
		if told := max(row.ComputeNotified, row.QuorumNotified); told > row.Generation {
			w.f.add(Changed, BadTimeline, subject,
				"somebody was told generation %d, and it is at %d", told, row.Generation)
		}
		if row.NewSet != nil && len(row.NewSet) == 0 {
			w.f.add(Changed, BadTimeline, subject, "is to migrate to no safekeeper: it stays")
		}
		if _, ok := w.tenants[tl.Tenant]; !ok && !tl.Deleted {
			w.f.add(Changed, OrphanTimeline, subject, "its tenant does not exist")
		}
		w.timelines[tl.Ref()] = len(w.r.Timelines)
		w.r.Timelines = append(w.r.Timelines, tl)
	}
}

var errUnknownSafekeeper = errors.New("is not registered")

func (w *fromRows) timeline(row neondb.TimelineRow) (tl fsm.Timeline, err error) {
	var noTenant, noTimeline, noLsn error
	tl.Tenant, noTenant = neon.ParseTenantID(row.Tenant)
	tl.ID, noTimeline = neon.ParseTimelineID(row.Timeline)
	tl.StartLsn, noLsn = neon.ParseLsn(row.StartLsn)
	if err := errors.Join(noTenant, noTimeline, noLsn); err != nil {
		return tl, err
	}
	if tl.Tenant.String() != row.Tenant || tl.ID.String() != row.Timeline {
		return tl, errText
	}
	if row.Generation < 1 {
		return tl, fmt.Errorf("generation %d is none", row.Generation)
	}
	told := func(g int32) neon.SafekeeperGeneration {
		return neon.SafekeeperGeneration(min(max(0, g), row.Generation))
	}
	tl.Generation = neon.SafekeeperGeneration(row.Generation)
	tl.ComputeAcknowledged, tl.QuorumAcknowledged = told(row.ComputeNotified),
		told(row.QuorumNotified)
	tl.Deleted = row.DeletedAt != nil
	if tl.Set, err = w.members(row.Set); err != nil {
		return tl, err
	}
	if tl.NewSet, err = w.members(row.NewSet); err != nil {
		return tl, err
	}
	if tl.Joint() && len(tl.Set) == 0 {
		return tl, errors.New("it migrates, and was on no safekeeper")
	}
	return tl, nil
}

func (w *fromRows) members(set []int64) (all []neon.NodeID, err error) {
	if len(set) > 255 {
		return nil, fmt.Errorf("%d safekeepers are too many", len(set))
	}
	for _, one := range set {
		id := neon.NodeID(one)
		switch {
		case slices.Contains(all, id):
			return nil, fmt.Errorf("safekeeper %d is in the set twice", one)
		case !w.keepers[id]:
			return nil, fmt.Errorf("safekeeper %d %w", one, errUnknownSafekeeper)
		}
		all = append(all, id)
	}
	return all, nil
}

var opKinds = map[string]fsm.SafekeeperOpKind{
	fsm.OpPull.String(): fsm.OpPull, fsm.OpExclude.String(): fsm.OpExclude,
	fsm.OpDelete.String(): fsm.OpDelete,
}

func (w *fromRows) takeOps() {
	owed := map[neon.TimelineRef]int{}
	for _, row := range w.c.Ops {
		subject := fmt.Sprintf("safekeeper %d, %s of %s/%s", row.Safekeeper, clip(row.Kind),
			clip(row.Tenant), clip(row.Timeline))
		op, err := w.op(row)
		if err != nil {
			w.f.add(Wrong, BadRow, subject, "%v: it is not taken", err)
			continue
		}
		if why := w.stale(&op); why != "" {
			w.f.add(Left, StaleOperation, subject, "%s", why)
			continue
		}
		owed[op.Ref()]++
		w.r.Ops = append(w.r.Ops, op)
	}
	kept := w.r.Timelines[:0:0]
	for _, tl := range w.r.Timelines {
		if !tl.Deleted || owed[tl.Ref()] > 0 {
			kept = append(kept, tl)
			continue
		}
		// It may be that not all of its safekeepers have dropped it: they are asked again.
		for _, id := range tl.Members() {
			w.r.Ops = append(w.r.Ops, fsm.SafekeeperOp{
				Safekeeper: id, Tenant: tl.Tenant, Timeline: tl.ID, Kind: fsm.OpDelete,
				Generation: lastGeneration,
			})
		}
		if len(tl.Members()) > 0 {
			kept = append(kept, tl)
			w.f.add(Changed, DeletedTimeline, "timeline "+tl.Ref().String(),
				"is deleted and nobody is asked to drop it: its safekeepers are asked again")
		} else {
			w.f.add(Left, DeletedTimeline, "timeline "+tl.Ref().String(),
				"is deleted, and no safekeeper has it")
		}
	}
	w.r.Timelines = kept
}

// lastGeneration is what nothing later can overtake.
const lastGeneration = neon.SafekeeperGeneration(1<<31 - 1)

func (w *fromRows) op(row neondb.OpRow) (op fsm.SafekeeperOp, err error) {
	op = fsm.SafekeeperOp{
		Safekeeper: neon.NodeID(row.Safekeeper), Kind: opKinds[row.Kind],
		Generation: neon.SafekeeperGeneration(max(0, row.Generation)),
	}
	if op.Kind == 0 || row.Generation < 0 {
		return op, errText
	}
	if op.Tenant, err = neon.ParseTenantID(row.Tenant); err != nil {
		return op, err
	}
	if row.Timeline != "" {
		if op.Timeline, err = neon.ParseTimelineID(row.Timeline); err != nil {
			return op, err
		}
		if op.WholeTenant() {
			return op, errText
		}
	} else if op.Kind != fsm.OpDelete {
		return op, errText
	}
	return op, nil
}

// stale says why an operation is not owed any more; a deletion without its timeline gets
// one, so that it is carried out.
func (w *fromRows) stale(op *fsm.SafekeeperOp) string {
	if !w.keepers[op.Safekeeper] {
		return "the safekeeper is not registered"
	}
	if op.WholeTenant() {
		return ""
	}
	i, ok := w.timelines[op.Ref()]
	if !ok && op.Kind == fsm.OpDelete {
		w.timelines[op.Ref()] = len(w.r.Timelines)
		w.r.Timelines = append(w.r.Timelines, fsm.Timeline{
			Tenant: op.Tenant, ID: op.Timeline, Generation: 1, Deleted: true,
		})
		return ""
	}
	if !ok {
		return "the timeline is not known"
	}
	tl := &w.r.Timelines[i]
	switch {
	case op.Kind == fsm.OpDelete && !tl.Deleted:
		return "the timeline is not deleted"
	case op.Kind == fsm.OpPull && !tl.Deleted && !tl.Member(op.Safekeeper):
		return "the safekeeper is no member any more"
	case op.Kind == fsm.OpExclude && tl.Member(op.Safekeeper):
		return "the safekeeper is a member again"
	case op.Kind != fsm.OpDelete && op.Generation > tl.Generation:
		return "the timeline has no such generation"
	}
	return ""
}

func (w *fromRows) takeImports() {
	for _, row := range w.c.Imports {
		subject := "timeline " + clip(row.Tenant) + "/" + clip(row.Timeline)
		i := fsm.Import{}
		var noTenant, noTimeline error
		i.Tenant, noTenant = neon.ParseTenantID(row.Tenant)
		i.Timeline, noTimeline = neon.ParseTimelineID(row.Timeline)
		t, ok := w.tenants[i.Tenant]
		err := errors.Join(noTenant, noTimeline)
		if err == nil && !ok {
			err = errors.New("its tenant does not exist")
		}
		if err == nil {
			i.Count = t.Count
			i.Shards, err = shardStatuses(row.Statuses, t.Count)
		}
		if err != nil {
			w.f.add(Wrong, BadImport, subject, "%v: the import is not taken", err)
			continue
		}
		w.r.Imports = append(w.r.Imports, i)
	}
}
