package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"quorate/api/neon"
)

// reindex rebuilds what is derived from the records: the index from nodes to
// shards and the counts.
func (s *State) reindex() {
	// The shards come in order, and so do those of each node.
	entries := make(map[neon.NodeID][]nodeShard, len(s.nodes))
	s.counts, s.owned = make([]NodeCounts, len(s.nodes)), true
	s.countOps()
	s.totals = Totals{}
	s.removals = tree(lessRemoval)
	s.tenants.Scan(func(t Tenant) bool {
		s.totals.Placed += t.placed()
		s.indexRemover(&Tenant{}, &t)
		return true
	})
	s.shards.Scan(func(sh Shard) bool {
		sh.nodes(func(n neon.NodeID) {
			entries[n] = append(entries[n],
				nodeShard{node: n, shard: sh.ID, roles: sh.rolesOn(n)})
		})
		s.tally(&sh, +1)
		return true
	})
	s.owned = false
	s.byNode = tree(lessNodeShard)
	for _, n := range slices.Sorted(maps.Keys(entries)) {
		for _, e := range entries[n] {
			s.byNode.Load(e)
		}
	}
}

// tally adds a shard to the counts of its nodes and to the totals. With by -1 it takes
// the shard away.
func (s *State) tally(sh *Shard, by int) {
	s.count(sh, by)
	if s.away(sh) {
		s.totals.Elsewhere += by
	}
	if sh.Exhausted() {
		s.totals.Exhausted += by
	}
}

// Check verifies every internal invariant of a state and lists, up to a bound,
// all that do not hold. It walks everything: for tests, snapshots and the
// operator's consistency check.
func Check(s *State) error {
	c := &checker{s: s}
	c.records()
	c.derived()
	c.sums()
	return errors.Join(c.errs...)
}

// checkRecords is Check for a state that was made of its records a moment ago.
func checkRecords(s *State) error {
	c := &checker{s: s}
	c.records()
	return errors.Join(c.errs...)
}

func (c *checker) records() {
	c.nodes()
	c.tenants()
	c.splits()
	c.s.shards.Scan(func(sh Shard) bool { c.shard(&sh); return len(c.errs) < 32 })
	c.safekeeping()
	c.timelineWork()
	checkTravels(c)
	checkOutcomes(c)
}

type checker struct {
	s    *State
	errs []error
}

func (c *checker) fail(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *checker) nodes() {
	if len(c.s.counts) != len(c.s.nodes) {
		c.fail("%d nodes but %d counts", len(c.s.nodes), len(c.s.counts))
	}
	for i, n := range c.s.nodes {
		if n.ID == 0 || i > 0 && c.s.nodes[i-1].ID >= n.ID {
			c.fail("node %d is out of order", n.ID)
		}
		if !n.Scheduling.Valid() {
			c.fail("node %d has scheduling policy %q", n.ID, n.Scheduling)
		}
		if !knownAvailability(n.Availability) {
			c.fail("node %d has availability %q", n.ID, n.Availability)
		}
		if n.Silent < 0 || n.Silent != 0 && n.Availability == neon.NodeOffline {
			c.fail("node %d is %s and silent since %d", n.ID, n.Availability, n.Silent)
		}
		if op := n.Operation; op.Kind != OperationNone &&
			(op.Kind > OperationDelete || n.Tombstone ||
				!op.Interrupted && n.Scheduling != op.Kind.during() || !op.Prior.Valid()) {
			c.fail("node %d with policy %s has operation %+v", n.ID, n.Scheduling, op)
		}
		if op := n.Operation; op.Kind == OperationNone && op != (Operation{}) {
			c.fail("node %d has the rest of an operation: %+v", n.ID, op)
		}
	}
}

func (c *checker) tenants() {
	shards := 0
	c.s.tenants.Scan(func(t Tenant) bool {
		shards += t.Count.Shards()
		for _, id := range t.Shards() {
			if _, ok := c.s.Shard(id); !ok {
				c.fail("tenant %s lacks shard %s", t.ID, id)
			}
		}
		if !t.Scheduling.Valid() || t.Policy.Kind > neon.PlaceAttached {
			c.fail("tenant %s has policies %v and %q", t.ID, t.Policy, t.Scheduling)
		}
		if t.Deleting && t.Policy.Kind != neon.PlaceDetached {
			c.fail("tenant %s is being deleted but placed %v", t.ID, t.Policy)
		}
		if t.Remover != (Remover{}) && (t.Remover.Node == 0 || !t.Deleting) {
			c.fail("tenant %s is not being deleted and %+v removes its data", t.ID, t.Remover)
		}
		return len(c.errs) < 32
	})
	if len(c.errs) == 0 && shards != c.s.shards.Len() {
		c.fail("tenants have %d shards, there are %d", shards, c.s.shards.Len())
	}
}

func (c *checker) shard(s *Shard) {
	t, ok := c.s.Tenant(s.ID.Tenant)
	if !ok || t.Count != s.ID.Count {
		c.fail("shard %s belongs to no tenant", s.ID)
		return
	}
	if s.GenNode != 0 && (!s.HasGeneration || s.Generation == 0) {
		c.fail("shard %s has an owner but no generation", s.ID)
	}
	if s.Unmanaged && t.Deleting {
		c.fail("shard %s is left to others though it is being deleted", s.ID)
	}
	if s.ComputeAcknowledged && s.GenNode == 0 {
		c.fail("shard %s is known to compute but owned by nobody", s.ID)
	}
	if t.Policy.Kind != neon.PlaceAttached && (s.Attached != 0 || s.GenNode != 0) {
		c.fail("shard %s is attached though placed %v", s.ID, t.Policy)
	}
	if t.Policy.Kind == neon.PlaceDetached && len(s.Secondary) > 0 {
		c.fail("shard %s has secondaries though detached", s.ID)
	}
	for i, n := range s.Secondary {
		if n == s.Attached || slices.Contains(s.Secondary[:i], n) {
			c.fail("shard %s has node %d twice", s.ID, n)
		}
	}
	c.move(s)
	s.nodes(func(n neon.NodeID) {
		if node, ok := c.s.Node(n); !ok || node.Tombstone && s.Intends(n) {
			c.fail("shard %s refers to node %d, which does not exist", s.ID, n)
		}
	})
}

// move verifies that a move can still arrive.
func (c *checker) move(s *Shard) {
	p := s.PreferredNode
	if n, _ := c.s.Node(p); c.s.KnowsBasis() && p != 0 &&
		(!s.HasSecondary(p) || !n.Takes() && !s.Insisted) {
		c.fail("shard %s is to move to node %d, which is %s, with secondaries on %v", s.ID, p,
			n.Scheduling, s.Secondary)
	}
	if (s.PlacedOn != 0) != (s.PlacedAt > 0) {
		c.fail("shard %s was placed on node %d at %d", s.ID, s.PlacedOn, s.PlacedAt)
	}
	if s.Insisted && p == 0 {
		c.fail("shard %s moves nowhere, and an operator insists on that", s.ID)
	}
}

// derived compares the index and the counts with ones made anew.
func (c *checker) derived() {
	fresh := *c.s
	fresh.reindex()
	if !slices.Equal(fresh.counts, c.s.counts) {
		c.fail("counts of nodes have drifted: %v, not %v", c.s.counts, fresh.counts)
	}
	if !slices.Equal(fresh.owed, c.s.owed) {
		c.fail("what safekeepers owe has drifted: %v, not %v", c.s.owed, fresh.owed)
	}
	if fresh.totals != c.s.totals {
		c.fail("totals have drifted: %+v, not %+v", c.s.totals, fresh.totals)
	}
	if was, is := c.s.removals.Items(), fresh.removals.Items(); !slices.Equal(was, is) {
		c.fail("index of removals has drifted: %v, not %v", was, is)
	}
	if fresh.byNode.Len() != c.s.byNode.Len() {
		c.fail("index of nodes has %d entries, not %d", c.s.byNode.Len(), fresh.byNode.Len())
		return
	}
	fresh.byNode.Scan(func(e nodeShard) bool {
		if got, ok := c.s.byNode.Get(e); !ok || got != e {
			c.fail("index of node %d is wrong about %s", e.node, e.shard)
		}
		return len(c.errs) < 32
	})
}

// Hash is the SHA-256 of the whole state in hex: equal on two replicas exactly
// when they applied the same entries.
func (s *State) Hash() string {
	h := sha256.New()
	if err := s.encodeTo(h); err != nil {
		panic(err) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}
