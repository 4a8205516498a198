package fsm

import (
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// TestHistoriesKeepInvariants drives random histories, with retries, snapshots,
// restores and recoveries from an older snapshot in between. See machine.apply for
// what is demanded of every step.
func TestHistoriesKeepInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		if rapid.Bool().Draw(t, "upgraded") {
			m.apply(t, RequestID{}, SetLevel{Level: Level})
		}
		for id := neon.NodeID(1); id <= modelNodes; id++ {
			m.apply(t, RequestID{},
				RegisterNode{ID: id, AZ: drawZone.Draw(t, "zone"), Addr: NodeAddr{HTTPHost: "ps"}})
		}
		command := func(t *rapid.T) { m.step(t) }
		t.Repeat(map[string]func(*rapid.T){
			"command":       command,
			"command again": command,
			"and again":     command,
			"retry":         m.retry,
			"re-attach":     m.reAttach,
			"snapshot":      func(t *rapid.T) { m.s = restored(t, m.s) },
			"keep": func(
				t *rapid.T,
			) {
				m.kept = append(m.kept, kept{m.s, m.s.Hash()})
				m.backup = m.s
			},
			"recover": m.recover,
			"": func(t *rapid.T) {
				for _, k := range m.kept {
					if k.s.Hash() != k.hash {
						t.Fatal("an old state has changed")
					}
				}
			},
		})
	})
}

// step applies a command, half of the time under a request id.
func (m *machine) step(t *rapid.T) {
	var id RequestID
	if rapid.Bool().Draw(t, "named") {
		binary.BigEndian.PutUint64(id[:], m.index+1)
	}
	c := m.command(t)
	r := m.apply(t, id, c)
	if r.Duplicate {
		t.Fatalf("%#v is no duplicate", c)
	}
	// What was taken for nothing was not done.
	if m.s.NamesEachChange() && len(r.Refused) > 0 {
		in, _ := c.(SetIntents)
		az, _ := c.(SetPreferredAZs)
		if len(in.Intents)+len(az.Items) == len(r.Refused) {
			return
		}
	}
	if r.Err == nil && id != (RequestID{}) {
		m.named = append(m.named, named{id, c, r.Index})
	}
}

// note draws what only takes note of something, or nothing.
func (m *machine) note(t *rapid.T, n *Node) Command {
	switch rapid.IntRange(0, 3).Draw(t, "note") {
	case 0:
		return NoteRequest{}
	case 1:
		return NoteProgress{
			Node: n.ID, Begun: sequence(t, n.Operation.Begun),
			At: rapid.Int64Range(-1, 3).Draw(t, "at"),
		}
	}
	return nil
}

// retry sends a command that was applied once more: it is recognised, says when,
// and (see apply) changes nothing. A later try of a request may have come to decide
// otherwise, and is recognised as well.
func (m *machine) retry(t *rapid.T) {
	if len(m.named) == 0 {
		t.Skip("nothing to retry")
	}
	n := rapid.SampledFrom(m.named).Draw(t, "retry")
	switch n.c.(type) {
	case BeginDeleteTimeline, BeginSplit: // may have been taken back
		if _, done := m.s.Done(n.id); !done {
			t.Skip("forgotten")
		}
	}
	if m.s.NamesEachChange() && rapid.Bool().Draw(t, "otherwise") {
		n.c = m.command(t)
		if Admit(m.s, n.c) != nil {
			t.Skip("not known yet")
		}
	}
	r := m.apply(t, n.id, n.c)
	if !r.Duplicate || r.Err != nil || r.Index != n.index {
		t.Fatalf("the retry of %#v, first applied at %d, got %+v", n.c, n.index, r)
	}
}

// reAttach demands that exactly the shards whose newest number belongs to the node
// get the next one, and that all others intended there are named as secondaries.
func (m *machine) reAttach(t *rapid.T) {
	node := neon.NodeID(rapid.IntRange(1, modelNodes).Draw(t, "node"))
	before := m.s
	r := m.apply(t, RequestID{}, ReAttach{Node: node})
	var want []Location
	var leftOut []neon.ShardID
	before.shards.Scan(func(was Shard) bool {
		is, _ := m.s.Shard(was.ID)
		tenant, _ := before.Tenant(was.ID.Tenant)
		loc := Location{Shard: was.ID, Mode: neon.Secondary, Stripe: tenant.Stripe}
		if r.Err == nil && was.GenNode == node && was.Exhausted() {
			leftOut = append(leftOut, was.ID)
			if !was.HasSecondary(node) {
				return true
			}
		}
		switch {
		case r.Err == nil && was.GenNode == node && !was.Exhausted():
			if was.Generation++; is.Generation != was.Generation || is.GenNode != node {
				t.Fatalf("%s should have got %d: %+v", was.ID, was.Generation, is)
			}
			loc.Mode, loc.Generation = neon.AttachedSingle, is.Generation
			want = append(want, loc)
		case r.Err == nil && was.Intends(node):
			want = append(want, loc)
		}
		if n, _ := before.Node(node); r.Err == nil {
			cancelMove(&was, n, m.s.Index)
		}
		if !sameShard(was, is) {
			t.Fatalf("a re-attach of node %d turned %+v into %+v", node, was, is)
		}
		return true
	})
	if !slices.Equal(r.LeftOut, leftOut) || len(leftOut) > 0 && before.AgreedLevel() == firstLevel {
		t.Fatalf("node %d: %v are left out, not %v", node, r.LeftOut, leftOut)
	}
	if !slices.Equal(r.ReAttached, want) {
		t.Fatalf("node %d was told %+v, not %+v", node, r.ReAttached, want)
	}
	if r.Err == nil {
		n, _ := m.s.Node(node)
		if was, _ := before.Node(node); n.Availability != neon.NodeWarmingUp ||
			n.Incarnation != was.Incarnation+1 {
			t.Fatalf("after a re-attach: %+v", n)
		}
	}
}

// cancelMove does what the end of a node's operation does to a shard that it moves.
func cancelMove(s *Shard, n Node, index uint64) {
	moves := s.PreferredNode != 0 && s.Attached == n.ID
	switch n.Operation.Kind {
	case OperationNone:
		return
	case OperationFill:
		moves = s.PreferredNode == n.ID && s.HasSecondary(n.ID)
	}
	if moves {
		s.PreferredNode, s.Insisted, s.Sequence = 0, false, index
	}
}

// recover loses everything since the backup and goes on as another cluster. That
// no number is issued again is checked against all that were ever granted.
func (m *machine) recover(t *rapid.T) {
	if m.backup == nil {
		t.Skip("no backup")
	}
	s, err := Recover(restored(t, m.backup), "recovered")
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(s); err != nil {
		t.Fatal(err)
	}
	for id, highest := range m.highest {
		base, _ := m.backup.firstGeneration(id.Tenant, 0)
		if sh, ok := m.backup.Shard(id); ok {
			base = sh.Generation
		}
		if sh, ok := s.Shard(id); ok && sh.Exhausted() {
			continue // nothing will be issued for it any more
		}
		if uint64(highest) > uint64(base)+RecoveryGap {
			t.Skip("somebody chose a number beyond the gap since")
		}
	}
	if s.ClusterID != "recovered" || s.Epoch != m.backup.Epoch+1 {
		t.Fatalf("recovered as %q in epoch %d", s.ClusterID, s.Epoch)
	}
	m.s, m.named = s, nil
	clear(m.configured) // what came after the backup is not known
	clear(m.remote.removing)
	// One backup may serve only once: its numbers are taken now.
	m.backup = nil
}

// TestIndexesFollowEveryChange: what the index of a node yields is what a walk
// over all shards finds.
func TestIndexesFollowEveryChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		for id := neon.NodeID(1); id <= modelNodes; id++ {
			m.apply(t, RequestID{}, RegisterNode{ID: id, Addr: NodeAddr{HTTPHost: "ps"}})
		}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			m.apply(t, RequestID{}, m.command(t))
		}
		from := m.anyShard(t)
		for id := neon.NodeID(1); id <= modelNodes; id++ {
			var attached, secondary, any []neon.ShardID
			for sh := range m.s.ShardsFrom(neon.ShardID{}) {
				if sh.Attached == id && !sh.ID.Less(from) {
					attached = append(attached, sh.ID)
				}
				if sh.HasSecondary(id) && !sh.ID.Less(from) {
					secondary = append(secondary, sh.ID)
				}
				if sh.Intends(id) || sh.GenNode == id {
					any = append(any, sh.ID)
				}
			}
			for name, c := range map[string]struct{ got, want []neon.ShardID }{
				"attached":  {idsOf(m.s.AttachedOn(id, from)), attached},
				"secondary": {idsOf(m.s.SecondaryOn(id, from)), secondary},
				"any":       {idsOf(m.s.NodeShards(id)), any},
			} {
				if !slices.Equal(c.got, c.want) {
					t.Fatalf("node %d, %s from %s: %v, not %v", id, name, from, c.got, c.want)
				}
			}
		}
	})
}

func idsOf(shards func(func(Shard) bool)) (ids []neon.ShardID) {
	for sh := range shards {
		ids = append(ids, sh.ID)
	}
	return ids
}
