package fsm

import (
	"slices"

	"quorate/api/neon"
)

// maxImportError bounds the text that a shard may report, in bytes.
const maxImportError = 4096

// BeginImport records that the pageservers have begun to import a timeline. From
// here on the tenant cannot be split. One that is known, finished or not, stays as
// it is.
type BeginImport struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
}

func (c BeginImport) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.Tenant)
	ref := neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline}
	if !ok || tenant.Deleting {
		return refuse(neon.NotFound, "Tenant %s not found", c.Tenant)
	}
	if _, going := t.TimelineDelete(ref); going {
		return refuse(neon.Conflict, "timeline %s is being deleted", ref)
	}
	if t.Splitting(c.Tenant) {
		return refuse(neon.Conflict, "Tenant %s is being split", c.Tenant)
	}
	if _, known := t.Import(ref); known {
		return Result{}
	}
	t.setImport(Import{
		Tenant: c.Tenant, Timeline: c.Timeline, Count: tenant.Count,
		Shards: make([]neon.ShardImport, tenant.Count.Shards()),
	})
	return Result{}
}

func (t *txn) setImport(i Import) {
	i.Sequence = t.Index
	t.imports.Set(i)
	t.touched.Timelines = true
}

// UpdateImport is the report of a pageserver that has the shard attached in this
// Generation. It is refused, as a PreconditionFailed, when that is not the newest
// one; a terminal report is never changed, and repeating one is accepted.
type UpdateImport struct {
	Shard      neon.ShardID     `cbor:"1,keyasint"`
	Timeline   neon.TimelineID  `cbor:"2,keyasint"`
	Generation neon.Generation  `cbor:"3,keyasint"`
	Status     neon.ShardImport `cbor:"4,keyasint"`
}

func (c UpdateImport) apply(t *txn) Result {
	ref := neon.TimelineRef{Tenant: c.Shard.Tenant, Timeline: c.Timeline}
	sh, ok := t.Shard(c.Shard)
	switch {
	case !ok:
		return refuse(neon.Internal, "%s shard not found", c.Shard)
	case !sh.HasGeneration || sh.Generation != c.Generation:
		return refuse(neon.PreconditionFailed, "Invalid generation")
	case c.Status.State > neon.ShardImportFailed, len(c.Status.Error) > maxImportError,
		c.Status.Terminal() && c.Status.Progress != (neon.ImportProgress{}),
		c.Status.State != neon.ShardImportFailed && c.Status.Error != "":
		return refuse(neon.BadRequest, "impossible import status")
	}
	i, ok := t.Import(ref)
	if !ok {
		return refuse(neon.NotFound, "Import for %s not found", ref)
	}
	was, ok := i.Shard(c.Shard)
	switch {
	case !ok:
		return refuse(neon.Internal,
			"Import shards do not match update request, likely a shard split happened during import, this is a bug")
	case was == c.Status:
		return Result{}
	case was.Terminal() || i.Finished:
		return refuse(neon.Internal, "Update request is unexpected")
	}
	i.Shards = slices.Clone(i.Shards)
	i.Shards[c.Shard.Number] = c.Status
	t.setImport(i)
	return Result{}
}

// FinishImport ends an import of which the control plane has been told. One that
// was removed meanwhile is passed over.
type FinishImport struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
}

func (c FinishImport) apply(t *txn) Result {
	i, ok := t.Import(neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline})
	switch {
	case !ok || i.Finished:
		return Result{}
	case !i.Complete():
		return refuse(neon.PreconditionFailed, "the import of timeline %s is still running",
			i.Ref())
	}
	i.Finished = true
	t.setImport(i)
	return Result{}
}

// BeginDeleteTimeline records that a timeline is to be deleted, before any
// pageserver hears of it. An import of it that is still running ends here: nothing
// that its shards report counts any more. DeleteTimeline ends the deletion. The tenant's
// record keeps when it was begun, so that a creation that has begun before knows of it.
type BeginDeleteTimeline struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
}

func (c BeginDeleteTimeline) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.Tenant)
	if !ok || tenant.Deleting {
		return refuse(neon.NotFound, "Tenant not found")
	}
	ref := neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline}
	if i, ok := t.Import(ref); ok && !i.Finished {
		t.imports.Delete(i.Ref())
		t.touched.Timelines = true
	}
	if _, known := t.TimelineDelete(ref); !known {
		t.deletes.Set(TimelineDelete{Tenant: c.Tenant, Timeline: c.Timeline, Sequence: t.Index})
		t.touched.Timelines = true
		if t.bounded() {
			tenant.TimelineDeleted = t.Index
			t.noteTenant(tenant)
		}
	}
	return Result{}
}

// CancelDeleteTimeline takes back a deletion that every pageserver has refused. It
// is passed over when it is not about the one that was recorded at this Sequence.
type CancelDeleteTimeline struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
	Sequence uint64          `cbor:"3,keyasint"`
}

func (c CancelDeleteTimeline) apply(t *txn) Result {
	d, ok := t.TimelineDelete(neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline})
	if ok && d.Sequence == c.Sequence {
		t.deletes.Delete(d.Ref())
		t.touched.Timelines = true
		if t.NamesEachChange() {
			t.forgetRequest(d.Sequence)
		}
	}
	return Result{}
}

// forgetWork drops what is recorded of one timeline that is gone.
func (t *txn) forgetWork(ref neon.TimelineRef) {
	_, had := t.imports.Delete(ref)
	_, also := t.deletes.Delete(ref)
	t.touched.Timelines = t.touched.Timelines || had || also
}

// forgetTenantWork drops the imports and the deletions of timelines of a tenant
// that goes as a whole.
func (t *txn) forgetTenantWork(id neon.TenantID) {
	var refs []neon.TimelineRef
	t.imports.Ascend(neon.TimelineRef{Tenant: id}, func(i Import) bool {
		if i.Tenant == id {
			refs = append(refs, i.Ref())
		}
		return i.Tenant == id
	})
	for _, d := range t.deletesOf(id) {
		refs = append(refs, d.Ref())
	}
	for _, ref := range refs {
		t.forgetWork(ref)
	}
}
