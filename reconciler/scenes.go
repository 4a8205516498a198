package reconciler

import (
	"cmp"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/reconciler/observed"
	"quorate/reconciler/plan"
)

// scenes gathers what the planner decides from. It has no state of its own.
type scenes struct {
	log      decide.Log
	seen     *observed.Locations
	nodes    listings
	strays   *strays
	surveyed <-chan struct{} // closed after the first look at the nodes
	notifies bool            // there is a compute hook
	vanished time.Duration   // see Options
}

// listings knows which nodes were listed.
type listings interface {
	// unlisted names a node that may have anything, or is "".
	unlisted(st *fsm.State) string

	// silent lists the nodes that do not answer.
	silent() []neon.NodeID
}

// of is the scene of a shard; false when the shard does not exist.
func (s *scenes) of(st *fsm.State, id neon.ShardID) (*plan.Scene, bool) {
	sh, ok := st.Shard(id)
	tenant, ok2 := st.Tenant(id.Tenant)
	if !ok || !ok2 {
		return nil, false
	}
	sc := &plan.Scene{
		Tenant: tenant, Shard: sh, Notifies: s.notifies, Frozen: st.Splitting(tenant.ID),
	}
	_, sc.Travels = st.Travel(tenant.ID)
	if tenant.Deleting || sc.Travels {
		sc.MayHave = cmp.Or(s.nodes.unlisted(st), s.strays.ofTenant(st, id.Tenant))
	}
	sc.Silent = s.nodes.silent()
	select {
	case <-s.surveyed:
	default:
		sc.Surveying = true
	}
	s.describe(st, sc)
	sc.Vanished = s.takenAway(st, sc)
	return sc, true
}

// takenAway is the node from which the shard has vanished a short time ago, unless something
// was decided about the shard since then.
func (s *scenes) takenAway(st *fsm.State, sc *plan.Scene) neon.NodeID {
	id, at := s.seen.Vanished(sc.Shard.ID)
	n, ok := st.Node(id)
	if id == 0 || !ok || time.Since(at) >= s.vanished ||
		max(sc.Shard.Sequence, sc.Tenant.Sequence) > n.Sequence {
		return 0
	}
	return id
}

// ofStray is the scene of a shard that does not exist.
func (s *scenes) ofStray(st *fsm.State, id neon.ShardID) *plan.Scene {
	sc := &plan.Scene{Shard: fsm.Shard{ID: id}}
	s.describe(st, sc)
	return sc
}

func (s *scenes) describe(st *fsm.State, sc *plan.Scene) {
	sc.Node = func(id neon.NodeID) *fsm.Node {
		n, ok := st.Node(id)
		if !ok || n.Tombstone {
			return nil
		}
		return &n
	}
	s.seen.Describe(sc, func(id neon.NodeID, incarnation uint64) bool {
		n, ok := st.Node(id)
		return ok && n.Incarnation == incarnation
	})
}

// done reports whether a shard is as its record says, or does not exist.
func (s *scenes) done(st *fsm.State, id neon.ShardID) bool {
	sc, ok := s.of(st, id)
	return !ok || plan.Next(sc).Kind == plan.Done
}

// cuttingOver reports whether a shard's move waits for compute to be told while the
// location it comes from still serves.
func (s *scenes) cuttingOver(id neon.ShardID) bool {
	sc, ok := s.of(s.log.State(), id)
	if !ok || sc.Shard.Attached == 0 {
		return false
	}
	at := sc.On(sc.Shard.Attached)
	return at.Attached() && at.Conf.Mode == neon.AttachedMulti && plan.Next(sc).Kind == plan.Notify
}
