package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
)

// located is what a worker has been told of the safekeepers of a timeline.
type located struct {
	neon.TimelineLocate
	dying bool // its deletion was asked for
}

// safekeepers kills safekeepers, makes them slow and loses their replies.
func (n *nemesis) safekeepers(ctx context.Context) {
	nodes := n.Safekeepers().Nodes()
	for len(nodes) > 0 && n.pause(ctx, 20*time.Second) {
		n.injected()
		node := nodes[n.rng.IntN(len(nodes))]
		switch n.rng.IntN(6) {
		case 0, 1:
			node.Kill()
			n.pause(ctx, 20*time.Second)
			n.check(node.Start())
		case 2, 3:
			node.Delay(1 + n.upTo([]time.Duration{time.Second, 30 * time.Second}[n.rng.IntN(2)]))
			n.pause(ctx, 15*time.Second)
			node.Delay(0)
		default:
			node.LoseReplies(1 + n.rng.IntN(5))
		}
	}
}

// write is a compute of a timeline that reaches some safekeepers.
func (w *worker) write(t *simTenant) {
	if tl, ok := w.anyTimeline(t); ok {
		w.Safekeepers().Write(neon.TimelineRef{Tenant: t.id, Timeline: tl},
			neon.Lsn(1+w.rng.IntN(1<<20)), w.someSafekeepers(4), w.someSafekeepers(3))
	}
}

// someSafekeepers picks most of them: each with a chance of out of five.
func (w *worker) someSafekeepers(out int) (ids []neon.NodeID) {
	for _, n := range w.Safekeepers().Nodes() {
		if w.rng.IntN(5) < out {
			ids = append(ids, n.ID())
		}
	}
	return ids
}

func (w *worker) anyTimeline(t *simTenant) (tl neon.TimelineID, ok bool) {
	if len(t.timelines) == 0 || len(w.Safekeepers().Nodes()) == 0 {
		return tl, false
	}
	return t.timelines[w.rng.IntN(len(t.timelines))], true
}

// moveSafekeepers moves a timeline to a random set of safekeepers, or takes a move back.
func (w *worker) moveSafekeepers(ctx context.Context, c *testcluster.Client, t *simTenant) {
	tl, ok := w.anyTimeline(t)
	if !ok {
		return
	}
	if w.rng.IntN(4) == 0 {
		w.count(c.Timelines().AbortSafekeepers(ctx, t.id, tl))
		return
	}
	all := w.Safekeepers().Nodes()
	var set []neon.NodeID
	for _, i := range w.rng.Perm(len(all))[:min(3, len(all))] {
		set = append(set, all[i].ID())
	}
	if w.count(c.Timelines().MigrateSafekeepers(ctx, t.id, tl, set)) {
		w.locateSafekeepers(ctx, t, tl, set)
	}
}

// locateSafekeepers asks any replica where a timeline is. The generation never falls,
// one generation is one configuration, and a move that was acknowledged is seen.
func (w *worker) locateSafekeepers(
	ctx context.Context, t *simTenant, tl neon.TimelineID, want []neon.NodeID,
) {
	i := w.rng.IntN(w.Controllers())
	var now neon.TimelineLocate
	path := fmt.Sprintf("/debug/v1/tenant/%s/timeline/%s/locate", t.id, tl)
	err := w.ClientOf(i).WithTryTimeout(answerTimeout).Call(ctx, http.MethodGet, path, nil, &now)
	was := t.located[tl]
	switch {
	case client.StatusOf(err) == http.StatusNotFound && !was.dying:
		w.Errorf("seed %d: controller %d does not know timeline %s of tenant %s", w.seed, i, tl,
			t.id)
	case err != nil:
		return
	case now.Generation < was.Generation:
		w.Errorf("seed %d: controller %d says that timeline %s is in generation %d, it was in %d",
			w.seed, i, tl, now.Generation, was.Generation)
	case now.Generation == was.Generation &&
		(!slices.Equal(now.Set, was.Set) || (now.NewSet == nil) != (was.NewSet == nil)):
		w.Errorf("seed %d: controller %d says that generation %d of timeline %s is %v, it was %v",
			w.seed, i, now.Generation, tl, now, was)
	case want != nil && (now.NewSet != nil || !slices.Equal(now.Set, want)):
		w.Errorf("seed %d: controller %d says that timeline %s is on %v, it was moved to %v",
			w.seed, i, tl, now, want)
	}
	w.read()
	was.TimelineLocate = now
	t.located[tl] = was
}

// scheduleSafekeeper keeps a safekeeper from getting timelines, or lets it have them.
func (w *worker) scheduleSafekeeper(ctx context.Context, c *testcluster.Client) {
	all := w.Safekeepers().Nodes()
	if len(all) == 0 {
		return
	}
	to := neon.SafekeeperActive
	if w.rng.IntN(3) == 0 {
		to = neon.SafekeeperPause
	}
	w.count(c.Safekeepers().SetScheduling(ctx, all[w.rng.IntN(len(all))].ID(), to))
}

// endSafekeeperFaults ends all faults of safekeepers.
func (e *episode) endSafekeeperFaults() error {
	for _, n := range e.Safekeepers().Nodes() {
		n.Delay(0)
		n.LoseReplies(0)
		if !n.Running() {
			if err := n.Start(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishSafekeeperMoves lets all safekeepers be used again and takes back, or finishes, the
// moves that no leader carries on.
func (e *episode) finishSafekeeperMoves(ctx context.Context) {
	for _, n := range e.Safekeepers().Nodes() {
		e.persist(ctx, "activate a safekeeper",
			func(ctx context.Context, c *testcluster.Client) error {
				return c.Safekeepers().SetScheduling(ctx, n.ID(), neon.SafekeeperActive)
			})
	}
	for ctx.Err() == nil {
		all, err := states(ctx, e.Cluster)
		if err != nil { // the leader may have been replaced just now
			<-time.After(100 * time.Millisecond)
			continue
		}
		var left []fsm.Timeline
		for tl := range all[0].Timelines() {
			if !tl.MigrationDone() && !tl.Deleted {
				left = append(left, tl)
			}
		}
		if len(left) == 0 {
			return
		}
		for _, tl := range left {
			e.persist(ctx, "take a move of a timeline back",
				func(ctx context.Context, c *testcluster.Client) error {
					return c.Timelines().AbortSafekeepers(ctx, tl.Tenant, tl.ID)
				})
		}
	}
}
