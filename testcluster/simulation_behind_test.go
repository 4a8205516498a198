package testcluster_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

const (
	// behindTime is how long nothing is uploaded before a move: so far the destination is
	// behind. It does not catch up within the time of one try.
	behindTime = 80 * time.Second

	// behindLimit bounds the time until the destination has taken over nevertheless, also
	// if the leader changes.
	behindLimit = 8 * time.Minute

	// oneTry is the time limit of one try to catch up.
	oneTry = time.Minute
)

// catchUpLate moves a shard whose timelines grow all the time to a pageserver that is far
// behind and replays more slowly than they grow. It has to take over in the end.
func (e *episode) catchUpLate(ctx context.Context) bool {
	s, err := e.newestState(ctx)
	if err != nil {
		return false
	}
	sh, ok := e.settledShard(s, func(t fsm.Tenant, _ fsm.Shard) bool {
		known := e.tenantOf(t.ID)
		return known != nil && len(known.timelines) > 0
	})
	to := e.otherNode(s, sh.Attached)
	if !ok || to == 0 {
		e.grow(ctx)
		return false
	}
	defer e.behave(nil)
	if err := e.Fleet().Node(sh.Attached).Tick(ctx); err != nil {
		return false
	}
	e.behave(func(b *simpageserver.Behaviour) { b.NoUploads = true })
	<-time.After(behindTime)
	e.behave(func(b *simpageserver.Behaviour) { b.NoUploads, b.ReplayRate = true, e.ingest*9/10 })
	began := time.Now()
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		e.moveTo(ctx, sh.ID, to)
	}()
	defer func() { <-moved }()
	if e.rng.IntN(4) == 0 {
		<-time.After(time.Duration(1+e.rng.IntN(30)) * time.Second)
		e.replaceLeader(ctx)
	}
	e.demandWithin(ctx, behindLimit, fmt.Sprintf("shard %s was to move to node %s, which is behind",
		sh.ID, to), func(s *fsm.State) error {
		if now, _ := s.Shard(sh.ID); now.Attached != to {
			return fmt.Errorf("it is to be on node %s", now.Attached)
		}
		return e.served(s, []neon.ShardID{sh.ID})
	})
	took := time.Since(began)
	e.Logf("seed %d, round %d: shard %s has moved to node %s, which was behind, in %s", e.seed,
		e.tally.rounds, sh.ID, to, took)
	return took > oneTry
}

// grow makes a tenant with a timeline.
func (e *episode) grow(ctx context.Context) {
	e.createOne(ctx)
	for _, w := range e.workers {
		if len(w.mine) > 0 {
			try, cancel := context.WithTimeout(ctx, opLimit)
			w.createTimeline(try, e.Client().WithTryTimeout(answerTimeout), w.mine[len(w.mine)-1])
			cancel()
		}
	}
}

const (
	// strayTime is how long the leader may take to begin the detach of what no tenant knows.
	strayTime = 90 * time.Second

	// believeLimit bounds the time from the effect of a late detach until what the leader
	// believes is true, and as it should be. Listings, which happen every minute, are not it.
	believeLimit = 20 * time.Second

	// givenUp is how long a call takes that is given up, since something else was decided. What
	// comes of it later is found by listings only.
	givenUp = 5 * time.Second
)

// detachLate has the detach of something that no tenant has take a while, and a tenant that
// has it be made meanwhile.
func (e *episode) detachLate(ctx context.Context) bool {
	if e.rng.IntN(2) == 0 {
		return e.detachLeftoverLate(ctx)
	}
	return e.detachStrayLate(ctx)
}

// detachStrayLate is about what was put there behind the controllers' backs.
func (e *episode) detachStrayLate(ctx context.Context) bool {
	id := neon.Unsharded(idOf(e.workers[0].number()))
	n, delay := e.running()[0], time.Second+e.upTo(5*time.Second)
	replaced := e.rng.IntN(2) == 0
	i := 0
	if replaced { // a leader that begins lists all pageservers
		var err error
		if i, err = e.KillLeader(ctx); err != nil {
			return false
		}
	}
	e.workers[0].place(ctx, n.ID(), id, neon.LocationConfig{
		Mode: neon.Secondary, SecondaryConf: &neon.SecondaryConf{Warm: true},
	})
	n.SetFaults(e.delayedOnce(id, delay))
	defer n.SetFaults()
	if replaced {
		if err := e.Restart(ctx, i); err != nil {
			e.Errorf("seed %d: %v", e.seed, err)
		}
	}
	return e.createBeside(ctx, n, id, delay, func() bool { return true })
}

// detachLeftoverLate is about what a split has left. The tenant is dropped, and made anew.
func (e *episode) detachLeftoverLate(ctx context.Context) bool {
	id := neon.Unsharded(idOf(e.workers[0].number()))
	e.Oracle().PutAway(id.Tenant) // between its lives
	e.createTenant(ctx, id.Tenant)
	var n *simpageserver.Node
	if !e.until(ctx, lateTime, func(s *fsm.State) bool {
		sh, ok := s.Shard(id)
		n = e.Fleet().Node(sh.Attached)
		return ok && n != nil && sh.ComputeAcknowledged
	}) {
		return false
	}
	delay := 2*time.Second + e.upTo(2*time.Second)
	n.SetFaults(e.delayedOnce(id, delay))
	defer n.SetFaults()
	if !e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Tenants().Split(ctx, id.Tenant, neon.ShardSplitRequest{Count: 2})
		return err
	}) {
		return false
	}
	return e.createBeside(ctx, n, id, delay, func() bool {
		return e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
			return c.Tenants().Drop(ctx, id.Tenant)
		})
	})
}

// delayedOnce has the next change of a shard take a while to begin.
func (e *episode) delayedOnce(id neon.ShardID, delay time.Duration) simpageserver.Fault {
	return simpageserver.Fault{
		Kind: simpageserver.FaultDelay, Route: simpageserver.RouteLocationPut, Shard: id, Count: 1,
		Delay: delay,
	}
}

// createBeside waits for the detach, which takes a while, does something first, and makes the
// tenant before it is over. A leader that dies meanwhile leaves a call behind, of which its
// successor cannot know.
func (e *episode) createBeside(
	ctx context.Context, n *simpageserver.Node, id neon.ShardID, delay time.Duration,
	first func() bool,
) bool {
	for began := time.Now(); n.Struck() == 0; {
		if time.Since(began) > strayTime {
			return false
		}
		<-time.After(50 * time.Millisecond)
	}
	hit := time.Now()
	leader, _ := e.Leader(ctx)
	if !first() {
		return false
	}
	var made sync.WaitGroup
	made.Go(func() { e.createTenant(ctx, id.Tenant) })
	there := e.until(ctx, delay, func(s *fsm.State) bool {
		sh, _ := s.Shard(id)
		return sh.Intends(n.ID())
	})
	met := there && time.Since(hit) < delay
	e.Logf("seed %d, round %d: tenant %s is made %s after the detach on node %s, of %s: %v", e.seed,
		e.tally.rounds, id.Tenant, time.Since(hit), n.ID(), delay, met)
	made.Wait()
	if e.rng.IntN(2) == 0 { // otherwise it is deleted while the detach is under way
		<-time.After(max(0, delay-time.Since(hit)) + believeLimit)
		if now, ok := e.Leader(ctx); !ok || now != leader || delay >= givenUp {
			<-time.After(time.Minute)
		}
		e.demandTruth(ctx, id.Tenant)
	}
	e.Oracle().Deleting(id.Tenant)
	e.demandDeletion(ctx, id.Tenant, obstacle{what: "after a late detach"})
	return met
}

// createTenant makes an unsharded tenant that has locations nearly everywhere.
func (e *episode) createTenant(ctx context.Context, id neon.TenantID) bool {
	p := neon.Attached(max(0, len(e.Fleet().Nodes())-2))
	return e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Tenants().Create(ctx, neon.TenantCreateRequest{
			Tenant: neon.Unsharded(id), Placement: &p,
		})
		return err
	})
}

// demandTruth demands that a tenant is as it should be, and what the leader believes is so.
func (e *episode) demandTruth(ctx context.Context, id neon.TenantID) {
	s, err := e.newestState(ctx)
	if err != nil {
		return
	}
	tenant, _ := s.Tenant(id)
	for sh := range s.TenantShards(id) {
		why := e.unserved(s, tenant, sh)
		for _, sec := range sh.Secondary {
			if n := e.Fleet().Node(sec); n != nil && n.Running() {
				if at, _ := n.Location(sh.ID); at.Mode != neon.Secondary {
					why = fmt.Sprintf("is %q on node %s", at.Mode, sec)
				}
			}
		}
		if why != "" {
			e.Errorf("seed %d, round %d: %s after a late detach, shard %s %s", e.seed,
				e.tally.rounds, believeLimit, sh.ID, why)
		}
	}
}
