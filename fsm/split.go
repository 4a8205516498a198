package fsm

import (
	"iter"

	"quorate/api/neon"
)

// SplitPhase is how far a split is.
type SplitPhase uint8

// The phases. Asking and Aborting freeze the tenant: no command but the split's own
// and the start of a pageserver moves its shards.
const (
	SplitAsking   SplitPhase = iota // pageservers are asked; the parents are the tenant
	SplitAborting                   // the children are to be removed; the parents are the tenant
	SplitDone                       // the children, or after an abort the parents, are the tenant
)

func (p SplitPhase) String() string {
	switch p {
	case SplitAsking:
		return "asking"
	case SplitAborting:
		return "aborting"
	case SplitDone:
		return "done"
	}
	return "unknown"
}

// Split is the replicated record of the split of one tenant. Until it is committed
// the children exist only here: they cannot be located, placed, re-attached or
// validated.
type Split struct {
	Tenant neon.TenantID   `cbor:"1,keyasint"`
	Phase  SplitPhase      `cbor:"2,keyasint"`
	Began  uint64          `cbor:"3,keyasint"` // log index; names this try
	Count  neon.ShardCount `cbor:"4,keyasint"` // of the children
	Stripe neon.StripeSize `cbor:"5,keyasint"` // of the children

	// Parents are all shards of the tenant by number, as they were at the
	// beginning; empty in SplitDone.
	Parents []SplitParent `cbor:"6,keyasint,omitempty"`

	// Code and Reason say why it is aborted.
	Code   neon.Code `cbor:"7,keyasint,omitempty"`
	Reason string    `cbor:"8,keyasint,omitempty"`

	// Leftovers are locations of earlier shards that are still to be removed from
	// pageservers. No listing shows them. Only a detach or a restart removes them.
	Leftovers []Leftover `cbor:"9,keyasint,omitempty"`
}

// SplitParent is one shard that is split: on the node that has it, in the
// generation that its children begin in.
type SplitParent struct {
	Shard      neon.ShardID    `cbor:"1,keyasint"`
	Node       neon.NodeID     `cbor:"2,keyasint"`
	Generation neon.Generation `cbor:"3,keyasint"`
}

// Leftover is a location of a shard that does not exist any more.
type Leftover struct {
	Shard neon.ShardID `cbor:"1,keyasint"`
	Node  neon.NodeID  `cbor:"2,keyasint"`
}

// Active reports whether the tenant is frozen by the split.
func (s *Split) Active() bool { return s.Phase != SplitDone }

// Children lists what a parent becomes, by number.
func (s *Split) Children(parent neon.ShardID) []neon.ShardID { return parent.Children(s.Count) }

// splitTable holds the splits by tenant.
type splitTable struct{ splits table[neon.TenantID, Split] }

func newSplitTable() splitTable {
	return splitTable{newTable(tagSplit, func(s *Split) neon.TenantID { return s.Tenant },
		neon.TenantID.Less, cborRecord[Split])}
}

func (t *splitTable) copy() splitTable { return splitTable{t.splits.copy()} }

// Split finds the split of a tenant, a finished one with leftovers included.
func (t *splitTable) Split(
	id neon.TenantID,
) (Split, bool) {
	return t.splits.Get(id)
}

// Splitting reports whether a tenant is frozen by a split.
func (t *splitTable) Splitting(id neon.TenantID) bool {
	sp, ok := t.Split(id)
	return ok && sp.Active()
}

// Splits yields all splits by tenant.
func (t *splitTable) Splits() iter.Seq[Split] {
	return func(yield func(Split) bool) { t.splits.Scan(yield) }
}

// splitIn finds a split that began at an index and is in a phase. The Result
// refuses any other.
func (t *splitTable) splitIn(id neon.TenantID, began uint64, phase SplitPhase) (Split, Result) {
	sp, ok := t.Split(id)
	if !ok || sp.Began != began || sp.Phase != phase {
		return sp, refuse(neon.Conflict, "the split of tenant %s is not %s any more", id, phase)
	}
	return sp, Result{}
}

func (c *checker) splits() {
	c.s.splits.Scan(func(sp Split) bool {
		tenant, ok := c.s.Tenant(sp.Tenant)
		switch {
		case !ok:
			c.fail("split of tenant %s, which does not exist", sp.Tenant)
			return true
		case sp.Phase > SplitDone, sp.Phase == SplitDone && len(sp.Leftovers) == 0:
			c.fail("split of tenant %s is in phase %d with %d leftovers", sp.Tenant, sp.Phase,
				len(sp.Leftovers))
		case sp.Phase == SplitDone && len(sp.Parents) > 0:
			c.fail("split of tenant %s is done and has parents", sp.Tenant)
		}
		if sp.Active() {
			c.activeSplit(&sp, &tenant)
		}
		return len(c.errs) < 32
	})
}

func (c *checker) activeSplit(sp *Split, tenant *Tenant) {
	if tenant.Deleting || tenant.Policy.Kind != neon.PlaceAttached {
		c.fail("tenant %s is being split and placed %v, deleting %v", sp.Tenant, tenant.Policy,
			tenant.Deleting)
	}
	if !neon.CanSplit(tenant.Count, sp.Count) || sp.Stripe == 0 {
		c.fail("tenant %s with %d shards is being split to %d with stripe %d", sp.Tenant,
			tenant.Count, sp.Count, sp.Stripe)
	}
	if len(sp.Parents) != tenant.Count.Shards() {
		c.fail("split of tenant %s has %d parents of %d", sp.Tenant, len(sp.Parents),
			tenant.Count.Shards())
		return
	}
	for i, id := range tenant.Shards() {
		p := sp.Parents[i]
		sh, ok := c.s.Shard(id)
		there := sh.Attached == p.Node && sh.GenNode == p.Node
		lost := sp.Phase == SplitAborting && sh.Attached == 0 // its node was deleted
		if !ok || p.Shard != id || sh.Generation < p.Generation || !there && !lost {
			c.fail("shard %s moved to %d, generation %s of node %d, while split as %+v", id,
				sh.Attached, sh.Generation, sh.GenNode, p)
		}
	}
}
