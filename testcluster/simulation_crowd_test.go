package testcluster_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

const (
	// crowdLimit bounds the time from the verdict on a dead pageserver until its shards are
	// served again, if the controllers know which others hang: so far they are given to none
	// of these.
	crowdLimit = 15 * time.Second

	// knownTime is how long pageservers hang before it is known.
	knownTime = 15 * time.Second

	// fewShards are too few for a pageserver whose death says something.
	fewShards = 3
)

// manyCalls has so many calls to one node at a time that they would keep all workers busy.
func manyCalls(o *reconciler.Options) {
	o.HighWorkers, o.NormalWorkers, o.FailoverWorkers = 2, 1, 1
	o.PerNode = 64
}

// dieInACrowd has most pageservers hang on every change of a location, all shards there be
// changed, also under a leader that has just begun, and the pageserver die that has the most.
// Its shards are to be served again as soon as if nothing else were to do.
func (e *episode) dieInACrowd(ctx context.Context) (met bool) {
	made := e.fillUp(ctx)
	defer e.takeDown(ctx, made)
	e.calm(ctx)
	s, err := e.newestState(ctx)
	nodes := e.running()
	if err != nil || e.Failed() || len(nodes) < 4 {
		return false
	}
	slices.SortStableFunc(nodes, func(a, b *simpageserver.Node) int {
		return s.Counts(b.ID()).Attached - s.Counts(a.ID()).Attached
	})
	dead, hung := nodes[0], nodes[1:len(nodes)-1]
	for _, n := range hung {
		n.SetFaults(simpageserver.Fault{
			Kind: simpageserver.FaultHang, Route: simpageserver.RouteLocationPut,
		})
	}
	defer func() {
		for _, n := range hung {
			n.SetFaults()
		}
	}()
	e.configureThese(ctx, made)
	if e.rng.IntN(2) == 0 {
		e.replaceLeader(ctx)
	}
	<-time.After(knownTime)
	return e.dieAmong(ctx, dead, hung)
}

// dieAmong has a pageserver die, and demands that its shards are served again soon.
func (e *episode) dieAmong(ctx context.Context, dead *simpageserver.Node,
	hung []*simpageserver.Node,
) (met bool) {
	before, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return false
	}
	var were []neon.ShardID
	for sh := range before.AttachedOn(dead.ID(), neon.ShardID{}) {
		were = append(were, sh.ID)
	}
	e.mu.Lock()
	ended := e.suspectLocked(dead.ID())
	e.mu.Unlock()
	defer ended()
	dead.Kill()
	e.demandWithin(ctx, endLimit, fmt.Sprintf("the death of node %s", dead.ID()),
		func(s *fsm.State) error {
			if n, _ := s.Node(dead.ID()); n.Availability != neon.NodeOffline {
				return fmt.Errorf("it is %s", n.Availability)
			}
			return nil
		})
	verdict := time.Now()
	e.demandWithin(ctx, crowdLimit,
		fmt.Sprintf("the verdict on node %s with %d shards, beside %d that hang", dead.ID(), len(were),
			len(hung)), func(s *fsm.State) error { return e.served(s, were) })
	e.Logf("seed %d, round %d: %d shards of node %s are served again %s after the verdict", e.seed,
		e.tally.rounds, len(were), dead.ID(), time.Since(verdict))
	struck := 0
	for _, n := range hung {
		struck += n.Struck()
		n.SetFaults()
	}
	if err := dead.Start(ctx); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	return len(were) >= fewShards && struck > 0
}

// configureThese gives tenants another configuration, and does not wait for pageservers.
func (e *episode) configureThese(ctx context.Context, ids []neon.TenantID) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, id := range ids {
		next := conf(fmt.Sprintf(`{"gc_horizon":%d}`, e.workers[0].number()))
		all.Go(func() {
			e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
				return c.Tenants().PutConfig(ctx, id, next)
			})
		})
	}
	all.Wait()
}
