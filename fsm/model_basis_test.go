package fsm

import (
	"pgregory.net/rapid"

	"quorate/api/neon"
)

// arrivals demands that nothing is attached where nothing is taken, but for what operators
// insist on.
func (m *machine) arrivals(t *rapid.T, before, after *State, c Command) {
	insists := map[neon.ShardID]bool{}
	switch c := c.(type) {
	case AttachUnmanaged:
		return
	case SetIntents:
		for _, in := range c.Intents {
			insists[in.Shard] = insists[in.Shard] || in.Insisted
		}
	case UpdateTenant:
		for _, in := range c.Intents {
			insists[in.Shard] = insists[in.Shard] || in.Insisted
		}
	}
	after.shards.Scan(func(sh Shard) bool {
		was, had := before.Shard(sh.ID)
		_, split := before.Split(sh.ID.Tenant)
		n, _ := before.Node(sh.Attached)
		if before.KnowsBasis() && sh.Attached != 0 && sh.Attached != was.Attached &&
			(had || !split) && !n.Schedulable() && !insists[sh.ID] &&
			!(was.Insisted && was.PreferredNode == sh.Attached) {
			t.Fatalf("%#v attaches %s on %+v", c, sh.ID, n)
		}
		return true
	})
}

// numbered demands that only those who attach themselves get numbers for stopped tenants.
func (m *machine) numbered(t *rapid.T, before *State, c Command, r Result) {
	switch c.(type) {
	case ReAttach, AttachUnmanaged, BeginSplit:
		return
	}
	for _, g := range r.Grants {
		if tenant, _ := before.Tenant(g.Shard.Tenant); before.KnowsBasis() &&
			tenant.Scheduling == neon.ShardStop {
			t.Fatalf("%#v numbers %s, whose tenant is stopped", c, g.Shard)
		}
	}
}

// baseless reports whether something that a decision was based on is not in a state.
func baseless(s *State, b *Basis, sh Shard) bool {
	if b == nil {
		return false
	}
	tenant, _ := s.Tenant(sh.ID.Tenant)
	n, _ := s.Node(b.Lost)
	return *b != (Basis{
		Generation: sh.Generation, Tenant: tenant.Sequence, Lost: b.Lost, LostSequence: n.Sequence,
	})
}

// basis is mostly what there is, sometimes something older.
func (m *machine) basis(t *rapid.T, sh Shard) *Basis {
	if rapid.IntRange(0, 2).Draw(t, "without basis") == 0 {
		return nil
	}
	b := BasisOf(m.s, &sh, drawNode.Draw(t, "lost"))
	if b != nil && rapid.IntRange(0, 3).Draw(t, "without") == 0 {
		b.Generation += neon.Generation(rapid.IntRange(0, 1).Draw(t, "generation"))
		b.Tenant = sequence(t, b.Tenant)
		b.LostSequence = sequence(t, b.LostSequence)
	}
	return b
}

func (m *machine) issues(t *rapid.T) (items []Issue) {
	for range rapid.IntRange(0, 3).Draw(t, "items") {
		id := m.anyShard(t)
		sh, _ := m.s.Shard(id)
		it := Issue{
			Shard: id, Node: sh.Attached, Generation: sh.Generation, Basis: m.basis(t, sh),
		}
		if rapid.IntRange(0, 3).Draw(t, "wrong node") == 0 {
			it.Node = drawNode.Draw(t, "node")
		}
		if rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
			it.Generation = drawGeneration.Draw(t, "generation")
		}
		items = append(items, it)
	}
	return items
}
