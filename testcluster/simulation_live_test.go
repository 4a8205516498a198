package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

const (
	// endLimit bounds how long anything that was begun goes on after the end of all
	// faults, if it does not depend on what refuses for good. The longest is an operation
	// that waits for a split.
	endLimit = 15 * time.Minute

	// promptLimit bounds the deletion of a tenant that nothing is in the way of. It waits
	// for the verdict on a dead pageserver.
	promptLimit = 2 * time.Minute

	// calmLimit bounds the entries of the log in a minute in which nobody asks for
	// anything: sixteen moves every 20 s, and what a retry writes.
	calmLimit = 1000
)

// obstacle is something that refuses for good. Only its tenant may depend on it.
type obstacle struct {
	what   string
	tenant neon.TenantID // of which not everything need be as it should be
	node   neon.NodeID   // where it is; 0 for nowhere
	end    func()
}

// live has one thing refuse for good, while nothing else is wrong, and demands that
// whatever is begun ends, or says what it waits for.
func (e *episode) live() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*endLimit)
	defer cancel()
	e.demandEnd(ctx, "after the end of all faults", func(s *fsm.State) error {
		return operationsRun(s)
	})
	e.restorePolicies(ctx)
	e.trouble(ctx)
	e.restorePolicies(ctx)
	x, ok := e.obstruct(ctx)
	if !ok {
		return
	}
	defer x.end()
	if e.Failed() {
		return
	}
	e.Logf("seed %d, round %d: %s", e.seed, e.tally.rounds, x.what)
	e.mu.Lock()
	e.tally.obstacles++
	e.mu.Unlock()
	e.shake(ctx, x)
	begun := e.orderAround(ctx, x)
	e.deleteBeside(ctx, x)
	e.demandEnd(ctx, "beside something that refuses for good", func(s *fsm.State) error {
		return errors.Join(operationsRun(s), e.nodesAreUsed(s), e.othersAreServed(s, x))
	})
	e.demandOutcomes(ctx, x, begun)
	e.demandReason(ctx, x)
	e.demandCalm(ctx, x)
}

// obstruct makes something refuse for good; false when there is nothing to choose.
func (e *episode) obstruct(ctx context.Context) (x obstacle, ok bool) {
	var running []*simpageserver.Node
	for _, n := range e.Fleet().Nodes() {
		if n.Running() {
			running = append(running, n)
		}
	}
	e.mu.Lock()
	tenants := slices.Clone(e.tenants)
	e.mu.Unlock()
	if len(tenants) < 2 || len(running) < 2 {
		return x, false
	}
	t := tenants[e.rng.IntN(len(tenants))]
	node := running[e.rng.IntN(len(running))]
	refusal := simpageserver.Fault{
		Kind: simpageserver.FaultRefuse, Route: simpageserver.RouteLocationPut,
		Status: []int{http.StatusInternalServerError, http.StatusConflict,
			http.StatusBadRequest}[e.rng.IntN(3)],
	}
	if e.rng.IntN(4) == 0 {
		refusal.Kind = simpageserver.FaultHang
	}
	x = obstacle{tenant: t.id, node: node.ID(), end: func() { node.SetFaults() }}
	kind := e.rng.IntN(4)
	if *simObstacle >= 0 {
		kind = *simObstacle
	}
	if kind == 3 {
		if y, ok := e.untold(ctx, t); ok {
			y.node = node.ID()
			return y, ok
		}
	}
	switch kind {
	case 0: // a location of which no tenant knows
		e.next++
		refusal.Shard = shardOf(e.next, 0, 0)
		x.tenant = refusal.Shard.Tenant
		e.workers[0].place(ctx, node.ID(), refusal.Shard, neon.LocationConfig{
			Mode: neon.Secondary, SecondaryConf: &neon.SecondaryConf{Warm: true},
		})
		x.what = fmt.Sprintf("node %s does not give up the unknown shard %s", node.ID(),
			refusal.Shard)
	case 1: // a shard that a pageserver does not change
		shards := e.shardsOf(t)
		refusal.Shard = shards[e.rng.IntN(len(shards))]
		for _, n := range running { // where it is, rather
			if _, there := n.Location(refusal.Shard); there && e.rng.IntN(2) == 0 {
				node = n
			}
		}
		x.node = node.ID()
		x.what = fmt.Sprintf("node %s does not change shard %s", node.ID(), refusal.Shard)
	default: // a tenant of which compute will not hear
		refusal.Route, refusal.Tenant = simpageserver.RouteNotifyAttach, t.id
		refusal.Status = []int{http.StatusUnauthorized, http.StatusForbidden,
			http.StatusServiceUnavailable}[e.rng.IntN(3)]
		e.Hook().SetFaults(refusal)
		x.end = func() { e.Hook().SetFaults() }
		x.what = fmt.Sprintf("compute of tenant %s is not told: %v", t.id, refusal)
		return x, true
	}
	node.SetFaults(refusal)
	return x, true
}

func (e *episode) replaceLeader(ctx context.Context) {
	i, err := e.KillLeader(ctx)
	if err == nil {
		err = e.Restart(ctx, i)
	}
	if err != nil {
		e.Errorf("seed %d: replace the leader: %v", e.seed, err)
	}
}

// shake makes a new leader, which knows nothing, and restarts a pageserver.
func (e *episode) shake(ctx context.Context, x obstacle) {
	if e.rng.IntN(3) > 0 {
		e.replaceLeader(ctx)
	}
	if n := e.Fleet().Node(x.node); e.rng.IntN(3) == 0 && n.Running() {
		n.Kill()
		if err := n.Start(ctx); err != nil {
			e.Errorf("seed %d: %v", e.seed, err)
		}
	}
}

// orderAround begins operations on pageservers, also where the obstacle is. It returns the
// pageservers with those that have not ended at once.
func (e *episode) orderAround(ctx context.Context, x obstacle) (begun []fsm.Node) {
	for range 1 + e.rng.IntN(2) {
		nodes := e.Fleet().Nodes()
		id := nodes[e.rng.IntN(len(nodes))].ID()
		if x.node != 0 && e.rng.IntN(2) == 0 {
			id = x.node
		}
		what := []string{"drain", "drain", "fill", "delete"}[e.rng.IntN(4)]
		if what == "delete" && !e.workers[0].mayDelete(id) {
			what = "drain"
		}
		path := "/control/v1/node/" + id.String() + "/" + what + "?concurrent=true"
		c := e.Client().WithTryTimeout(answerTimeout)
		try, cancel := context.WithTimeout(ctx, opLimit)
		e.workers[0].count(c.Call(try, http.MethodPut, path, nil, nil)) // it may be refused
		cancel()
	}
	if s, err := e.newestState(ctx); err == nil {
		for n := range s.Nodes() {
			if n.Operation.Kind != fsm.OperationNone {
				begun = append(begun, *n)
			}
		}
	}
	return begun
}

// demandOutcomes demands that the log says how operations have ended, and of a deletion that
// gave up what it left.
func (e *episode) demandOutcomes(ctx context.Context, x obstacle, begun []fsm.Node) {
	s, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return
	}
	ended := make(map[uint64]fsm.Outcome)
	for o := range s.Outcomes() {
		ended[o.Begun] = o
	}
	for _, n := range begun {
		o, ok := ended[n.Operation.Begun]
		if !ok || o.Node != n.ID || o.Kind != n.Operation.Kind || o.EndedAt < o.BegunAt ||
			o.Ending == fsm.Cancelled || o.Ending == fsm.GaveUp && o.Left.Count == 0 {
			e.Errorf("seed %d, round %d: %s: %s of node %s has ended as %+v", e.seed,
				e.tally.rounds, x.what, n.Operation.Kind, n.ID, o)
		}
	}
}

// deleteBeside deletes a tenant that has nothing to do with the obstacle, and now and then
// the one that has, which may take for ever.
func (e *episode) deleteBeside(ctx context.Context, x obstacle) {
	e.mu.Lock()
	tenants := slices.Clone(e.tenants)
	e.mu.Unlock()
	for _, t := range tenants {
		mine := t.id == x.tenant
		if mine && e.rng.IntN(4) > 0 {
			continue
		}
		w := e.ownerOf(t)
		w.forget(t)
		e.Oracle().Deleting(t.id)
		if mine {
			try, cancel := context.WithTimeout(ctx, answerTimeout)
			_ = e.Client().Tenants().Delete(try, t.id) // it has been begun
			cancel()
			continue
		}
		e.demandDeletion(ctx, t.id, x)
		return
	}
}

// demandDeletion demands that a tenant is deleted soon.
func (e *episode) demandDeletion(ctx context.Context, id neon.TenantID, x obstacle) {
	ctx, cancel := context.WithTimeout(ctx, promptLimit)
	defer cancel()
	var why error
	for {
		err := e.Client().WithTryTimeout(answerTimeout).Tenants().Delete(ctx, id)
		if err == nil || client.StatusOf(err) == http.StatusNotFound {
			return
		}
		if ctx.Err() == nil {
			why = err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			e.Errorf("seed %d, round %d: %s: another tenant, %s, is not deleted after %s: %v",
				e.seed, e.tally.rounds, x.what, id, promptLimit, why)
			e.explainShards(fmt.Errorf("tenant %s", id))
			e.stacks()
			return
		}
	}
}

func (e *episode) ownerOf(t *simTenant) *worker {
	for _, w := range e.workers {
		if slices.Contains(w.mine, t) {
			return w
		}
	}
	return e.workers[0]
}

// demandEnd demands that something holds after a while, and stays quiet.
func (e *episode) demandEnd(ctx context.Context, when string, holds func(*fsm.State) error) {
	if e.Failed() {
		return
	}
	began := time.Now()
	var err error
	for time.Since(began) < endLimit {
		var s *fsm.State
		if s, err = e.newestState(ctx); err == nil {
			if err = holds(s); err == nil {
				e.tally.longest = max(e.tally.longest, time.Since(began))
				return
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			e.Errorf("seed %d: %v", e.seed, ctx.Err())
			return
		}
	}
	e.Errorf("seed %d, round %d: %s %s: %v", e.seed, e.tally.rounds, time.Since(began), when, err)
	e.stacks()
}

func (e *episode) newestState(ctx context.Context) (*fsm.State, error) {
	try, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	i, err := e.WaitLeader(try)
	if err != nil {
		return nil, err
	}
	return e.State(try, i)
}

// operationsRun is an error while there are operations on pageservers.
func operationsRun(s *fsm.State) error {
	if n, runs := s.Operating(); runs {
		return fmt.Errorf("%s of node %s has not ended: %+v", n.Operation.Kind, n.ID, n.Operation)
	}
	return nil
}

// nodesAreUsed demands that every pageserver that runs is active.
func (e *episode) nodesAreUsed(s *fsm.State) error {
	for n := range s.Nodes() {
		if sim := e.Fleet().Node(n.ID); sim.Running() && n.Availability != neon.NodeActive {
			return fmt.Errorf("node %s is %s", n.ID, n.Availability)
		}
	}
	return nil
}

// othersAreServed demands that nothing that was begun for another tenant goes on: it is
// deleted, split and attached, and compute knows.
func (e *episode) othersAreServed(s *fsm.State, x obstacle) error {
	var wrong []error
	for sp := range s.Splits() {
		if sp.Tenant != x.tenant && sp.Active() {
			wrong = append(wrong, fmt.Errorf("the split of %s has not ended", sp.Tenant))
		}
	}
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		tenant, _ := s.Tenant(sh.ID.Tenant)
		if tenant.ID == x.tenant || sh.Unmanaged || s.Splitting(tenant.ID) {
			continue
		}
		if why := e.unserved(s, tenant, sh); why != "" {
			wrong = append(wrong, fmt.Errorf("shard %s %s", sh.ID, why))
		}
	}
	return errors.Join(wrong[:min(5, len(wrong))]...)
}

// unserved is why a shard is not as it should be, or "".
func (e *episode) unserved(s *fsm.State, tenant fsm.Tenant, sh fsm.Shard) string {
	if tenant.Deleting {
		// Who was asked to remove the data, and is dead, holds the deletion: nobody knows
		// whether it has ended. The refusal says how it goes on.
		n, removing := s.Removing(&tenant)
		if node := e.Fleet().Node(n.ID); removing && (node == nil || !node.Running()) {
			return ""
		}
		return "is still being deleted"
	}
	if tenant.Policy.Kind != neon.PlaceAttached || tenant.Scheduling == neon.ShardStop {
		return ""
	}
	n := e.Fleet().Node(sh.Attached)
	if n == nil || !n.Running() {
		return fmt.Sprintf("should be on node %s, which is dead", sh.Attached)
	}
	at, there := n.Location(sh.ID)
	switch {
	case !there || at.Mode != neon.AttachedSingle || sh.GenNode != sh.Attached:
		return fmt.Sprintf("is %q on node %s", at.Mode, sh.Attached)
	case sh.OwesNotification():
		return "is unknown to compute"
	}
	return ""
}

// demandReason demands that the tenant with the obstacle says what it waits for, if it does.
func (e *episode) demandReason(ctx context.Context, x obstacle) {
	s, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return
	}
	waits := ""
	for sh := range s.TenantShards(x.tenant) {
		tenant, _ := s.Tenant(x.tenant)
		if why := e.unserved(s, tenant, sh); why != "" && !tenant.Deleting {
			waits = fmt.Sprintf("%s %s", sh.ID, why)
		}
	}
	if waits == "" {
		return
	}
	var said []neon.ShardDescribe
	e.persist(ctx, "describe a tenant", func(ctx context.Context, c *testcluster.Client) error {
		d, err := c.Tenants().Describe(ctx, x.tenant)
		said = d.Shards
		return err
	})
	for _, d := range said {
		if d.LastError != "" || d.PendingComputeNotification {
			return
		}
	}
	e.Errorf("seed %d, round %d: %s: nobody says why %s", e.seed, e.tally.rounds, x.what, waits)
}

// demandCalm demands that what refuses is not tried without a pause.
func (e *episode) demandCalm(ctx context.Context, x obstacle) {
	before, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return
	}
	<-time.After(time.Minute)
	after, err := e.newestState(ctx)
	if err == nil && after.Index-before.Index > calmLimit {
		e.Errorf("seed %d, round %d: %s: the log has grown by %d entries in a minute", e.seed,
			e.tally.rounds, x.what, after.Index-before.Index)
	}
}
