package reconciler

import (
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// loads are what the last heartbeats said, as the scheduler wants it.
func (t *term) loads() map[neon.NodeID]scheduler.Load {
	out := make(map[neon.NodeID]scheduler.Load)
	for id, u := range t.nodes.utilizations() {
		out[id] = scheduler.Load{
			DiskWanted: u.DiskWantedBytes,
			DiskUsable: (u.DiskUsageBytes + u.FreeSpaceBytes) / 100 * uint64(u.DiskUsablePct),
			Shards:     int(u.ShardCount), MaxShards: int(u.MaxShardCount),
		}
	}
	return out
}

// answering are the loads for decisions that nobody asked for: nodes that do not
// answer their heartbeats take nothing. It is false as long as some node that
// could take something was not asked in this term; that is about to change.
func (t *term) answering() (map[neon.NodeID]scheduler.Load, bool) {
	silent, asked := t.nodes.silent()
	if !asked {
		return nil, false
	}
	loads := t.loads()
	for _, id := range silent {
		l := loads[id]
		l.Silent = true
		loads[id] = l
	}
	return loads, true
}

// evacuate moves every shard that is attached on an offline node, a batch per log
// entry and its generation with it. It does not ask how the node came to be
// offline or who leads since when.
func (t *term) evacuate() {
	for _, id := range t.offline() {
		from := neon.ShardID{}
		for more := true; more && t.ctx.Err() == nil; {
			st := t.Log.State()
			if n, ok := st.Node(id); !ok || n.Availability != neon.NodeOffline {
				break
			}
			loads, asked := t.answering()
			if !asked {
				return
			}
			var intents []fsm.Intent
			intents, from, more = scheduler.New(st, loads).Evacuate(id, from,
				t.Options.EvacuationBatch)
			if len(intents) == 0 {
				continue
			}
			if t.apart() {
				for i := range intents {
					intents[i].Issue = false
				}
			}
			r, err := t.Log.Propose(t.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: intents})
			if err != nil {
				return // the rule holds on: the next round tries again
			}
			t.Logger.Info("evacuating", "node", id, "shards", len(r.Grants),
				"refused", len(r.Refused))
		}
	}
}

func (t *term) offline() (ids []neon.NodeID) {
	for n := range t.Log.State().Nodes() {
		if n.Availability == neon.NodeOffline {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// repair places what lacks a location, as far as there are nodes.
func (t *term) repair() {
	t.mu.Lock()
	ids := make([]neon.ShardID, 0, len(t.unplaced))
	for id := range t.unplaced {
		ids = append(ids, id)
	}
	t.mu.Unlock()
	slices.SortFunc(ids, neon.ShardID.Compare)
	loads, asked := t.answering()
	if !asked {
		return
	}
	for batch := range slices.Chunk(ids, t.Options.EvacuationBatch) {
		st := t.Log.State()
		sched := scheduler.New(st, loads)
		var intents []fsm.Intent
		for _, id := range batch {
			if sh, ok := st.Shard(id); ok {
				if in, ok := sched.Repair(sh); ok {
					intents = append(intents, in)
				}
			}
		}
		t.commit(intents)
	}
}

// rehome places secondaries of nodes that have been offline for long anew.
func (t *term) rehome() {
	loads, asked := t.answering()
	if !asked {
		return
	}
	for _, id := range t.offline() {
		if t.nodes.offlineFor(id) < t.Options.RehomeSecondary {
			continue
		}
		from := neon.ShardID{}
		for more := true; more && t.ctx.Err() == nil; {
			var intents []fsm.Intent
			intents, from, more = scheduler.New(t.Log.State(), loads).ReplaceSecondaries(id, from,
				t.Options.EvacuationBatch)
			t.commit(intents)
		}
	}
}

// commit proposes intents and returns the shards for which they were refused.
func (t *term) commit(intents []fsm.Intent) (refused []neon.ShardID) {
	if len(intents) == 0 || t.ctx.Err() != nil {
		return nil
	}
	r, err := t.Log.Propose(t.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: intents})
	if err == nil {
		return r.Refused
	}
	if t.ctx.Err() == nil {
		t.Logger.Info("intents were not committed, the rule will propose them again", "err", err)
	}
	for _, in := range intents {
		refused = append(refused, in.Shard)
	}
	return refused
}
