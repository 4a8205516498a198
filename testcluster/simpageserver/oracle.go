package simpageserver

import (
	"io"
	"sync"

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
//	I32 nothing is attached while the objects of its tenant are put back in time
//
// I10 is about what the controller believes and cannot be seen from here. What
// concerns commits (I1, I3, I4, parts of I5, I6 and I13) is checked once Granted
// has been called; I15 asks for a delete intent only if Deleting was ever used.
//
// A call whose caller gave up may take effect at any later time, and no
// controller can prevent that. Such late effects are excused from I2, I6, I7, I9
// and I15, which are about what a controller meant, and counted by Late. So is who
// takes an attachment away that no controller can know of, because such a call made it;
// and a notification that was overtaken by a younger one tells compute nothing.
//
// Each family of invariants has a checker with its own state. All of them look at the
// same facts about processes and generations, and write into the same journal.
type Oracle struct {
	Crossings Crossings

	mu          sync.Mutex // guards all that follows
	journal     *journal
	roster      *roster
	shards      *shardTable
	generations generationRules
	attachments attachmentRules
	compute     computeRules
	deletions   deletionRules
	tenants     tenantRules
	timelines   timelineRules

	serves func(neon.ShardID) bool // nil: all
}

// OracleOptions bounds what an Oracle keeps.
type OracleOptions struct {
	History int // events kept; zero means 65,536, negative none

	// Serves, when set, reports whether a shard is one of its tenant's in the newest state
	// that the controllers committed: a child is not until its split is committed, nor after
	// an abort. Without it each shard that somebody has attached is taken for one.
	Serves func(neon.ShardID) bool
}

// NewOracle makes an oracle that has seen nothing.
func NewOracle(opt OracleOptions) *Oracle {
	if opt.History == 0 {
		opt.History = 1 << 16
	}
	j, r := newJournal(max(0, opt.History)), newRoster()
	t := &shardTable{facts: map[neon.ShardID]*shardFacts{}}
	f := facts{journal: j, roster: r, shards: t}
	return &Oracle{
		journal: j, roster: r, shards: t, serves: opt.Serves,
		generations: generationRules{f},
		attachments: attachmentRules{f},
		compute:     computeRules{facts: f, lastNode: map[neon.ShardID]uint32{}},
		deletions:   deletionRules{f},
		tenants: tenantRules{
			facts: f, tenants: map[neon.TenantID]*tenantFacts{}, stopped: map[neon.ShardID]bool{},
			asked: map[place]bool{},
		},
		timelines: timelineRules{
			facts: f, tenants: map[neon.TenantID]map[neon.TimelineID]*timelineFacts{},
		},
	}
}

// Violations copies what was found so far, oldest first.
func (o *Oracle) Violations() []Violation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Violation(nil), o.journal.violations...)
}

// Err is nil as long as no invariant was violated, else an error that lists the
// first ten.
func (o *Oracle) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.journal.err()
}

// Late counts the effects of calls whose callers had gone, where an invariant
// would otherwise have been violated.
func (o *Oracle) Late() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.journal.late
}

// History copies the events that are still kept, oldest first.
func (o *Oracle) History() []Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.journal.history.events()
}

// Dump writes the history as JSON, one event a line, oldest first.
func (o *Oracle) Dump(w io.Writer) error { return writeEvents(w, o.History()) }

// ShardFacts is what the oracle knows of one shard.
type ShardFacts struct {
	Committed neon.Generation // newest committed; zero if unknown
	Attached  neon.Generation // highest ever attached anywhere
	Notified  neon.NodeID     // what compute was last told; zero if never
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
	f := o.shards.facts[id]
	if f == nil {
		return s, false
	}
	s.Committed, _ = f.committed()
	s.Notified = o.roster.nodeIDs[o.compute.lastNode[id]]
	for _, g := range f.gens {
		if g.holder != 0 {
			s.Attached = g.gen
		}
	}
	s.Holders = o.roster.holders(f)
	return s, true
}
