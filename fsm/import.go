package fsm

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"

	"quorate/api/neon"
)

// Import is the replicated record of the import of a timeline: what the pageserver
// of each shard reported last. It stays, as Finished, after the control plane has
// acknowledged the end, so that a creation that is repeated late does not begin the
// import again. It is removed with the timeline.
type Import struct {
	Tenant   neon.TenantID
	Timeline neon.TimelineID

	// Count is the shard count of the tenant when the import began. A tenant is not
	// split while one of its timelines is being imported.
	Count  neon.ShardCount
	Shards []neon.ShardImport // by number; shared, must not be modified

	Finished bool

	// Sequence is the log index of the last change to this record.
	Sequence uint64
}

// Ref names the timeline.
func (i *Import) Ref() neon.TimelineRef {
	return neon.TimelineRef{Tenant: i.Tenant, Timeline: i.Timeline}
}

// Complete reports whether no shard will report anything else.
func (i *Import) Complete() bool {
	return !slices.ContainsFunc(i.Shards, func(s neon.ShardImport) bool { return !s.Terminal() })
}

// Shard is what a shard has reported; ok is false for one that has no part in the
// import.
func (i *Import) Shard(id neon.ShardID) (s neon.ShardImport, ok bool) {
	if id.Count != i.Count || int(id.Number) >= len(i.Shards) {
		return s, false
	}
	return i.Shards[id.Number], true
}

// TimelineDelete is the replicated record of a timeline that is to be deleted. Every
// leader works on it until its end.
type TimelineDelete struct {
	Tenant   neon.TenantID
	Timeline neon.TimelineID

	// Sequence is the log index at which the deletion was recorded.
	Sequence uint64
}

// Ref names the timeline.
func (d *TimelineDelete) Ref() neon.TimelineRef {
	return neon.TimelineRef{Tenant: d.Tenant, Timeline: d.Timeline}
}

func lessRef(a, b neon.TimelineRef) bool {
	if a.Tenant != b.Tenant {
		return a.Tenant.Less(b.Tenant)
	}
	return bytes.Compare(a.Timeline[:], b.Timeline[:]) < 0
}

// timelineWorkTable holds the imports and the deletions of timelines.
type timelineWorkTable struct {
	imports table[neon.TimelineRef, Import]
	deletes table[neon.TimelineRef, TimelineDelete]
}

func newTimelineWorkTable() timelineWorkTable {
	return timelineWorkTable{
		imports: newTable(tagImport, (*Import).Ref, lessRef, appendImport),
		deletes: newTable(tagTimelineDelete, (*TimelineDelete).Ref, lessRef,
			appendTimelineDelete),
	}
}

func (t *timelineWorkTable) copy() timelineWorkTable {
	return timelineWorkTable{imports: t.imports.copy(), deletes: t.deletes.copy()}
}

// Import finds the import of a timeline, a finished one included.
func (t *timelineWorkTable) Import(ref neon.TimelineRef) (Import, bool) {
	return t.imports.Get(ref)
}

// Imports yields all imports by tenant and timeline, finished ones included.
func (t *timelineWorkTable) Imports() iter.Seq[Import] {
	return func(yield func(Import) bool) { t.imports.Scan(yield) }
}

// Importing reports whether a timeline of the tenant is being imported.
func (t *timelineWorkTable) Importing(id neon.TenantID) (open bool) {
	t.imports.Ascend(neon.TimelineRef{Tenant: id}, func(i Import) bool {
		open = i.Tenant == id && !i.Finished
		return i.Tenant == id && !open
	})
	return open
}

// TimelineDelete finds the recorded deletion of a timeline.
func (t *timelineWorkTable) TimelineDelete(ref neon.TimelineRef) (TimelineDelete, bool) {
	return t.deletes.Get(ref)
}

// TimelineDeletes yields the timelines that are to be deleted, by tenant and id.
func (t *timelineWorkTable) TimelineDeletes() iter.Seq[TimelineDelete] {
	return func(yield func(TimelineDelete) bool) { t.deletes.Scan(yield) }
}

func appendImport(b []byte, i *Import) []byte {
	b = append(append(b, i.Tenant[:]...), i.Timeline[:]...)
	b = append(b, byte(i.Count), boolByte(i.Finished))
	b = binary.AppendUvarint(b, i.Sequence)
	for _, s := range i.Shards {
		p := s.Progress
		b = append(b, byte(s.State))
		for _, v := range []uint64{p.Jobs, p.Completed, p.PlanHash, p.JobSize} {
			b = binary.AppendUvarint(b, v)
		}
		b = appendBytes(b, s.Error)
	}
	return b
}

func (d *decoder) oneImport() (i Import) {
	d.fill(i.Tenant[:])
	d.fill(i.Timeline[:])
	i.Count = neon.ShardCount(d.byte())
	i.Finished = d.byte() == 1
	i.Sequence = d.uvarint()
	for range i.Count.Shards() {
		s := neon.ShardImport{State: neon.ShardImportState(d.byte())}
		for _, v := range []*uint64{
			&s.Progress.Jobs, &s.Progress.Completed, &s.Progress.PlanHash, &s.Progress.JobSize,
		} {
			*v = d.uvarint()
		}
		s.Error = string(d.bytes(maxImportError))
		i.Shards = append(i.Shards, s)
	}
	return i
}

func appendTimelineDelete(b []byte, t *TimelineDelete) []byte {
	return binary.AppendUvarint(append(append(b, t.Tenant[:]...), t.Timeline[:]...), t.Sequence)
}

func (d *decoder) timelineDelete() (t TimelineDelete) {
	d.fill(t.Tenant[:])
	d.fill(t.Timeline[:])
	t.Sequence = d.uvarint()
	return t
}

// timelineWork reads the imports and the deletions.
func (d *decoder) timelineWork(s *State, head *snapshotHeader) {
	for n := 0; n < head.Imports && d.err == nil; n++ {
		s.imports.Load(d.oneImport())
	}
	for n := 0; n < head.Deletes && d.err == nil; n++ {
		s.deletes.Load(d.timelineDelete())
	}
	if d.err == nil && (s.imports.Len() != head.Imports || s.deletes.Len() != head.Deletes) {
		d.err = errRepeat
	}
}

// timelineWork verifies what is recorded of imports and deletions.
func (c *checker) timelineWork() {
	c.s.imports.Scan(func(i Import) bool {
		t, ok := c.s.Tenant(i.Tenant)
		switch {
		case !ok:
			c.fail("the import of timeline %s belongs to no tenant", i.Ref())
		case len(i.Shards) != i.Count.Shards() || !i.Finished && i.Count != t.Count:
			c.fail("the import of timeline %s has %d shards of count %d, the tenant has count %d",
				i.Ref(), len(i.Shards), i.Count, t.Count)
		case i.Finished && !i.Complete():
			c.fail("the import of timeline %s is finished and not complete", i.Ref())
		}
		for _, s := range i.Shards {
			if s.State > neon.ShardImportFailed ||
				s.Terminal() && s.Progress != (neon.ImportProgress{}) ||
				s.State != neon.ShardImportFailed && s.Error != "" {
				c.fail("the import of timeline %s says %+v", i.Ref(), s)
			}
		}
		return len(c.errs) < 32
	})
	c.s.deletes.Scan(func(d TimelineDelete) bool {
		if t, ok := c.s.Tenant(d.Tenant); !ok || t.Deleting {
			c.fail("timeline %s is to be deleted and belongs to no living tenant", d.Ref())
		}
		if i, ok := c.s.Import(d.Ref()); ok && !i.Finished {
			c.fail("timeline %s is being imported and to be deleted", d.Ref())
		}
		return len(c.errs) < 32
	})
}
