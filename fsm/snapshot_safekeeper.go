package fsm

import (
	"encoding/binary"

	"quorate/api/neon"
)

func appendTimeline(b []byte, t *Timeline) []byte {
	b = append(append(b, t.Tenant[:]...), t.ID[:]...)
	b = append(b, boolByte(t.Deleted))
	b = binary.AppendUvarint(b, uint64(t.StartLsn))
	b = binary.AppendUvarint(b, uint64(t.Generation))
	b = binary.AppendUvarint(b, uint64(t.ComputeAcknowledged))
	b = binary.AppendUvarint(b, uint64(t.QuorumAcknowledged))
	b = binary.AppendUvarint(b, t.Sequence)
	for _, set := range [][]neon.NodeID{t.Set, t.NewSet} {
		b = append(b, byte(len(set)))
		for _, id := range set {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	return b
}

func (d *decoder) timeline() (t Timeline) {
	d.fill(t.Tenant[:])
	d.fill(t.ID[:])
	t.Deleted = d.byte() == 1
	t.StartLsn = neon.Lsn(d.uvarint())
	t.Generation = neon.SafekeeperGeneration(d.uvarint())
	t.ComputeAcknowledged = neon.SafekeeperGeneration(d.uvarint())
	t.QuorumAcknowledged = neon.SafekeeperGeneration(d.uvarint())
	t.Sequence = d.uvarint()
	for _, set := range []*[]neon.NodeID{&t.Set, &t.NewSet} {
		for range d.byte() {
			*set = append(*set, neon.NodeID(d.uvarint()))
		}
	}
	return t
}

func appendOp(b []byte, o *SafekeeperOp) []byte {
	b = binary.AppendUvarint(b, uint64(o.Safekeeper))
	b = append(append(b, o.Tenant[:]...), o.Timeline[:]...)
	return binary.AppendUvarint(append(b, byte(o.Kind)), uint64(o.Generation))
}

func (d *decoder) op() (o SafekeeperOp) {
	o.Safekeeper = neon.NodeID(d.uvarint())
	d.fill(o.Tenant[:])
	d.fill(o.Timeline[:])
	o.Kind = SafekeeperOpKind(d.byte())
	o.Generation = neon.SafekeeperGeneration(d.uvarint())
	return o
}

// safekeeping reads the timelines and what safekeepers owe.
func (d *decoder) safekeeping(s *State, head *snapshotHeader) {
	s.safekeepers = head.Safekeepers
	s.safekeeperSum = sumOf(tagSafekeeper, s.safekeepers)
	for i := 0; i < head.Timelines && d.err == nil; i++ {
		s.timelines.Load(d.timeline())
	}
	for i := 0; i < head.Ops && d.err == nil; i++ {
		s.ops.Load(d.op())
	}
	if d.err == nil && (s.timelines.Len() != head.Timelines || s.ops.Len() != head.Ops) {
		d.err = errRepeat
	}
}

// safekeeping verifies what is recorded of safekeepers and timelines.
func (c *checker) safekeeping() {
	for i, k := range c.s.safekeepers {
		if k.ID == 0 || i > 0 && c.s.safekeepers[i-1].ID >= k.ID {
			c.fail("safekeeper %d is out of order", k.ID)
		}
		if !k.Scheduling.Valid() {
			c.fail("safekeeper %d has scheduling policy %q", k.ID, k.Scheduling)
		}
		if k.Gone && k.Scheduling != neon.SafekeeperDecomissioned {
			c.fail("safekeeper %d is gone and %s", k.ID, k.Scheduling)
		}
	}
	c.s.timelines.Scan(func(t Timeline) bool { c.timeline(&t); return len(c.errs) < 32 })
	c.s.ops.Scan(func(o SafekeeperOp) bool { c.op(&o); return len(c.errs) < 32 })
}

func (c *checker) timeline(t *Timeline) {
	if t.Generation == 0 || t.ComputeAcknowledged > t.Generation ||
		t.QuorumAcknowledged > t.Generation {
		c.fail("timeline %s has generation %d, told %d and %d", t.ID, t.Generation,
			t.ComputeAcknowledged,
			t.QuorumAcknowledged)
	}
	for _, set := range [][]neon.NodeID{t.Set, t.NewSet} {
		seen := make(map[neon.NodeID]bool)
		for _, id := range set {
			if k, ok := c.s.Safekeeper(id); !ok || seen[id] || k.Gone && !t.Deleted {
				c.fail("timeline %s has the safekeepers %v", t.ID, set)
			}
			seen[id] = true
		}
	}
	if t.Joint() && len(t.Set) == 0 {
		c.fail("timeline %s has no safekeepers to migrate from", t.ID)
	}
	if t.Deleted {
		owed := 0
		for i := range c.s.safekeepers {
			if _, ok := c.s.SafekeeperOp(c.s.safekeepers[i].ID, t.Tenant, t.ID); ok {
				owed++
			}
		}
		if owed == 0 {
			c.fail("timeline %s is deleted everywhere and still recorded", t.ID)
		}
	}
}

func (c *checker) op(o *SafekeeperOp) {
	if k, ok := c.s.Safekeeper(o.Safekeeper); !ok || k.Gone {
		c.fail("safekeeper %d owes something and is not registered, or gone", o.Safekeeper)
	}
	if o.WholeTenant() {
		if o.Kind != OpDelete {
			c.fail("safekeeper %d owes %s of a whole tenant", o.Safekeeper, o.Kind)
		}
		return
	}
	t, ok := c.s.Timeline(o.Tenant, o.Timeline)
	switch {
	case !ok:
		c.fail("safekeeper %d owes %s of unknown timeline %s", o.Safekeeper, o.Kind, o.Timeline)
	case o.Kind == OpPull && (!t.Member(o.Safekeeper) && !t.Deleted || o.Generation > t.Generation):
		c.fail("safekeeper %d is to pull timeline %s, of which it is no member", o.Safekeeper,
			o.Timeline)
	case o.Kind == OpExclude && (t.Member(o.Safekeeper) || o.Generation > t.Generation):
		c.fail("safekeeper %d is to be excluded from timeline %s, of which it is a member",
			o.Safekeeper, o.Timeline)
	case o.Kind == OpDelete && !t.Deleted:
		c.fail("safekeeper %d is to delete timeline %s, which is not deleted", o.Safekeeper,
			o.Timeline)
	case o.Kind < OpPull || o.Kind > OpDelete:
		c.fail("safekeeper %d owes %d", o.Safekeeper, o.Kind)
	}
}
