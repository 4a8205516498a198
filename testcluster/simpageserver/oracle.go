package simpageserver

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"quorate/api/neon"
)

// Oracle watches every effect on a fleet and records what must not happen. The
// invariants are numbered:
//
//	I1  no pageserver receives a generation that was not committed for it before
//	I2  a generation of a shard belongs to one process of one pageserver
//	I3  the committed generation of a shard never falls
//	I4  a committed generation is consumed: it is never granted a second time
//	I5  a re-attach raises exactly the rows of its node, by one
//	I6  a pageserver never attaches lower than it did before
//	I7  at most one location holds the newest generation; Stale never re-attaches
//	I8  at rest, compute is told the newest location
//	I9  an origin is taken away only after compute heard of its successor
//	I11 at rest, every shard is attached once and nothing is in progress
//	I12 a stopped shard gets no call; shards are where the intent says
//	I13 validate says yes only to the newest committed generation
//	I14 no object is deleted that a live or future owner can reach
//	I15 a tenant's objects go after its locations, and it does not come back
//	I16 an acknowledged timeline is in an index that every future owner sees
//	I17 a timeline that was acknowledged as deleted does not come back
//	I21 at rest, the attached shards of a tenant are all of one count
//	I31 at rest, no timeline is stopped, nor offloaded and in use at the same time
//
// I10 is about what the controller believes and cannot be seen from here. What
// concerns commits (I1, I3, I4, parts of I5, I6 and I13) is checked once Granted
// has been called; I15 asks for a delete intent only if Deleting was ever used.
//
// A call whose caller gave up may take effect at any later time, and no
// controller can prevent that. Such late effects are excused from I2, I6, I7, I9
// and I15, which are about what a controller meant, and counted by Late. So is who
// takes an attachment away of which nobody can know, because such a call made it;
// and a notification that was overtaken by a younger one tells compute nothing.
type Oracle struct {
	mu         sync.Mutex
	epoch      time.Time
	procs      []processFacts // index 0 is unused: "nobody"
	nodes      map[neon.NodeID]uint32
	nodeIDs    []neon.NodeID // by index; 0 is unused
	facts      map[neon.ShardID]*shardFacts
	tenants    map[neon.TenantID]*tenantFacts
	cutOff     map[neon.NodeID]bool
	counts     countSet
	granted    bool // Granted was called at least once
	intents    bool // Deleting was called at least once
	violations []Violation
	dropped    int
	late       int
	hist       history
}

// OracleOptions bounds what an Oracle keeps.
type OracleOptions struct {
	History int // events kept; zero means 65,536, negative none
}

// maxViolations bounds the violations kept; more are only counted.
const maxViolations = 1000

// NewOracle makes an oracle that has seen nothing.
func NewOracle(opt OracleOptions) *Oracle {
	if opt.History == 0 {
		opt.History = 1 << 16
	}
	return &Oracle{
		epoch: time.Now(), procs: make([]processFacts, 1), nodeIDs: make([]neon.NodeID, 1),
		nodes: map[neon.NodeID]uint32{}, facts: map[neon.ShardID]*shardFacts{},
		tenants: map[neon.TenantID]*tenantFacts{}, cutOff: map[neon.NodeID]bool{},
		hist: history{ring: make([]Event, max(0, opt.History))},
	}
}

// processFacts is one incarnation of one pageserver.
type processFacts struct {
	node        neon.NodeID
	incarnation uint32
	alive       bool
	unreachable bool // paused, or refusing by a rule: cannot be told to detach
}

// shardFacts is what is known of one shard.
type shardFacts struct {
	gens    []genFacts // ascending
	told    uint32     // node index compute was last told; 0 is never
	stopped bool
}

// genFacts is what is known of one generation of one shard.
type genFacts struct {
	gen      neon.Generation
	grantee  uint32 // node index it was committed for; 0 is unknown
	holder   uint32 // process that attached in it; 0 is nobody
	mode     mode   // of the holder's location
	attached bool   // the holder still has it attached
	stolen   bool   // a call whose caller had gone took it away, behind everybody's back
	unknown  bool   // a call whose caller had gone made it, and nobody has touched it since
}

type tenantFacts struct {
	deleting  bool // the controller committed the intent to delete
	deleted   bool // its objects were deleted on request
	putAway   bool // its policy leaves compute nothing to use
	timelines map[neon.TimelineID]*timelineFacts
}

type timelineFacts struct {
	shards  []neon.ShardID
	deleted bool
}

// keptGenerations bounds the generations remembered of one shard.
const keptGenerations = 48

func (o *Oracle) factsOf(shard neon.ShardID) *shardFacts {
	f := o.facts[shard]
	if f == nil {
		f = &shardFacts{}
		o.facts[shard] = f
		o.counts.add(shard.Count)
	}
	return f
}

func (o *Oracle) tenantOf(t neon.TenantID) *tenantFacts {
	f := o.tenants[t]
	if f == nil {
		f = &tenantFacts{timelines: map[neon.TimelineID]*timelineFacts{}}
		o.tenants[t] = f
	}
	return f
}

func (o *Oracle) nodeIndex(id neon.NodeID) uint32 {
	i, ok := o.nodes[id]
	if !ok {
		i = uint32(len(o.nodeIDs))
		o.nodeIDs = append(o.nodeIDs, id)
		o.nodes[id] = i
	}
	return i
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

func (o *Oracle) violate(n int, shard neon.ShardID, node neon.NodeID, format string, args ...any) {
	v := Violation{
		Invariant: n, At: time.Since(o.epoch), Shard: shard, Node: node,
		Text: fmt.Sprintf(format, args...),
	}
	o.record(Event{Kind: EventViolation, Shard: shard, Node: node, Note: v.String()})
	if len(o.violations) >= maxViolations {
		o.dropped++
		return
	}
	o.violations = append(o.violations, v)
}

func (o *Oracle) record(e Event) {
	if len(o.hist.ring) == 0 {
		return
	}
	e.At = time.Since(o.epoch)
	o.hist.add(e)
}

// Violations copies what was found so far, oldest first.
func (o *Oracle) Violations() []Violation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Violation(nil), o.violations...)
}

// Err is nil as long as no invariant was violated, else an error that lists the
// first ten.
func (o *Oracle) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.violations) == 0 {
		return nil
	}
	errs := []error{fmt.Errorf("%d violated invariants", len(o.violations)+o.dropped)}
	for _, v := range o.violations[:min(10, len(o.violations))] {
		errs = append(errs, errors.New(v.String()))
	}
	return errors.Join(errs...)
}

// Late counts the effects of calls whose callers had gone, where an invariant
// would otherwise have been violated.
func (o *Oracle) Late() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.late
}

// ShardFacts is what the oracle knows of one shard.
type ShardFacts struct {
	Committed neon.Generation // newest committed; zero if unknown
	Attached  neon.Generation // highest ever attached anywhere
	Told      neon.NodeID     // what compute was last told; zero if never
	Holders   []Holder        // live attached locations, ascending by generation
}

// Holder is a live attached location.
type Holder struct {
	Node        neon.NodeID
	Incarnation uint32
	Generation  neon.Generation
	Mode        neon.LocationMode
}

// Shard copies what is known of one shard; ok is false when nothing is.
func (o *Oracle) Shard(id neon.ShardID) (s ShardFacts, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.facts[id]
	if f == nil {
		return s, false
	}
	s.Committed, _ = f.committed()
	s.Told = o.nodeIDs[f.told]
	for _, g := range f.gens {
		if g.holder != 0 {
			s.Attached = g.gen
		}
		if g.attached && o.procs[g.holder].alive {
			p := o.procs[g.holder]
			s.Holders = append(s.Holders, Holder{
				Node: p.node, Incarnation: p.incarnation, Generation: g.gen, Mode: g.mode.wire(),
			})
		}
	}
	return s, true
}
