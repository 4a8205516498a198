package neonstate

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
)

// Seen is what pageservers list, by node: only of those that were asked and answered.
type Seen map[neon.NodeID]neon.LocationListing

// Counts are how many of what is taken.
type Counts struct {
	Tenants     int `json:"tenants"`
	Detached    int `json:"detached_tenants"`
	Shards      int `json:"shards"`
	Attached    int `json:"attached_shards"`
	Pageservers int `json:"pageservers"`
	Tombstones  int `json:"tombstones"`
	Splits      int `json:"splits"`
	Safekeepers int `json:"safekeepers"`
	Timelines   int `json:"timelines"`
	Operations  int `json:"safekeeper_operations"`
	Imports     int `json:"imports"`
}

// Converted is our state, as the rows of a database say it.
type Converted struct {
	State    *fsm.State
	Counts   Counts
	Findings Findings
}

// maxConvertible is the largest generation that leaves room for all jumps and for much work.
const maxConvertible = math.MaxInt32 / 2

// fromRows is the work of FromRows.
type fromRows struct {
	c         *neondb.Content
	seen      Seen
	f         Findings
	r         fsm.Records
	nodes     map[neon.NodeID]fsm.Node
	tenants   map[neon.TenantID]fsm.Tenant
	keepers   map[neon.NodeID]bool
	timelines map[neon.TimelineRef]int // positions in r.Timelines
	health    map[healthKey]neondb.HealthRow
	observed  map[neon.ShardID][]location
}

type healthKey struct {
	tenant        string
	number, count int32
}

// location is what a pageserver lists of a shard.
type location struct {
	node neon.NodeID
	conf *neon.LocationConfig
}

// FromRows converts the rows of a database, together with what pageservers list. The error
// means that the rows contradict each other in a way that no finding says.
func FromRows(c *neondb.Content, seen Seen, origin string) (*Converted, error) {
	w := &fromRows{
		c: c, seen: seen, r: fsm.Records{ClusterID: origin},
		nodes:   map[neon.NodeID]fsm.Node{},
		tenants: map[neon.TenantID]fsm.Tenant{}, keepers: map[neon.NodeID]bool{},
		timelines: map[neon.TimelineRef]int{}, health: map[healthKey]neondb.HealthRow{},
		observed: map[neon.ShardID][]location{},
	}
	w.schema()
	w.takeNodes()
	w.takeSeen()
	w.takeTenants()
	w.strangers()
	w.takeSafekeepers()
	w.takeTimelines()
	w.takeOps()
	w.takeImports()
	w.f.Sort()
	if w.c.Mark == nil { // what happens when it is taken
		for i := range w.r.Shards {
			if w.r.Shards[i].HasGeneration {
				w.r.Shards[i].Generation += neondb.Jump
			}
		}
		for i := range w.r.Splits {
			for k := range w.r.Splits[i].Parents {
				w.r.Splits[i].Parents[k].Generation += neondb.Jump
			}
		}
	}
	s, err := fsm.FromRecords(w.r)
	if err != nil {
		return nil, fmt.Errorf("the rows do not make a state: %w", err)
	}
	return &Converted{State: s, Counts: w.counts(), Findings: w.f}, nil
}

func (w *fromRows) schema() {
	for what, values := range w.c.Schema.Unknown {
		severity := Left
		if values > 0 {
			severity = Wrong
		}
		w.f.add(severity, UnknownSchema, what,
			"no known schema has it: its %d values are not taken", values)
	}
	for _, what := range w.c.Schema.Lost {
		w.f.add(Wrong, IncompleteSchema, what, "is missing, and the migrations that are noted have "+
			"made it, or none is noted: the database is a part of one")
	}
	if n := w.c.Schema.Unused; n > 0 {
		w.f.add(Left, UnusedRows, "hadron_*", "%d rows that the existing controller never reads", n)
	}
	if shards, nodes := len(w.c.Shards), len(w.c.Nodes); shards == 0 || nodes == 0 {
		w.f.add(Wrong, EmptyDatabase, "database", "%d shards, %d pageservers: it is the wrong one, "+
			"or one that was never used", shards, nodes)
	}
	if n := len(w.c.Leaders); n > 1 {
		w.f.add(Wrong, MoreLeaders, "controllers",
			"%d rows: the existing controller does not start with more than one", n)
	}
}

func (w *fromRows) takeNodes() {
	for _, row := range w.c.Nodes {
		n, err := node(row)
		if err != nil {
			w.f.add(Wrong, BadRow, fmt.Sprintf("pageserver %d", row.ID), "%v", err)
			continue
		}
		if n.Tombstone {
			w.f.add(Changed, Tombstone, fmt.Sprintf("pageserver %d", n.ID),
				"is deleted: it stays so, and may not come back under this id")
		}
		switch n.Scheduling {
		case neon.SchedulingDraining, neon.SchedulingFilling, neon.SchedulingDeleting:
			w.f.add(Changed, OperationUnknown, fmt.Sprintf("pageserver %d", n.ID),
				"has the policy %s, and the operation is not recorded: begin it again",
				row.Scheduling)
		}
		w.nodes[n.ID] = n
		w.r.Nodes = append(w.r.Nodes, n)
	}
}

func node(row neondb.NodeRow) (n fsm.Node, err error) {
	// A node counts as there until it is silent for as long as any other: else what it serves
	// would be given to the first one that answers.
	n = fsm.Node{
		ID: neon.NodeID(row.ID), AZ: neon.MakeAZ(row.AZ), Availability: neon.NodeActive,
		Scheduling: nodePolicies[row.Scheduling], Tombstone: row.Lifecycle == "deleted",
		Addr: fsm.NodeAddr{HTTPHost: row.HTTPHost, PGHost: row.PGHost},
	}
	if n.Tombstone {
		n.Availability = neon.NodeOffline
	}
	if row.GRPCHost != nil {
		n.Addr.GRPCHost = *row.GRPCHost
	}
	if row.ID <= 0 {
		err = fmt.Errorf("the id is not positive")
	}
	if n.Scheduling == "" {
		err = fmt.Errorf("scheduling policy %q: %w", clip(row.Scheduling), errText)
	}
	if row.Lifecycle != "active" && row.Lifecycle != "deleted" {
		err = fmt.Errorf("lifecycle %q: %w", clip(row.Lifecycle), errText)
	}
	ports := errors.Join(port(&n.Addr.HTTPPort, &row.HTTPPort), port(&n.Addr.PGPort, &row.PGPort),
		port(&n.Addr.HTTPSPort, row.HTTPSPort), port(&n.Addr.GRPCPort, row.GRPCPort),
		names(row.AZ, n.Addr.HTTPHost, n.Addr.PGHost, n.Addr.GRPCHost))
	return n, errors.Join(err, ports)
}

// port takes a port of a row; nil is none.
func port(into *uint16, p *int32) error {
	switch {
	case p == nil:
		return nil
	case *p < 0 || *p > math.MaxUint16:
		return fmt.Errorf("port %d is none", *p)
	}
	*into = uint16(*p)
	return nil
}

// names refuses names that no record may have.
func names(all ...string) error {
	const most = 255
	for _, s := range all {
		if len(s) > most {
			return fmt.Errorf("the name %q is too long", clip(s))
		}
	}
	return nil
}

func (w *fromRows) takeSeen() {
	for _, id := range slices.Sorted(maps.Keys(w.seen)) {
		for _, l := range w.seen[id] {
			w.observed[l.Shard] = append(w.observed[l.Shard], location{id, l.Config})
		}
	}
	if w.seen == nil && len(w.r.Nodes) > 0 {
		w.f.add(Changed, NotAsked, "pageservers",
			"none was asked what it has: secondaries are not known, and may be made again elsewhere")
	}
	for _, n := range w.r.Nodes {
		if _, ok := w.seen[n.ID]; w.seen != nil && !ok && !n.Tombstone {
			w.f.add(Changed, NotListed, fmt.Sprintf("pageserver %d", n.ID),
				"did not list what it has: its secondaries are not known")
		}
	}
}

func (w *fromRows) counts() Counts {
	c := Counts{
		Tenants: len(w.r.Tenants), Shards: len(w.r.Shards), Splits: len(w.r.Splits),
		Safekeepers: len(w.r.Safekeepers), Timelines: len(w.r.Timelines),
		Operations: len(w.r.Ops), Imports: len(w.r.Imports),
	}
	for _, t := range w.r.Tenants {
		if t.Policy.Kind == neon.PlaceDetached {
			c.Detached++
		}
	}
	for _, sh := range w.r.Shards {
		if sh.Attached != 0 {
			c.Attached++
		}
	}
	for _, n := range w.r.Nodes {
		if n.Tombstone {
			c.Tombstones++
		} else {
			c.Pageservers++
		}
	}
	return c
}
