package testcluster_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver"
)

// nemesis injects faults of one kind, one after another.
type nemesis struct {
	*episode
	rng *rand.Rand
}

// pause waits for a random time of the given mean; false means that it is over.
func (n *nemesis) pause(ctx context.Context, mean time.Duration) bool {
	select {
	case <-time.After(time.Duration(n.rng.ExpFloat64() * float64(mean))):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (n *nemesis) upTo(
	d time.Duration,
) time.Duration {
	return time.Duration(n.rng.Int64N(int64(d)))
}

func (n *nemesis) injected() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tally.faults++
}

func (n *nemesis) check(err error) {
	if err != nil {
		n.Errorf("seed %d: inject a fault: %v", n.seed, err)
	}
}

// trustAfter is how long after a fault of a pageserver a controller may still take
// it for dead: a listing that hangs is given up after 25 s, then come a heartbeat
// and a verdict.
const trustAfter = 45 * time.Second

// suspect tells the oracle that the controllers may take a pageserver for dead,
// so that they do not wait for it when they delete a tenant. The returned function
// is to be called when the fault ends.
func (n *nemesis) suspect(id neon.NodeID) (ended func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.suspectLocked(id)
}

func (e *episode) suspectLocked(id neon.NodeID) (ended func()) {
	e.suspects[id]++
	e.Oracle().Unreachable(id)
	return func() {
		time.AfterFunc(trustAfter, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.suspects[id]--; e.suspects[id] == 0 {
				e.Oracle().Reachable(id)
			}
		})
	}
}

// controllers kills, stops, freezes and deposes controllers, hangs their disks and spoils
// their states.
func (n *nemesis) controllers(ctx context.Context) {
	for n.pause(ctx, 20*time.Second) {
		n.injected()
		i := n.rng.IntN(n.Controllers())
		if leader, ok := n.Leader(ctx); ok && n.rng.IntN(3) > 0 {
			i = leader
		}
		switch n.rng.IntN(11) {
		case 10:
			n.spoil(ctx, i)
		case 0, 1, 2, 3:
			n.check(n.Kill(i))
			n.pause(ctx, 3*time.Second)
			n.restart(i)
		case 4:
			n.killMany(ctx)
		case 5:
			n.check(n.StopController(ctx, i))
			n.pause(ctx, 2*time.Second)
			n.restart(i)
		case 6:
			n.check(n.Pause(i))
			n.pause(ctx, 2*time.Second)
			n.check(n.Resume(i))
		case 7:
			n.check(n.HangDisk(i))
			n.pause(ctx, 2*time.Second)
			n.check(n.HealDisk(i))
		default:
			c, cancel := context.WithTimeout(ctx, answerTimeout)
			_ = n.ClientOf(i).Cluster().
				StepDown(c) // it may be alone, or not know a healthy successor
			cancel()
		}
	}
}

func (n *nemesis) restart(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n.check(n.Restart(ctx, i))
}

// killMany kills several at once, all of them now and then.
func (n *nemesis) killMany(ctx context.Context) {
	dead := n.rng.Perm(n.Controllers())[:1+n.rng.IntN(n.Controllers())]
	for _, i := range dead {
		n.check(n.Kill(i))
	}
	for _, i := range dead {
		n.pause(ctx, 2*time.Second)
		n.restart(i)
	}
}

// network divides the controllers, and cuts some off from some pageservers.
func (n *nemesis) network(ctx context.Context) {
	for n.pause(ctx, 30*time.Second) {
		n.injected()
		if n.rng.IntN(2) == 0 {
			order := n.rng.Perm(n.Controllers())
			cut := n.rng.IntN(n.Controllers() + 1)
			n.whole <- struct{}{}
			n.check(n.Partition(order[:cut], order[cut:]))
			n.pause(ctx, 5*time.Second)
			n.check(n.Heal())
			<-n.whole
			continue
		}
		i := n.rng.IntN(n.Controllers())
		if leader, ok := n.Leader(ctx); ok && n.rng.IntN(2) == 0 {
			i = leader
		}
		var lost []neon.NodeID
		var ended []func()
		for _, node := range n.Fleet().Nodes() {
			if n.rng.IntN(3) == 0 {
				lost = append(lost, node.ID())
				ended = append(ended, n.suspect(node.ID()))
			}
		}
		n.check(n.CutOff(i, lost...))
		n.pause(ctx, 10*time.Second)
		n.check(n.CutOff(i))
		for _, f := range ended {
			f()
		}
	}
}

// pageservers kills, restarts, wipes and freezes pageservers, and makes them slow,
// refuse, hang, garble and lose replies.
func (n *nemesis) pageservers(ctx context.Context) {
	for n.pause(ctx, 15*time.Second) {
		n.injected()
		nodes := n.Fleet().Nodes()
		node := nodes[n.rng.IntN(len(nodes))]
		if !node.Running() {
			n.check(node.Start(context.WithoutCancel(ctx)))
			continue
		}
		ended := n.suspect(node.ID())
		switch n.rng.IntN(12) {
		case 0, 1:
			node.Kill() // until it is chosen again
		case 2, 3:
			node.Kill()
			n.pause(ctx, 2*time.Second)
			n.check(node.Start(context.WithoutCancel(ctx)))
		case 4:
			c, cancel := context.WithTimeout(ctx, 5*time.Second)
			_ = node.Stop(c) // too slow is a kill
			cancel()
		case 5:
			node.WipeDisk()
			n.pause(ctx, 2*time.Second)
			n.check(node.Start(context.WithoutCancel(ctx)))
		case 6:
			node.Pause()
			n.pause(ctx, 8*time.Second)
			node.Resume()
		case 7:
			if n.rng.IntN(4) == 0 {
				for _, all := range nodes {
					all.Kill()
				}
			}
		default:
			node.SetFaults(n.rules()...)
			n.pause(ctx, 15*time.Second)
			node.SetFaults()
		}
		ended()
	}
}

// rules are a few random faults of a pageserver's answers.
func (n *nemesis) rules() (rules []simpageserver.Fault) {
	routes := []simpageserver.Route{
		"", simpageserver.RouteLocationPut, simpageserver.RouteLocationPut,
		simpageserver.RouteLocationList, simpageserver.RouteLocationGet,
		simpageserver.RouteUtilization, simpageserver.RouteTimelineCreate,
		simpageserver.RouteTenantDelete, simpageserver.RouteWaitLsn,
		simpageserver.RouteSecondaryDownload, simpageserver.RouteShardSplit,
		simpageserver.RouteShardSplit,
	}
	kinds := []simpageserver.FaultKind{
		simpageserver.FaultDelay, simpageserver.FaultDelay, simpageserver.FaultDelayReply,
		simpageserver.FaultRefuse, simpageserver.FaultHang,
		simpageserver.FaultReset, simpageserver.FaultLoseReply, simpageserver.FaultLoseReply,
		simpageserver.FaultDuplicate, simpageserver.FaultMalformed,
	}
	for range 1 + n.rng.IntN(3) {
		rules = append(rules, simpageserver.Fault{
			Kind: kinds[n.rng.IntN(len(kinds))], Route: routes[n.rng.IntN(len(routes))],
			Probability: []float64{0.1, 0.5, 1}[n.rng.IntN(3)],
			Delay:       n.upTo(4 * time.Second),
			Jitter:      1 + n.upTo(30*time.Second)/time.Duration(1+n.rng.IntN(10)),
			Status: []int{
				0, http.StatusConflict, http.StatusInternalServerError,
				http.StatusServiceUnavailable,
			}[n.rng.IntN(4)],
		})
	}
	return rules
}

// hook puts the control plane into moods.
func (n *nemesis) hook(ctx context.Context) {
	for n.pause(ctx, 30*time.Second) {
		n.injected()
		mood := []simpageserver.Fault{
			{Kind: simpageserver.FaultRefuse, Status: http.StatusLocked},
			{
				Kind: simpageserver.FaultRefuse, Status: http.StatusServiceUnavailable,
				Probability: 0.7,
			},
			{Kind: simpageserver.FaultRefuse, Status: http.StatusTooManyRequests},
			{Kind: simpageserver.FaultRefuse, Status: http.StatusNotFound, Probability: 0.5},
			{Kind: simpageserver.FaultRefuse, Status: http.StatusInternalServerError},
			{Kind: simpageserver.FaultHang, Probability: 0.5},
			{Kind: simpageserver.FaultDelay, Delay: n.upTo(10 * time.Second), Jitter: time.Second},
			{Kind: simpageserver.FaultLoseReply, Probability: 0.7},
		}[n.rng.IntN(8)]
		n.Hook().SetFaults(mood)
		n.pause(ctx, 10*time.Second)
		n.Hook().SetFaults()
	}
}
