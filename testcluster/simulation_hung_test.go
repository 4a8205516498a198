package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler"
	"quorate/testcluster/simpageserver"
)

const (
	// failOverLimit bounds the time from the verdict on a dead pageserver until its shards
	// are served again, whatever the others do. Each of its shards may first be given to
	// pageservers that do not attach it.
	failOverLimit = time.Minute

	// silentLimit is the least time before the verdict in which something can be decided
	// about a pageserver of which is known that it is silent.
	silentLimit = 20 * time.Second
)

// fewWorkers has a few shards keep all workers of a reconciler busy.
func fewWorkers(o *reconciler.Options) {
	o.HighWorkers, o.NormalWorkers, o.SlowWorkers, o.FailoverWorkers = 4, 2, 4, 2
	o.PerNode = 2
}

// running lists the pageservers that run, in a random order.
func (e *episode) running() (nodes []*simpageserver.Node) {
	for _, n := range e.Fleet().Nodes() {
		if n.Running() {
			nodes = append(nodes, n)
		}
	}
	e.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

// trouble has, now and then, some pageservers hang while another one dies, or one fall
// silent while others decide.
func (e *episode) trouble(ctx context.Context) {
	e.demandEnd(ctx, "before the next trouble", func(s *fsm.State) error {
		return errors.Join(e.nodesAreUsed(s), e.othersAreServed(s, obstacle{}))
	})
	switch {
	case e.Failed():
	case e.rng.IntN(2) == 0:
		e.dieBesideHung(ctx)
	case e.maxOffline >= silentLimit:
		e.fallSilent(ctx)
	}
}

// dieBesideHung has some pageservers answer their heartbeats and hang on every change of a
// location, and another one die. Its shards are to be served again soon.
func (e *episode) dieBesideHung(ctx context.Context) {
	nodes := e.running()
	if len(nodes) < 3 {
		return
	}
	now, err := e.newestState(ctx)
	if err != nil {
		return
	}
	slices.SortStableFunc(nodes, func(a, b *simpageserver.Node) int {
		return now.Counts(b.ID()).Attached - now.Counts(a.ID()).Attached
	})
	dead, hung := nodes[0], nodes[1:]
	e.rng.Shuffle(len(hung), func(i, j int) { hung[i], hung[j] = hung[j], hung[i] })
	hung = hung[:1+e.rng.IntN(len(hung)-1)]
	for _, n := range hung {
		n.SetFaults(simpageserver.Fault{
			Kind: simpageserver.FaultHang, Route: simpageserver.RouteLocationPut,
		})
	}
	if e.rng.IntN(3) > 0 { // otherwise the controllers do not know yet that they hang
		e.configureAll(ctx)
	}
	before, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return
	}
	var were []neon.ShardID
	for sh := range before.AttachedOn(dead.ID(), neon.ShardID{}) {
		were = append(were, sh.ID)
	}
	e.mu.Lock()
	ended := e.suspectLocked(dead.ID())
	e.tally.deaths++
	e.mu.Unlock()
	dead.Kill()
	e.Logf("seed %d, round %d: node %s dies with %d shards, beside %d of %d nodes that hang", e.seed,
		e.tally.rounds, dead.ID(), len(were), len(hung), len(nodes))
	began := time.Now()
	e.demandWithin(ctx, e.maxOffline+2*e.heartbeat+failOverLimit,
		fmt.Sprintf("node %s died beside %d that hang", dead.ID(), len(hung)),
		func(s *fsm.State) error { return e.served(s, were) })
	e.tally.slowestFailOver = max(e.tally.slowestFailOver, time.Since(began)-e.maxOffline)
	for _, n := range hung {
		n.SetFaults()
	}
	if err := dead.Start(ctx); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	ended()
}

// served is an error while one of the shards is not.
func (e *episode) served(s *fsm.State, ids []neon.ShardID) error {
	for _, id := range ids {
		sh, ok := s.Shard(id)
		tenant, _ := s.Tenant(id.Tenant)
		if !ok || sh.Unmanaged || s.Splitting(tenant.ID) {
			continue
		}
		if why := e.unserved(s, tenant, sh); why != "" {
			return fmt.Errorf("shard %s %s", id, why)
		}
	}
	return nil
}

// configureAll gives every tenant another configuration, and does not wait for pageservers.
func (e *episode) configureAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	e.together(func(w *worker) {
		var all sync.WaitGroup
		for _, t := range slices.Clone(w.mine) {
			all.Go(func() { w.putConfig(ctx, e.Client(), t) })
		}
		all.Wait()
	})
}

// together has all workers do the same.
func (e *episode) together(f func(*worker)) {
	var wg sync.WaitGroup
	for _, w := range e.workers {
		wg.Go(func() { f(w) })
	}
	wg.Wait()
}

// demandWithin demands that something holds soon.
func (e *episode) demandWithin(
	ctx context.Context, limit time.Duration, when string, holds func(*fsm.State) error,
) {
	for began := time.Now(); ; {
		s, err := e.newestState(ctx)
		if err == nil {
			if err = holds(s); err == nil {
				return
			}
		}
		if time.Since(began) > limit {
			e.Errorf("seed %d, round %d: %s after %s: %v", e.seed, e.tally.rounds,
				time.Since(began), when, err)
			if s != nil {
				e.describeUnserved(ctx, s)
			}
			e.explainShards(err)
			e.stacks()
			return
		}
		<-time.After(100 * time.Millisecond)
	}
}

// fallSilent has a pageserver not answer, and places decided before there is a verdict. It
// is to get none, also from a leader that has just begun.
func (e *episode) fallSilent(ctx context.Context) {
	nodes := e.running()
	if len(nodes) < 4 { // three take what a tenant may want
		return
	}
	silent := nodes[0]
	e.mu.Lock()
	ended := e.suspectLocked(silent.ID())
	e.tally.silences++
	e.mu.Unlock()
	silent.Pause()
	defer func() { silent.Resume(); ended() }()
	<-time.After(2*e.heartbeat + 2*time.Second)
	if e.rng.IntN(2) == 0 {
		i, err := e.KillLeader(ctx)
		if err == nil {
			err = e.Restart(ctx, i)
		}
		if err != nil {
			e.Errorf("seed %d: replace the leader: %v", e.seed, err)
		}
	}
	before, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return
	}
	decide, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if len(nodes) > 4 && e.rng.IntN(2) == 0 {
		path := "/control/v1/node/" + nodes[1].ID().String() + "/drain"
		e.workers[0].count(e.Client().WithTryTimeout(answerTimeout).Call(decide, http.MethodPut,
			path, nil, nil))
	}
	e.together(func(w *worker) {
		for decide.Err() == nil {
			w.create(decide, e.Client())
			for _, t := range w.mine {
				if w.count(e.Client().Tenants().SetPolicy(decide, t.id, neon.PolicyRequest{
					Placement: ptr(neon.Attached(w.rng.IntN(3))),
				})) {
					e.Oracle().Serving(t.id)
				}
			}
			<-time.After(time.Second)
		}
	})
	after, err := e.newestState(ctx)
	if err != nil {
		return
	}
	e.demandNothingFor(silent.ID(), nodes[1:], before, after)
}

// demandNothingFor demands that a silent pageserver has got no location, unless the shard
// has one on all the others that take any: that to which it moves counts besides.
func (e *episode) demandNothingFor(
	id neon.NodeID, others []*simpageserver.Node, before, after *fsm.State,
) {
	was, known := before.Node(id)
	now, _ := after.Node(id)
	if !known || was.Availability != neon.NodeActive || now.Availability != neon.NodeActive ||
		was.Incarnation != now.Incarnation {
		return // there was a verdict
	}
	has := func(sh fsm.Shard) bool {
		return sh.Attached == id || sh.HasSecondary(id) || sh.PreferredNode == id
	}
	for sh := range after.NodeShards(id) {
		old, known := before.Shard(sh.ID)
		_, split := before.Tenant(sh.ID.Tenant)
		room := slices.ContainsFunc(others, func(n *simpageserver.Node) bool {
			node, _ := after.Node(n.ID())
			return !sh.Intends(n.ID()) && node.Scheduling == neon.SchedulingActive &&
				node.Available() && node.Silent == 0
		})
		if !has(sh) || !room || !known && split || known && has(old) {
			continue
		}
		e.Errorf("seed %d, round %d: shard %s has got a location on node %s, which is silent: %+v",
			e.seed, e.tally.rounds, sh.ID, id, sh)
		for n := range after.Nodes() {
			e.Logf("node %s: %+v", n.ID, n)
		}
	}
}
