package simpageserver

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
)

// TestStress hammers three nodes with location calls, listings, kills, pauses and
// faults from many goroutines. The controller is honest, so the oracle must stay
// silent, and at the end nothing may hang.
func TestStress(t *testing.T) {
	w := newWorld(t, Options{
		Seed: 1, Store: NewStore(StoreOptions{WALRate: 1 << 20}),
		Behaviour: Behaviour{ActivationJitter: 2 * time.Millisecond},
	})
	nodes := make([]*Node, 3)
	for i := range nodes {
		nodes[i] = w.node(neon.NodeID(i+1),
			func(o *NodeOptions) { o.Maintenance = 5 * time.Millisecond })
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			w.mover(ctx, nodes, shardOf(worker),
				rand.New(rand.NewPCG(2, uint64(worker))))
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, n := range nodes {
				w.do(ctx, "GET", "http://"+n.Addr()+"/v1/location_config", nil)
				w.do(ctx, "GET", "http://"+n.Addr()+"/v1/utilization", nil)
			}
		}
	})
	wg.Go(func() { w.chaos(ctx, nodes) })
	wg.Wait()
	for _, n := range nodes {
		n.SetFaults()
		if !n.Running() {
			w.start(n)
		}
		w.ready(n)
	}
	w.silent()
	for _, n := range nodes {
		attached, secondary := 0, 0
		for _, v := range n.Locations() {
			if v.Mode.Attached() {
				attached++
			} else if v.Mode == neon.Secondary {
				secondary++
			}
		}
		if a, s, _ := n.host.counts(); a != attached || s != secondary {
			t.Errorf("node %s counts %d and %d, has %d and %d", n.ID(), a, s, attached, secondary)
		}
	}
}

// mover is the only controller of one shard: it attaches it here and there, each
// time with a new generation, and creates timelines.
func (w *world) mover(ctx context.Context, nodes []*Node, shard neon.ShardID, rng *rand.Rand) {
	for tl := 0; ctx.Err() == nil; tl++ {
		to := nodes[rng.IntN(len(nodes))]
		g := w.auth.grant(shard, to.ID())
		call, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(50))*time.Millisecond)
		status, _ := w.do(call, "PUT", "http://"+to.Addr()+locationPath(shard)+"?lazy=true",
			confOf(shard, neon.AttachedSingle, g))
		if status == 200 && tl%4 == 0 {
			w.do(call, "POST", "http://"+to.Addr()+timelinePath(shard),
				map[string]any{"new_timeline_id": timelineOf(tl)})
		}
		for _, other := range nodes {
			if other != to && status == 200 {
				w.do(call, "PUT", "http://"+other.Addr()+locationPath(shard),
					confOf(shard, neon.Secondary, 0))
			}
		}
		cancel()
	}
}

func (w *world) chaos(ctx context.Context, nodes []*Node) {
	rng := rand.New(rand.NewPCG(3, 3))
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n := nodes[rng.IntN(len(nodes))]
		switch rng.IntN(6) {
		case 0:
			if err := n.Restart(ctx); err != nil && ctx.Err() == nil {
				w.t.Error(err)
			}
		case 1:
			n.Pause()
		case 2:
			n.Resume()
		case 3:
			n.SetFaults(Fault{Kind: FaultDuplicate, Probability: 0.2, Jitter: 5 * time.Millisecond},
				Fault{Kind: FaultLoseReply, Probability: 0.1},
				Fault{Kind: FaultReset, Probability: 0.1},
				Fault{Kind: FaultRefuse, Probability: 0.1},
				Fault{Kind: FaultDelay, Probability: 0.1, Jitter: 20 * time.Millisecond})
		case 4:
			n.SetFaults()
		case 5:
			n.SetBehaviour(Behaviour{SlotBusy: 3 * time.Millisecond, BrokenOneIn: 10})
		}
	}
}
