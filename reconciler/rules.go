package reconciler

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/scheduler"
)

// rules applies, again and again, what holds at every moment and not only when
// something changes: no shard stays on an offline node while another can take it,
// and none stays without a place.
type rules struct {
	ctx        context.Context
	opts       Options
	log        decide.Log
	failpoints failpoint.Points
	logger     *slog.Logger
	nodes      *nodeWatch
	unplaced   *unplaced
	notifies   bool // there is a compute hook
	propose    func([]fsm.Intent) (fsm.Result, error)
	commit     func([]fsm.Intent) (refused []neon.ShardID)

	// refused is set when something is to be decided again. Requests evacuate too.
	refused atomic.Bool
}

// run applies the rules at every change of a node, and every few seconds. What was decided
// on something that has changed meanwhile is refused. The shard may be served nowhere, so
// that the next round comes soon, and later only if that does not help.
func (r *rules) run() {
	tick := time.NewTimer(0)
	defer tick.Stop()
	var pause time.Duration
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.nodes.rulesWake:
		case <-tick.C:
		}
		next := r.opts.RepairInterval
		if r.round() {
			pause = min(max(r.opts.RetryMin, 2*pause), next)
			next = pause
		} else {
			pause = 0
		}
		tick.Reset(next)
	}
}

// round applies all rules once, and reports whether something was refused.
func (r *rules) round() bool {
	r.refused.Store(false)
	r.evacuate()
	r.relieve()
	r.repair()
	r.rehome()
	return r.refused.Load()
}

// evacuate moves every shard that is attached on an offline node, a batch per log
// entry and its generation with it. It does not ask how the node came to be
// offline or who leads since when.
func (r *rules) evacuate() {
	for _, id := range r.offline() {
		from := neon.ShardID{}
		for more := true; more && r.ctx.Err() == nil; {
			st := r.log.State()
			if n, ok := st.Node(id); !ok || n.Availability != neon.NodeOffline {
				break
			}
			loads, asked := r.nodes.answering()
			if !asked {
				return
			}
			var intents []fsm.Intent
			intents, from, more = scheduler.New(st, loads).Evacuate(id, from,
				r.opts.EvacuationBatch)
			if len(intents) > 0 && !r.takeAway(id, intents) {
				return // the rule holds on: the next round tries again
			}
		}
	}
}

// relieve gives the shards that serve nobody, since their nodes do not answer, to nodes
// that do, and after a while also those that are still on their way there.
func (r *rules) relieve() {
	for _, id := range r.nodes.answers.unresponsive() {
		st := r.log.State()
		loads, asked := r.nodes.answering()
		if !asked {
			return
		}
		sched, handsBack := scheduler.New(st, loads), r.nodes.answers.handsBack(id)
		var intents []fsm.Intent
		for sh := range st.AttachedOn(id, neon.ShardID{}) {
			if !r.notifies || !unserved(st, &sh) && !(handsBack && handedOver(&sh, time.Now())) {
				continue // it cannot be told whether it serves anybody
			}
			if in, ok := sched.FailOver(sh); ok {
				if in.Basis != nil {
					in.Basis.Unserved = true
				}
				intents = append(intents, in)
			}
		}
		for batch := range slices.Chunk(intents, r.opts.EvacuationBatch) {
			if !r.takeAway(id, batch) {
				return
			}
		}
	}
}

// takeAway commits one batch of an evacuation.
func (r *rules) takeAway(from neon.NodeID, intents []fsm.Intent) bool {
	if issueSeparately(r.failpoints) {
		for i := range intents {
			intents[i].Issue = false
		}
	}
	res, err := r.propose(intents)
	if err != nil {
		return false
	}
	if len(res.Refused) > 0 {
		r.refused.Store(true)
	}
	if len(res.Refused) < len(intents) {
		r.logger.Info("evacuating", "node", from, "shards", len(res.Grants),
			"refused", len(res.Refused))
	}
	return true
}

func (r *rules) offline() (ids []neon.NodeID) {
	for n := range r.log.State().Nodes() {
		if n.Availability == neon.NodeOffline {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// repair places what lacks a location, as far as there are nodes, and gives up what is not
// wanted. A tenant that was put to Secondary keeps a second copy for a while.
func (r *rules) repair() {
	ids := r.unplaced.list(r.opts.KeepSecondary)
	loads, asked := r.nodes.answering()
	if !asked {
		return
	}
	for batch := range slices.Chunk(ids, r.opts.EvacuationBatch) {
		st := r.log.State()
		sched := scheduler.New(st, loads)
		var intents []fsm.Intent
		for _, id := range batch {
			if sh, ok := st.Shard(id); ok {
				if in, ok := sched.Repair(sh); ok {
					intents = append(intents, in)
				}
			}
		}
		if len(r.commit(intents)) > 0 {
			r.refused.Store(true)
		}
	}
}

// rehome places secondaries anew whose nodes have been offline for long.
func (r *rules) rehome() {
	loads, asked := r.nodes.answering()
	if !asked {
		return
	}
	for _, id := range r.offline() {
		if r.nodes.offlineFor(id) < r.opts.RehomeSecondary {
			continue
		}
		from := neon.ShardID{}
		for more := true; more && r.ctx.Err() == nil; {
			var intents []fsm.Intent
			intents, from, more = scheduler.New(r.log.State(), loads).ReplaceSecondaries(id, from,
				r.opts.EvacuationBatch)
			r.commit(intents)
		}
	}
}
