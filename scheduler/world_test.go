package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
)

// failer is what tests, properties and benchmarks have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a replicated state driven by real commands.
type world struct {
	t     failer
	state *fsm.State
	loads map[neon.NodeID]Load
	index uint64
	tell  func()     // a heartbeat of all nodes; nil: the loads stay as they are
	left  departures // what optimising has moved; nil: that is not watched
}

func newWorld(t failer) *world {
	return &world{t: t, state: fsm.NewState(), loads: map[neon.NodeID]Load{}}
}

// apply applies a command that has to be accepted, and checks the state.
func (w *world) apply(c fsm.Command) fsm.Result {
	w.t.Helper()
	w.index++
	next, r := fsm.Apply(w.state, w.index, fsm.RequestID{}, c)
	if r.Err != nil || len(r.Refused) > 0 {
		w.t.Fatalf("%T was refused: %v %v", c, r.Err, r.Refused)
	}
	w.state = next
	if w.state.ShardCount() < 1000 {
		if err := fsm.Check(w.state); err != nil {
			w.t.Fatalf("after %T: %v", c, err)
		}
	}
	return r
}

func (w *world) scheduler() *Scheduler {
	if w.tell != nil {
		w.tell()
	}
	return New(w.state, w.loads)
}

// commit applies what s proposed and demands that its counts have come true.
func (w *world) commit(s *Scheduler, c fsm.Command) fsm.Result {
	w.t.Helper()
	r := w.apply(c)
	for n := range w.state.Nodes() {
		if got, want := s.Counts(n.ID), w.state.Counts(n.ID); got != want {
			w.t.Fatalf("node %d: the scheduler counted %+v, the state after it %+v", n.ID, got,
				want)
		}
	}
	return r
}

// addNode registers a node in a zone and makes it active.
func (w *world) addNode(id neon.NodeID, az string) {
	w.t.Helper()
	w.apply(fsm.RegisterNode{
		ID: id, AZ: neon.MakeAZ(az), Addr: fsm.NodeAddr{HTTPHost: fmt.Sprintf("ps%d", id)},
	})
	w.judge(id, neon.NodeActive)
}

func (w *world) judge(id neon.NodeID, a neon.NodeAvailability) {
	w.t.Helper()
	w.apply(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: id, To: a}}})
}

// create places and creates a tenant; what could not be placed is reported.
func (w *world) create(id neon.TenantID, count neon.ShardCount, policy neon.Placement) error {
	w.t.Helper()
	s := w.scheduler()
	shards, err := s.PlaceTenant(id, count, policy)
	w.commit(s, fsm.CreateTenant{
		ID: id, Count: count, Stripe: 2048, Policy: policy, Scheduling: neon.ShardActive,
		Shards: shards,
	})
	return err
}

// update changes a tenant's policies the way an operator's request does.
func (w *world) update(id neon.TenantID, policy neon.Placement, sched neon.ShardScheduling) error {
	w.t.Helper()
	tenant, _ := w.state.Tenant(id)
	tenant.Scheduling = sched
	s := w.scheduler()
	intents, err := s.Replace(tenant, policy)
	w.commit(s, fsm.UpdateTenant{
		ID: id, Sequence: tenant.Sequence, Policy: &policy, Scheduling: &sched, Intents: intents,
	})
	return err
}

// repair repairs every shard until nothing is left to do.
func (w *world) repair() {
	w.t.Helper()
	for round := 0; ; round++ {
		s := w.scheduler()
		var intents []fsm.Intent
		for sh := range w.state.ShardsFrom(neon.ShardID{}) {
			if in, ok := s.Repair(sh); ok {
				intents = append(intents, in)
			}
		}
		w.commit(s, fsm.SetIntents{Intents: intents})
		if len(intents) == 0 {
			return
		}
		if round == 2 {
			w.t.Fatalf("repairing does not come to an end: %v", intents)
		}
	}
}

// batches runs Evacuate or ReplaceSecondaries to its end, a commit a batch.
func (w *world) batches(
	of func(*Scheduler, neon.ShardID) ([]fsm.Intent, neon.ShardID, bool),
) (moved int) {
	w.t.Helper()
	var from neon.ShardID
	for {
		s := w.scheduler()
		intents, next, more := of(s, from)
		w.commit(s, fsm.SetIntents{Intents: intents})
		moved += len(intents)
		if !more {
			return moved
		}
		from = next
	}
}

func (w *world) evacuate(id neon.NodeID, batch int) int {
	w.t.Helper()
	return w.batches(func(s *Scheduler, from neon.ShardID) ([]fsm.Intent, neon.ShardID, bool) {
		return s.Evacuate(id, from, batch)
	})
}

func (w *world) replaceSecondaries(id neon.NodeID, batch int) int {
	w.t.Helper()
	return w.batches(func(s *Scheduler, from neon.ShardID) ([]fsm.Intent, neon.ShardID, bool) {
		return s.ReplaceSecondaries(id, from, batch)
	})
}

func (w *world) shards(id neon.TenantID) []fsm.Shard {
	return slices.Collect(w.state.TenantShards(id))
}

// show prints the intents of a tenant: number, attached, secondaries, hint.
func (w *world) show(id neon.TenantID) string {
	var b strings.Builder
	for _, sh := range w.shards(id) {
		fmt.Fprintf(&b, "%d: %d %v", sh.ID.Number, sh.Attached, sh.Secondary)
		if sh.PreferredNode != 0 {
			fmt.Fprintf(&b, " prefers %d", sh.PreferredNode)
		}
		if !sh.PreferredAZ.IsZero() {
			fmt.Fprintf(&b, " home %s", sh.PreferredAZ)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func tenantID(n int) (id neon.TenantID) {
	id[0], id[1], id[2], id[15] = byte(n>>16), byte(n>>8), byte(n), 1
	return id
}
