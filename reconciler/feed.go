package reconciler

import (
	"context"
	"slices"
	"sync"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
	"quorate/reconciler/observed"
	"quorate/reconciler/queue"
)

// feed turns changes of the state into wake-ups of those who have to look.
type feed struct {
	log      decide.Log
	seen     *observed.Locations
	strays   *strays
	queue    *shardQueue
	unplaced *unplaced
	nodes    nodeChanges
	answers  *answers
	report   *report
	metrics  Metrics

	signal     wait.Signal
	orders     wait.Broadcast // nodes or tenants changed, with what is under way for them
	operations wait.Signal    // nodes changed, and with them perhaps the operations on them

	mu      sync.Mutex
	touched fsm.Touched
}

// nodeChanges hears of changes of nodes, and of shards that may get a place now.
type nodeChanges interface {
	changed()
	wakeRules()
}

// note is called on the applying goroutine after each batch. It only notes what to
// look at.
func (f *feed) note(st *fsm.State, c fsm.Touched) {
	f.seen.Grant(c.Grants)
	f.seen.Forget(c.UnknownLocations)
	for _, id := range c.Dropped {
		f.strays.left(id, f.beyondLeftovers(st, id))
	}
	f.mu.Lock()
	f.touched.Shards = append(f.touched.Shards, c.Shards...)
	f.touched.Tenants = append(f.touched.Tenants, c.Tenants...)
	f.touched.Nodes = append(f.touched.Nodes, c.Nodes...)
	f.mu.Unlock()
	f.signal.Set()
}

// beyondLeftovers lists the nodes on which a shard that does not exist any more is, or may
// be, but for those that its split looks after: it may have been moving there, or have come
// from there, when it was split.
func (f *feed) beyondLeftovers(st *fsm.State, id neon.ShardID) (nodes []neon.NodeID) {
	sp, _ := st.Split(id.Tenant)
	for _, n := range f.seen.AnyOf(id) {
		if !slices.Contains(sp.Leftovers, fsm.Leftover{Shard: id, Node: n}) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// run passes changes on until ctx ends.
func (f *feed) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.signal:
		}
		f.mu.Lock()
		c := f.touched
		f.touched = fsm.Touched{}
		f.mu.Unlock()
		f.pass(f.log.State(), c)
	}
}

// pass has everything that was touched looked at.
func (f *feed) pass(st *fsm.State, c fsm.Touched) {
	for _, id := range c.Shards {
		f.shard(st, id)
	}
	for _, id := range c.Tenants {
		if tenant, ok := st.Tenant(id); ok {
			for _, shard := range tenant.Shards() {
				f.queue.RecordChanged(queue.Normal, shard, tenant.Sequence)
			}
		}
	}
	if len(c.Nodes) > 0 {
		f.nodes.changed()
		f.operations.Set()
	} else if f.unplaced.freed(st, c.Tenants) {
		f.nodes.wakeRules()
	}
	if len(c.Nodes)+len(c.Tenants) > 0 {
		f.orders.Notify()
	}
}

func (f *feed) shard(st *fsm.State, id neon.ShardID) {
	if sh, ok := st.Shard(id); ok {
		f.unplaced.note(st, &sh)
		priority := queue.Normal
		if sh.AcknowledgedNode != 0 && unserved(st, &sh) {
			priority = queue.Failover
		}
		f.queue.RecordChanged(priority, id, sh.Sequence)
		f.answers.decided(id)
		return
	}
	f.countReplaced(st, id)
	f.seen.ForgetShard(id)
	f.report.forget(id)
	f.unplaced.forget(id)
	f.queue.Wake(queue.Normal, id) // lets those who wait for it know
}

// countReplaced counts the removal of the secondaries of a shard that was split:
// those who count reconciles expect it.
func (f *feed) countReplaced(st *fsm.State, id neon.ShardID) {
	sp, ok := st.Split(id.Tenant)
	if !ok || sp.Phase != fsm.SplitDone {
		return
	}
	places := 0
	for _, l := range sp.Leftovers {
		if l.Shard == id {
			places++
		}
	}
	if places > 1 { // one was attached
		f.metrics.Spawned()
		f.metrics.Completed("ok")
	}
}
