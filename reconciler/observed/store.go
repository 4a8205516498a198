package observed

import (
	"iter"

	"quorate/api/neon"
	"quorate/reconciler/plan"
)

// location is what is known of a shard on a node. Where there is none, the shard
// is absent if the node was listed and unknown if it was not.
//
// There is one for each location in the fleet, so its fields are as narrow as they can be.
type location struct {
	shard neon.ShardID
	mode  mode
	state state
	calls int16 // under way that may change it

	generation neon.Generation
	stripe     neon.StripeSize
	config     neon.TenantConfig
	at         uint64 // clock of the last change

	on                  uint32 // its node, as an index of the store's nodes
	before, after, next ref    // its neighbours on the node, and the next one of the shard
}

// state has what is true of a location.
type state uint8

const (
	known  state = 1 << iota
	failed       // the last call failed
	had          // it was attached when the node's process ended, and not seen since
	mixed        // several calls were under way at a time, and some still are
)

// mode is a neon.LocationMode as an index of modes.
type mode uint8

// modes are those that a location can be seen in. The first is that nothing is there.
var modes = [...]neon.LocationMode{
	"", neon.AttachedSingle, neon.AttachedMulti, neon.AttachedStale, neon.Secondary,
}

// modeOf is false for a mode that this program does not know.
func modeOf(m neon.LocationMode) (mode, bool) {
	for i := range modes {
		if modes[i] == m {
			return mode(i), true
		}
	}
	return 0, m == neon.Detached
}

func (l *location) is(s state) bool { return l.state&s != 0 }

func (l *location) set(s state, on bool) {
	if l.state &^= s; on {
		l.state |= s
	}
}

// attached reports whether it is known to be attached.
func (l *location) attached() bool { return l.is(known) && modes[l.mode].Attached() }

// absent reports whether it is known that nothing is there.
func (l *location) absent() bool { return l.is(known) && l.mode == 0 }

// conf is what it is, as far as that is known.
func (l *location) conf() plan.Conf {
	return plan.Conf{
		Mode: modes[l.mode], Generation: l.generation, Stripe: l.stripe, Config: l.config,
	}
}

// learn makes it known to be c, unless that is something that this program does not know.
func (l *location) learn(c plan.Conf) {
	m, ok := modeOf(c.Mode)
	l.set(known, ok)
	l.mode, l.generation, l.stripe, l.config = m, c.Generation, c.Stripe, c.Config
}

// unlearn makes it unknown.
func (l *location) unlearn() {
	l.set(known|failed, false)
	l.mode, l.generation, l.stripe, l.config = 0, 0, 0, neon.TenantConfig{}
}

// ref is the number of a location in a store, from 1; 0 is none.
type ref uint32

// residents are the locations on a node.
type residents struct {
	node  neon.NodeID
	first ref
	count int
}

// chunk is how many locations are allocated together.
const chunk = 512

// store has the locations, by shard and by node. Its memory is one piece for many
// locations, and a location costs about 120 bytes with all that leads to it. It has no lock.
type store struct {
	chunks []*[chunk]location
	free   ref // the first of those that are not used, by next
	shards map[neon.ShardID]ref
	nodes  []residents // of all nodes that there ever was a location on
	index  map[neon.NodeID]uint32
}

func newStore() store {
	return store{shards: make(map[neon.ShardID]ref), index: make(map[neon.NodeID]uint32)}
}

// node is the node that a location is on.
func (s *store) node(l *location) neon.NodeID { return s.nodes[l.on].node }

func (s *store) at(r ref) *location { return &s.chunks[(r-1)/chunk][(r-1)%chunk] }

// find returns the location of a shard on a node; nil for none. It is valid until it is
// removed.
func (s *store) find(id neon.ShardID, n neon.NodeID) *location {
	for l := range s.of(id) {
		if s.node(l) == n {
			return l
		}
	}
	return nil
}

// locate finds or makes the location of a shard on a node, as unknown.
func (s *store) locate(id neon.ShardID, n neon.NodeID) *location {
	if l := s.find(id, n); l != nil {
		return l
	}
	i, ok := s.index[n]
	if !ok {
		i = uint32(len(s.nodes))
		s.nodes, s.index[n] = append(s.nodes, residents{node: n}), i
	}
	r, on := s.take(), &s.nodes[i]
	l := s.at(r)
	*l = location{shard: id, on: i, next: s.shards[id], after: on.first}
	if on.first != 0 {
		s.at(on.first).before = r
	}
	on.first = r
	on.count++
	s.shards[id] = r
	return l
}

// take finds the room for one more location.
func (s *store) take() ref {
	if s.free == 0 {
		s.chunks = append(s.chunks, new([chunk]location))
		for r := ref(len(s.chunks) * chunk); r > ref((len(s.chunks)-1)*chunk); r-- {
			s.at(r).next, s.free = s.free, r
		}
	}
	r := s.free
	s.free = s.at(r).next
	return r
}

// remove drops a location.
func (s *store) remove(l *location) {
	on := &s.nodes[l.on]
	r := s.unchain(l)
	if l.before != 0 {
		s.at(l.before).after = l.after
	} else {
		on.first = l.after
	}
	if l.after != 0 {
		s.at(l.after).before = l.before
	}
	on.count--
	*l = location{next: s.free}
	s.free = r
}

// unchain takes a location out of the list of its shard and returns its number.
func (s *store) unchain(l *location) ref {
	r := s.shards[l.shard]
	if s.at(r) == l {
		if l.next == 0 {
			delete(s.shards, l.shard)
		} else {
			s.shards[l.shard] = l.next
		}
		return r
	}
	for {
		prior := s.at(r)
		if r = prior.next; s.at(r) == l {
			prior.next = l.next
			return r
		}
	}
}

// of are the locations of a shard. The one at hand may be removed.
func (s *store) of(id neon.ShardID) iter.Seq[*location] {
	return func(yield func(*location) bool) {
		for r := s.shards[id]; r != 0; {
			l := s.at(r)
			if r = l.next; !yield(l) {
				return
			}
		}
	}
}

// on are the locations on a node. The one at hand may be removed.
func (s *store) on(n neon.NodeID) iter.Seq[*location] {
	return func(yield func(*location) bool) {
		i, ok := s.index[n]
		if !ok {
			return
		}
		for r := s.nodes[i].first; r != 0; {
			l := s.at(r)
			if r = l.after; !yield(l) {
				return
			}
		}
	}
}

// count is how many locations there are on a node.
func (s *store) count(n neon.NodeID) int {
	if i, ok := s.index[n]; ok {
		return s.nodes[i].count
	}
	return 0
}
