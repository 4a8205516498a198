package fsm

import (
	"fmt"
	"slices"

	"quorate/api/neon"
)

// importIndex is the log index of a state that did not come out of a log.
const importIndex = 1

// Records are a state that was kept elsewhere, taken apart, in any order.
type Records struct {
	ClusterID   string
	Nodes       []Node
	Tenants     []Tenant
	Shards      []Shard
	Splits      []Split
	Safekeepers []Safekeeper
	Timelines   []Timeline
	Ops         []SafekeeperOp
	Imports     []Import
}

// FromRecords makes a state of records. It is refused when they repeat or an invariant does
// not hold.
//
// Nothing is known of tenants that were deleted before, so those that are created later
// count from above all generations that are recorded, up to half of all that there are.
func FromRecords(r Records) (*State, error) {
	s := NewState()
	s.Index, s.ClusterID = importIndex, r.ClusterID
	highest := neon.Generation(0)
	for _, sh := range r.Shards {
		highest = max(highest, sh.Generation)
	}
	if highest > 0 {
		s.Epoch = min(uint64(highest)/RecoveryGap+1, maxEpoch/2)
	}
	for _, n := range slices.Clone(r.Nodes) {
		if _, repeats := s.Node(n.ID); repeats {
			return nil, fmt.Errorf("node %d: %w", n.ID, errRepeat)
		}
		n.Sequence = importIndex
		s.put(n)
	}
	s.owned = false
	for _, t := range r.Tenants {
		t.Sequence = importIndex
		s.tenants.Set(t)
	}
	for _, sh := range r.Shards {
		sh.Sequence = importIndex
		s.shards.Set(sh)
	}
	for _, sp := range r.Splits {
		sp.Began = importIndex
		s.splits.Set(sp)
	}
	if err := takeSafekeeping(s, r); err != nil {
		return nil, err
	}
	for _, i := range r.Imports {
		i.Sequence = importIndex
		s.imports.Set(i)
	}
	if s.tenants.Len() != len(r.Tenants) || s.shards.Len() != len(r.Shards) ||
		s.splits.Len() != len(r.Splits) || s.timelines.Len() != len(r.Timelines) ||
		s.ops.Len() != len(r.Ops) || s.imports.Len() != len(r.Imports) {
		return nil, errRepeat
	}
	s.reindex()
	if err := Check(s); err != nil {
		return nil, err
	}
	return s, nil
}

func takeSafekeeping(s *State, r Records) error {
	t := begin(s)
	t.Index = importIndex
	for _, k := range r.Safekeepers {
		if _, repeats := t.Safekeeper(k.ID); repeats {
			return fmt.Errorf("safekeeper %d: %w", k.ID, errRepeat)
		}
		t.setSafekeeper(k)
	}
	for _, tl := range r.Timelines {
		t.setTimeline(tl)
	}
	for _, op := range r.Ops {
		t.putOp(op)
	}
	*s = *t.snapshot()
	return nil
}

// RecordsOf takes a state apart. What is not in Records is not in them: operations on nodes
// stand in their nodes, and what is remembered of the past is left out.
func RecordsOf(s *State) Records {
	r := Records{
		ClusterID: s.ClusterID, Nodes: slices.Clone(s.nodes),
		Tenants: slices.Collect(s.TenantsFrom(neon.TenantID{})),
		Shards:  slices.Collect(s.ShardsFrom(neon.ShardID{})),
		Splits:  slices.Collect(s.Splits()), Safekeepers: slices.Clone(s.safekeepers),
		Timelines: slices.Collect(s.Timelines()), Imports: slices.Collect(s.Imports()),
	}
	s.ops.Scan(func(o SafekeeperOp) bool { r.Ops = append(r.Ops, o); return true })
	return r
}
