package simpageserver

import "quorate/api/neon"

// facts are what all checkers share: where findings go, and what is known of
// processes and of generations. The lock of the Oracle guards them.
type facts struct {
	journal *journal
	roster  *roster
	shards  *shardTable
}

// roster knows every pageserver, and every process of one.
type roster struct {
	procs   []processFacts         // index 0 is unused: no process
	nodes   map[neon.NodeID]uint32 // index of each
	nodeIDs []neon.NodeID          // by index; 0 is unused
	cutOff  map[neon.NodeID]bool   // for reasons outside of the simulator
}

// processFacts is one incarnation of one pageserver.
type processFacts struct {
	node        neon.NodeID
	incarnation uint32
	alive       bool
	unreachable bool // paused, or refusing by a rule: cannot be told to detach
}

func newRoster() *roster {
	return &roster{
		procs: make([]processFacts, 1), nodes: map[neon.NodeID]uint32{},
		nodeIDs: make([]neon.NodeID, 1), cutOff: map[neon.NodeID]bool{},
	}
}

func (r *roster) nodeIndex(id neon.NodeID) uint32 {
	i, ok := r.nodes[id]
	if !ok {
		i = uint32(len(r.nodeIDs))
		r.nodeIDs = append(r.nodeIDs, id)
		r.nodes[id] = i
	}
	return i
}

// add registers a process and returns its index.
func (r *roster) add(node neon.NodeID, incarnation uint32) uint32 {
	r.nodeIndex(node)
	r.procs = append(r.procs, processFacts{node: node, incarnation: incarnation, alive: true})
	return uint32(len(r.procs) - 1)
}

// reachable reports whether a controller could tell a process to detach.
func (r *roster) reachable(p uint32) bool {
	f := r.procs[p]
	return f.alive && !f.unreachable && !r.cutOff[f.node]
}

// holders are the live attachments of a shard.
func (r *roster) holders(f *shardFacts) (all []Holder) {
	for _, g := range f.gens {
		if p := r.procs[g.holder]; g.attached && p.alive {
			all = append(all, Holder{
				Node: p.node, Incarnation: p.incarnation, Generation: g.gen, Mode: g.mode.wire(),
			})
		}
	}
	return all
}

// shardTable knows the generations of all shards.
type shardTable struct {
	facts   map[neon.ShardID]*shardFacts
	counts  countSet
	granted bool // commits are reported
}

// shardFacts are the generations of one shard.
type shardFacts struct {
	gens []genFacts // ascending
}

// genFacts is what is known of one generation of one shard.
type genFacts struct {
	gen      neon.Generation
	grantee  uint32 // node index it was committed for; 0 is unknown
	holder   uint32 // process that attached in it; 0 is none
	mode     mode   // of the holder's location
	attached bool   // the holder still has it attached
	stolen   bool   // a call whose caller had gone took it away
	unknown  bool   // a call whose caller had gone made it, and nothing has changed it since
}

// keptGenerations bounds the generations remembered of one shard.
const keptGenerations = 48

// of finds or makes the facts of a shard.
func (t *shardTable) of(shard neon.ShardID) *shardFacts {
	f := t.facts[shard]
	if f == nil {
		f = &shardFacts{}
		t.facts[shard] = f
		t.counts.add(shard.Count)
	}
	return f
}

// newest is the best known newest generation of a shard.
func (t *shardTable) newest(shard neon.ShardID) (neon.Generation, bool) {
	if f := t.facts[shard]; f != nil {
		return f.newest()
	}
	return 0, false
}

// at finds or inserts the facts of one generation. The pointer is good until
// the next call.
func (f *shardFacts) at(gen neon.Generation) *genFacts {
	i := len(f.gens)
	for i > 0 && f.gens[i-1].gen >= gen {
		i--
		if f.gens[i].gen == gen {
			return &f.gens[i]
		}
	}
	if len(f.gens) >= keptGenerations && i > 0 && !f.gens[0].attached {
		f.gens = append(f.gens[:0], f.gens[1:]...)
		i--
	}
	f.gens = append(f.gens, genFacts{})
	copy(f.gens[i+1:], f.gens[i:])
	f.gens[i] = genFacts{gen: gen}
	return &f.gens[i]
}

// committed is the newest generation known to be committed.
func (f *shardFacts) committed() (neon.Generation, bool) {
	for i := len(f.gens) - 1; i >= 0; i-- {
		if f.gens[i].grantee != 0 {
			return f.gens[i].gen, true
		}
	}
	return 0, false
}

// newest is the best known newest generation: the newest committed one, or the
// newest that any pageserver attached in.
func (f *shardFacts) newest() (neon.Generation, bool) {
	if g, ok := f.committed(); ok {
		return g, true
	}
	for i := len(f.gens) - 1; i >= 0; i-- {
		if f.gens[i].holder != 0 {
			return f.gens[i].gen, true
		}
	}
	return 0, false
}
