package testcluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
)

var simStrain = flag.Int("sim.strain", -1,
	"strain that TestSimulation meets, and fails without: 3, 7, 8, 10, 11 or 14; -1: drawn")

// strain is one kind of situation that work and faults at random hardly ever lead to. It
// begins when nothing is wrong. What must not happen in it is found by the oracles.
type strain struct {
	kind int
	what string

	// shapes is set if the cluster has to be prepared, and first if it is for the beginning
	// of an episode only. meet brings the situation about, and reports whether it has.
	shapes, first bool
	meet          func(*episode, context.Context) (met bool)
}

// strains are numbered as the kinds of faults that they are for.
var strains = []strain{
	{3, "moves that arrive late", false, false, (*episode).arriveLate},
	{7, "deaths in a crowd that hangs", true, false, (*episode).dieInACrowd},
	{8, "destinations that are far behind", true, false, (*episode).catchUpLate},
	{10, "decisions that are carried out late", false, false, (*episode).decideLate},
	{11, "detaches that come late", false, false, (*episode).detachLate},
	{14, "lopsided fleets", true, true, (*episode).evenOut},
}

const (
	// strainTries is how often a strain that was chosen is brought about in a round.
	strainTries = 3

	// strainLimit bounds one strain.
	strainLimit = 12 * time.Hour
)

// metStrains counts how often each of the strains has come about.
type metStrains [6]int

func (m metStrains) String() (s string) {
	for i, n := range m {
		s += fmt.Sprintf(", %d %s", n, strains[i].what)
	}
	return s
}

// demandMet fails a campaign that was pointed at a strain and has not met it.
func (m metStrains) demandMet(report func(string, ...any)) {
	for i, n := range m {
		if strains[i].kind == *simStrain && n == 0 {
			report("there were no %s", strains[i].what)
		}
	}
}

// shape draws what some strains need from the beginning, or has the chosen one have it.
func (e *episode) shape(b *testcluster.Builder) {
	b.Store.ShardBytes, b.Store.ShardLayers = 1<<20, 4
	for i, s := range strains {
		drawn := e.rng.IntN(4) == 0 && *simStrain < 0
		e.shaped[i] = s.shapes && (drawn || s.kind == *simStrain)
	}
	if e.shapedFor(8) {
		e.ingest = 1 << 14
		b.Store.WALRate = e.ingest
		e.behaviour.DownloadRate = 0 // the copies of what grows all the time get warm
		b.Behaviour = e.behaviour
	}
	if e.shapedFor(14) {
		b.Pageservers, b.Zones = 4+e.rng.IntN(3), 1+e.rng.IntN(2)
		e.zones = b.Zones
		e.behaviour.DownloadRate = 0
		b.Behaviour = e.behaviour
		e.disks = make(map[neon.NodeID]uint64)
		for i := range b.Pageservers {
			e.disks[neon.NodeID(i+1)] = uint64(2+e.rng.IntN(3)) << 40
		}
	}
	if e.shapedFor(7) {
		b.Pageservers = max(5, b.Pageservers)
	}
	if *simStrain == 3 || *simStrain == 10 {
		b.Pageservers = max(4, b.Pageservers)
	}
	if *simStrain == 3 {
		b.Zones = max(2, b.Zones)
	}
}

func (e *episode) shapedFor(kind int) bool {
	return e.shaped[slices.IndexFunc(strains, func(s strain) bool { return s.kind == kind })]
}

// strainFirst begins an episode with a strain that is for that.
func (e *episode) strainFirst() {
	for i, s := range strains {
		if s.first && e.shaped[i] {
			e.meet(i)
		}
	}
}

// strain brings about the chosen strain, or now and then one that is drawn.
func (e *episode) strain() {
	i := slices.IndexFunc(strains, func(s strain) bool { return s.kind == *simStrain })
	if i < 0 {
		i = e.rng.IntN(2 * len(strains))
	}
	if i < len(strains) && !strains[i].first && (!strains[i].shapes || e.shaped[i]) {
		e.meet(i)
	}
}

// meet brings a strain about, some times if it was chosen.
func (e *episode) meet(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), strainLimit)
	defer cancel()
	tries := 1
	if strains[i].kind == *simStrain && !strains[i].first {
		tries = strainTries
	}
	for range tries {
		e.calm(ctx)
		if e.Failed() {
			return
		}
		if strains[i].meet(e, ctx) {
			e.mu.Lock()
			e.tally.met[i]++
			e.mu.Unlock()
		}
	}
}

// calm waits until nothing is wrong and nothing is under way.
func (e *episode) calm(ctx context.Context) {
	e.demandEnd(ctx, "before a strain", func(s *fsm.State) error { return operationsRun(s) })
	e.restorePolicies(ctx)
	e.demandEnd(ctx, "before a strain", func(s *fsm.State) error {
		return errors.Join(e.nodesAreUsed(s), e.othersAreServed(s, obstacle{}))
	})
}

// trap holds one decision of a controller between its making and its entry in the log.
type trap struct {
	mu      sync.Mutex
	decided func(fsm.Command) bool // nil: nothing is to be held
	held    chan struct{}          // closed when a decision is
	free    chan struct{}          // closed to let it go
}

// trapLimit bounds how long a decision is held.
const trapLimit = time.Minute

// set has the next decision of a kind held.
func (t *trap) set(decided func(fsm.Command) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.decided, t.held, t.free = decided, make(chan struct{}), make(chan struct{})
}

// pass is called with every decision and holds it, if it is to be held.
func (t *trap) pass(ctx context.Context, c fsm.Command) {
	t.mu.Lock()
	if t.decided == nil || !t.decided(c) {
		t.mu.Unlock()
		return
	}
	t.decided = nil
	close(t.held)
	free := t.free
	t.mu.Unlock()
	select {
	case <-free:
	case <-ctx.Done():
	case <-time.After(trapLimit):
	}
}

// await waits until a decision is held; false when none was for that long.
func (t *trap) await(limit time.Duration) bool {
	select {
	case <-t.held:
		return true
	case <-time.After(limit):
		return false
	}
}

// release lets go what is held, and holds nothing more.
func (t *trap) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.decided = nil; t.free != nil {
		close(t.free)
		t.free = nil
	}
}

// decidesOn reports whether a command has an intent for which something holds.
func decidesOn(c fsm.Command, holds func(*fsm.Intent) bool) bool {
	in, ok := c.(fsm.SetIntents)
	return ok && slices.ContainsFunc(in.Intents, func(in fsm.Intent) bool { return holds(&in) })
}

// settledShard picks a shard of which nothing is wrong and that may be moved.
func (e *episode) settledShard(
	s *fsm.State, fits func(fsm.Tenant, fsm.Shard) bool,
) (fsm.Shard, bool) {
	e.mu.Lock()
	tenants := slices.Clone(e.tenants)
	e.mu.Unlock()
	var all []fsm.Shard
	for _, t := range tenants {
		tenant, ok := s.Tenant(t.id)
		if !ok || tenant.Deleting || tenant.Policy.Kind != neon.PlaceAttached ||
			tenant.Scheduling != neon.ShardActive || s.Splitting(t.id) {
			continue
		}
		for sh := range s.TenantShards(t.id) {
			n, _ := s.Node(sh.Attached)
			if sh.PreferredNode == 0 && sh.GenNode == sh.Attached && sh.ComputeAcknowledged &&
				!sh.Exhausted() && n.Schedulable() && fits(tenant, sh) {
				all = append(all, sh)
			}
		}
	}
	if len(all) == 0 {
		return fsm.Shard{}, false
	}
	return all[e.rng.IntN(len(all))], true
}

// tenantOf is what its worker knows of a tenant.
func (e *episode) tenantOf(id neon.TenantID) *simTenant {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.tenants {
		if t.id == id {
			return t
		}
	}
	return nil
}

// request makes a request once, to whoever answers, and reports whether it was acknowledged.
func (e *episode) request(
	ctx context.Context, f func(context.Context, *testcluster.Client) error,
) bool {
	try, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return e.workers[0].count(f(try, e.Client().WithTryTimeout(answerTimeout)))
}

// until waits until something holds, and reports whether it does in time.
func (e *episode) until(
	ctx context.Context, limit time.Duration, holds func(*fsm.State) bool,
) bool {
	for began := time.Now(); time.Since(began) < limit && !e.Failed(); {
		if s, err := e.newestState(ctx); err == nil && holds(s) {
			return true
		}
		<-time.After(200 * time.Millisecond)
	}
	return false
}
