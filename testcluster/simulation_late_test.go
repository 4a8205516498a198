package testcluster_test

import (
	"context"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// lateTime is how long what comes late has to show itself.
const lateTime = 45 * time.Second

// arriveLate has a shard move for its home, or for a drain, to a pageserver that downloads
// nothing. Before it is warm, or while the leader decides that it is, the pageserver comes
// to take nothing, or the tenant may not be moved any more. Then nothing may arrive.
func (e *episode) arriveLate(ctx context.Context) bool {
	s, err := e.newestState(ctx)
	if err != nil {
		return false
	}
	sh, ok := e.settledShard(s, anyShard)
	if !ok {
		e.createOne(ctx)
		return false
	}
	defer e.behave(nil)
	e.behave(func(b *simpageserver.Behaviour) { b.DownloadRate = -1 })
	if !e.beginMove(ctx, s, sh) {
		return false
	}
	now, _ := e.shard(ctx, sh.ID)
	to := now.PreferredNode
	atCutOver := e.rng.IntN(2) == 0
	if atCutOver {
		e.trap.set(func(c fsm.Command) bool {
			return decidesOn(c,
				func(in *fsm.Intent) bool { return in.Shard == sh.ID && in.Attached == to })
		})
		defer e.trap.release()
		e.behave(nil)
		if !e.trap.await(time.Minute) {
			return false
		}
	}
	if now, _ = e.shard(ctx, sh.ID); now.PreferredNode != to || !e.forbid(ctx, sh.ID.Tenant, to) {
		return false
	}
	e.Logf("seed %d, round %d: shard %s was to move to node %s, at the cut-over: %v", e.seed,
		e.tally.rounds, sh.ID, to, atCutOver)
	if !atCutOver && e.rng.IntN(4) == 0 {
		e.replaceLeader(ctx)
	}
	if !atCutOver {
		e.behave(nil)
	} else {
		e.trap.release()
	}
	<-time.After(lateTime)
	return true
}

func anyShard(fsm.Tenant, fsm.Shard) bool { return true }

// createOne has a worker make a tenant.
func (e *episode) createOne(ctx context.Context) {
	w := e.workers[e.rng.IntN(len(e.workers))]
	try, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	w.create(try, e.Client().WithTryTimeout(answerTimeout))
}

// behave changes how all pageservers work; nil: they work as before.
func (e *episode) behave(change func(*simpageserver.Behaviour)) {
	for _, n := range e.Fleet().Nodes() {
		b := e.behaviourOf(n.ID())
		if change != nil {
			change(&b)
		}
		n.SetBehaviour(b)
	}
}

// behaviourOf is how a pageserver works when nothing is wrong.
func (e *episode) behaviourOf(id neon.NodeID) simpageserver.Behaviour {
	b := e.behaviour
	b.DiskBytes = e.disks[id]
	return b
}

func (e *episode) shard(ctx context.Context, id neon.ShardID) (fsm.Shard, bool) {
	s, err := e.newestState(ctx)
	if err != nil {
		return fsm.Shard{}, false
	}
	return s.Shard(id)
}

// beginMove has the leader begin to move a shard; false when it does not.
func (e *episode) beginMove(ctx context.Context, s *fsm.State, sh fsm.Shard) bool {
	from, _ := s.Node(sh.Attached)
	var zones []neon.AZ
	for n := range s.Nodes() {
		if n.Schedulable() && n.AZ != from.AZ {
			zones = append(zones, n.AZ)
		}
	}
	if len(zones) == 0 || e.rng.IntN(3) == 0 {
		if !e.order(ctx, from.ID, "drain") {
			return false
		}
	} else {
		az := zones[e.rng.IntN(len(zones))]
		e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
			_, err := c.Shards().SetPreferredAZs(ctx, neon.PreferredAZsRequest{sh.ID: &az})
			return err
		})
	}
	return e.until(ctx, lateTime, func(s *fsm.State) bool {
		now, ok := s.Shard(sh.ID)
		return ok && now.PreferredNode != 0 && now.PreferredNode != now.Attached
	})
}

// order begins an operation on a pageserver.
func (e *episode) order(ctx context.Context, id neon.NodeID, what string) bool {
	return e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
		path := "/control/v1/node/" + id.String() + "/" + what + "?concurrent=true"
		return c.Call(ctx, http.MethodPut, path, nil, nil)
	})
}

// forbid has a pageserver take nothing, or a tenant not be moved, in one of several ways. It
// reports whether that was acknowledged.
func (e *episode) forbid(ctx context.Context, id neon.TenantID, to neon.NodeID) bool {
	switch e.rng.IntN(5) {
	case 0:
		return e.order(ctx, to, "drain")
	case 1, 2:
		return e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
			return c.Nodes().Configure(ctx,
				neon.NodeConfigure{ID: to, Scheduling: ptr(neon.SchedulingPause)})
		})
	}
	return e.pin(ctx, id, []neon.ShardScheduling{neon.ShardPause, neon.ShardStop,
		neon.ShardEssential}[e.rng.IntN(3)])
}

// pin sets the scheduling policy of a tenant until the end of the round.
func (e *episode) pin(ctx context.Context, id neon.TenantID, to neon.ShardScheduling) bool {
	t := e.tenantOf(id)
	if t == nil {
		return false
	}
	t.paused = true
	return e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().SetPolicy(ctx, id, neon.PolicyRequest{Scheduling: &to})
	})
}

// decideLate has a decision come into the log when what it was based on is gone: a
// pageserver is back, or a tenant is stopped.
func (e *episode) decideLate(ctx context.Context) bool {
	switch e.rng.IntN(6) {
	case 0, 1:
		return e.stopWhileNumbered(ctx)
	case 2:
		return e.stopWhileEvacuated(ctx)
	}
	return e.returnWhileEvacuated(ctx)
}

// returnWhileEvacuated has a pageserver die, or not answer, until the leader decides to give
// its shards to others. It is back before that is in the log.
func (e *episode) returnWhileEvacuated(ctx context.Context) bool {
	s, err := e.newestState(ctx)
	if err != nil {
		return false
	}
	sh, ok := e.settledShard(s, anyShard)
	if !ok {
		e.createOne(ctx)
		return false
	}
	id := sh.Attached
	n := e.Fleet().Node(id)
	e.mu.Lock()
	ended := e.suspectLocked(id)
	e.mu.Unlock()
	defer ended()
	e.trap.set(func(c fsm.Command) bool {
		return decidesOn(c, func(in *fsm.Intent) bool { return in.Shard == sh.ID && in.Issue })
	})
	defer e.trap.release()
	dies := e.rng.IntN(2) == 0
	if dies {
		n.Kill()
	} else {
		n.Pause()
	}
	held := e.trap.await(e.maxOffline + 2*lateTime)
	if dies {
		if err := n.Start(ctx); err != nil {
			e.Errorf("seed %d: %v", e.seed, err)
		}
	} else {
		n.Resume()
	}
	back := e.until(ctx, lateTime, func(s *fsm.State) bool {
		now, _ := s.Node(id)
		return now.Availability != neon.NodeOffline
	})
	if !held || !back {
		return false
	}
	e.Logf("seed %d, round %d: node %s is back before its evacuation, killed: %v", e.seed,
		e.tally.rounds, id, dies)
	e.trap.release()
	<-time.After(lateTime)
	return true
}

// stopWhileEvacuated stops a tenant while the leader has decided to take a shard of it from a
// pageserver that died, which numbers it at the same time.
func (e *episode) stopWhileEvacuated(ctx context.Context) bool {
	s, err := e.newestState(ctx)
	if err != nil {
		return false
	}
	sh, ok := e.settledShard(s, anyShard)
	if !ok {
		e.createOne(ctx)
		return false
	}
	e.mu.Lock()
	ended := e.suspectLocked(sh.Attached)
	e.mu.Unlock()
	defer ended()
	e.trap.set(func(c fsm.Command) bool {
		return decidesOn(c, func(in *fsm.Intent) bool { return in.Shard == sh.ID && in.Issue })
	})
	defer e.trap.release()
	n := e.Fleet().Node(sh.Attached)
	n.Kill()
	met := e.trap.await(e.maxOffline+2*lateTime) && e.pin(ctx, sh.ID.Tenant, neon.ShardStop)
	if met {
		e.Logf("seed %d, round %d: tenant %s is stopped before its evacuation", e.seed,
			e.tally.rounds, sh.ID.Tenant)
		e.trap.release()
		<-time.After(lateTime)
	}
	if err := n.Start(ctx); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	return met
}

// stopWhileNumbered stops a tenant while the leader has decided to number an attachment.
func (e *episode) stopWhileNumbered(ctx context.Context) bool {
	s, err := e.newestState(ctx)
	if err != nil {
		return false
	}
	sh, ok := e.settledShard(s, anyShard)
	to := e.otherNode(s, sh.Attached)
	if !ok || to == 0 {
		return false
	}
	e.trap.set(func(c fsm.Command) bool {
		is, ok := c.(fsm.IssueGenerations)
		return ok && is.Items[0].Shard == sh.ID
	})
	defer e.trap.release()
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		e.moveTo(ctx, sh.ID, to)
	}()
	defer func() { <-moved }()
	if !e.trap.await(lateTime) || !e.pin(ctx, sh.ID.Tenant, neon.ShardStop) {
		return false
	}
	e.Logf("seed %d, round %d: tenant %s is stopped before its number", e.seed, e.tally.rounds,
		sh.ID.Tenant)
	e.trap.release()
	<-time.After(lateTime)
	return true
}

// otherNode picks a schedulable node that is not a given one; 0: there is none.
func (e *episode) otherNode(s *fsm.State, not neon.NodeID) neon.NodeID {
	var all []neon.NodeID
	for n := range s.Nodes() {
		if n.ID != not && n.Schedulable() {
			all = append(all, n.ID)
		}
	}
	if len(all) == 0 {
		return 0
	}
	return all[e.rng.IntN(len(all))]
}

// moveTo has an operator move a shard.
func (e *episode) moveTo(ctx context.Context, id neon.ShardID, to neon.NodeID) bool {
	return e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
		return c.Shards().Migrate(ctx, id, neon.MigrateRequest{
			Node: to, Config: neon.MigrationConfig{OverrideScheduler: true},
		})
	})
}
