package testcluster_test

import (
	"context"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

const (
	// changesOfFleet is how often a fleet that is at rest changes, one change after another.
	changesOfFleet = 3

	// uncounted is for how long a pageserver that fell is not counted on for even loads. It
	// doubles with each further time within an hour.
	uncounted = 5 * time.Minute

	// mostPageservers is how large a fleet grows.
	mostPageservers = 8

	// replaced is how long the restart of a drained pageserver takes.
	replaced = 80 * time.Second
)

// falls are when pageservers were lost, or restarted, in lopsided fleets.
type falls map[neon.NodeID][]time.Time

// note notes that a pageserver falls now.
func (f falls) note(id neon.NodeID) { f[id] = append(f[id], time.Now()) }

// wait is how long it takes at most until a pageserver is counted on.
func (f falls) wait(id neon.NodeID) (wait time.Duration) {
	for _, at := range f[id] {
		if time.Since(at) < time.Hour {
			wait = max(uncounted, 2*wait)
		}
	}
	return wait
}

// unsettle changes a fleet: a pageserver dies, the dead one comes back, one is drained and
// restarted, and filled now and then, or a new one comes. It returns for how long, at most,
// nothing may seem to be left to do: a pageserver is not counted on yet, or secondaries are
// left where they were.
func (e *episode) unsettle(ctx context.Context) (what string, wait time.Duration) {
	nodes := e.running()
	n := nodes[0]
	dead := e.firstDead()
	switch pick := e.rng.IntN(4); {
	case dead != nil && pick < 3:
		e.comeBack(ctx, dead)
		return fmt.Sprintf("node %s comes back", dead.ID()), e.fell.wait(dead.ID())
	case pick == 0 && len(e.Fleet().Nodes()) < mostPageservers:
		return e.join(ctx), 0
	case pick == 1 || dead != nil || len(nodes) < 4:
		what = e.replace(ctx, n)
		return what, e.fell.wait(n.ID())
	}
	e.die(ctx, n)
	return fmt.Sprintf("node %s dies", n.ID()), e.rehome
}

// die kills a pageserver and waits for the verdict.
func (e *episode) die(ctx context.Context, n *simpageserver.Node) {
	e.mu.Lock()
	e.unsettled[n.ID()] = e.suspectLocked(n.ID())
	e.mu.Unlock()
	e.fell.note(n.ID())
	n.Kill()
	e.demandEnd(ctx, "after a death", func(s *fsm.State) error {
		if now, _ := s.Node(n.ID()); now.Availability != neon.NodeOffline {
			return fmt.Errorf("node %s is %s", n.ID(), now.Availability)
		}
		return nil
	})
}

// firstDead is a pageserver that does not run, or nil.
func (e *episode) firstDead() *simpageserver.Node {
	for _, n := range e.Fleet().Nodes() {
		if !n.Running() {
			return n
		}
	}
	return nil
}

// comeBack starts a pageserver that died.
func (e *episode) comeBack(ctx context.Context, n *simpageserver.Node) {
	if err := n.Start(ctx); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	if ended := e.unsettled[n.ID()]; ended != nil {
		ended()
		delete(e.unsettled, n.ID())
	}
	e.demandEnd(ctx, "after a return", e.nodesAreUsed)
}

// join adds a pageserver.
func (e *episode) join(ctx context.Context) string {
	id := neon.NodeID(len(e.Fleet().Nodes()) + 1)
	e.mu.Lock()
	e.servers++
	e.mu.Unlock()
	e.disks[id] = uint64(2+e.rng.IntN(3)) << 40
	n, err := e.AddPageserver(id, testcluster.Zone(e.rng.IntN(e.zones)))
	if err == nil {
		n.SetBehaviour(e.behaviourOf(id))
		err = n.Start(ctx)
	}
	if err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	return fmt.Sprintf("node %s is new", id)
}

// replace drains a pageserver, restarts it a while later, and has it used again.
func (e *episode) replace(ctx context.Context, n *simpageserver.Node) string {
	id := n.ID()
	e.order(ctx, id, "drain")
	e.demandEnd(ctx, "after a drain", operationsRun)
	e.mu.Lock()
	ended := e.suspectLocked(id)
	e.mu.Unlock()
	e.fell.note(id)
	n.Kill()
	<-time.After(replaced)
	if err := n.Start(ctx); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	ended()
	e.demandEnd(ctx, "after a return", e.nodesAreUsed)
	e.schedule(ctx, id, neon.SchedulingActive)
	if e.rng.IntN(2) == 0 {
		return fmt.Sprintf("node %s is drained and restarted", id)
	}
	e.order(ctx, id, "fill")
	e.demandEnd(ctx, "after a fill", operationsRun)
	return fmt.Sprintf("node %s is drained, restarted and filled", id)
}

// reviveAll starts what is dead.
func (e *episode) reviveAll(ctx context.Context) {
	for n := e.firstDead(); n != nil && !e.Failed(); n = e.firstDead() {
		e.comeBack(ctx, n)
	}
}
