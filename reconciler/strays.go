package reconciler

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
	"quorate/reconciler/queue"
)

const (
	// strayCalls bounds the strays that are being detached at a time, and strayCallsPerNode
	// those of one node: the workers are there for shards that exist.
	strayCalls        = 64
	strayCallsPerNode = 16

	// strayRetryMax is the longest pause between two tries. Nothing waits for a stray but
	// the deletion of its own tenant.
	strayRetryMax = time.Minute
)

// strays are the shards that pageservers have and no tenant knows, as the listings of
// this term have found them, and what is left of tenants that were dropped or split. Workers
// detach them as they change every location, one worker for a shard, so that the detach
// cannot cross the attachment of a tenant that is made meanwhile. Each stray has its own
// retry, and nothing else depends on it.
type strays struct {
	ctx    context.Context
	log    decide.Log
	queue  waker
	signal wait.Signal

	mu      sync.Mutex
	entries map[neon.ShardID]*stray
	tenants map[neon.TenantID]int // how many entries each has
}

// stray is one of them. The lock of the strays guards all of it.
type stray struct {
	nodes    []neon.NodeID // where listings have found it
	finds    int           // how many listings have
	handed   int           // finds when it was handed to a worker
	pending  int           // listings that do not count yet
	working  bool          // a worker has it or will have it
	failures int           // in a row
	why      string        // the last try failed
	due      time.Time     // of the next try
}

func newStrays(ctx context.Context, log decide.Log) *strays {
	return &strays{
		ctx: ctx, log: log, signal: wait.NewSignal(),
		entries: make(map[neon.ShardID]*stray), tenants: make(map[neon.TenantID]int),
	}
}

// run hands what is due to the workers, until the term ends.
func (s *strays) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		ids, pause := s.due()
		s.queue.Wake(queue.Normal, ids...)
		timer.Reset(pause)
		select {
		case <-s.ctx.Done():
			return
		case <-s.signal:
		case <-timer.C:
		}
	}
}

// found notes what the listing of a node has found, before the listing counts: a
// deletion goes by both. The caller calls listed once it counts.
func (s *strays) found(n neon.NodeID, ids []neon.ShardID) (listed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]*stray, len(ids))
	for i, id := range ids {
		e := s.at(id, n)
		if e.finds++; e.failures == 0 {
			e.due = time.Time{}
		}
		e.pending++
		found[i] = e
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range found {
			e.pending--
		}
		s.signal.Set()
	}
}

// left notes the nodes on which a shard is, or may be, that does not exist any more. A tenant
// that was dropped may be imported again, so that it is left alone until the next listing
// would find it, but for the deletion of a tenant of the same id, which need not have the same
// shards.
func (s *strays) left(id neon.ShardID, nodes []neon.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nodes {
		if e := s.at(id, n); e.finds == 0 && e.failures == 0 {
			e.due, e.why = time.Now().Add(relistInterval), "it does not exist any more"
		}
	}
	s.signal.Set()
}

// at is the entry of a shard, which is or may be on a node.
func (s *strays) at(id neon.ShardID, n neon.NodeID) *stray {
	e := s.entries[id]
	if e == nil {
		e = &stray{}
		s.entries[id] = e
		s.tenants[id.Tenant]++
	}
	if !slices.Contains(e.nodes, n) {
		e.nodes = append(e.nodes, n)
	}
	return e
}

// due chooses what to try now, and tells how long nothing else is due. It forgets what
// has become a shard of a tenant.
func (s *strays) due() (ids []neon.ShardID, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.log.State() // under the lock, so that it is no older than what was noted
	total, perNode := 0, make(map[neon.NodeID]int)
	count := func(e *stray) {
		total++
		for _, n := range e.nodes {
			perNode[n]++
		}
	}
	for id, e := range s.entries {
		if !unknown(st, id) {
			s.drop(id)
		} else if e.working {
			count(e)
		}
	}
	now := time.Now()
	pause = strayRetryMax
	for id, e := range s.entries {
		full := func(n neon.NodeID) bool { return perNode[n] >= strayCallsPerNode }
		switch {
		case e.working, e.pending > 0:
		case e.due.After(now):
			pause = min(pause, e.due.Sub(now))
		case total < strayCalls && !slices.ContainsFunc(e.nodes, full):
			e.working, e.handed = true, e.finds
			count(e)
			ids = append(ids, id)
		}
	}
	return ids, pause
}

// unknown reports whether no tenant has a shard, nor will have it: it may be a child
// of a split that is under way.
func unknown(st *fsm.State, id neon.ShardID) bool {
	_, ok := st.Shard(id)
	return !ok && !st.Splitting(id.Tenant)
}

// working reports whether a worker is to detach a shard now.
func (s *strays) working(id neon.ShardID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	return e != nil && e.working
}

// gone says that nothing is left of a stray, unless it was found again meanwhile.
func (s *strays) gone(id neon.ShardID) {
	s.mu.Lock()
	if e := s.entries[id]; e != nil && e.finds > e.handed {
		e.working = false
	} else {
		s.drop(id)
	}
	last := s.tenants[id.Tenant] == 0
	s.mu.Unlock()
	s.signal.Set()
	if tenant, ok := s.log.State().Tenant(id.Tenant); ok && last {
		s.queue.Wake(queue.Normal, tenant.Shards()...) // a deletion may wait for it
	}
}

// failed says that a try did not end well, and returns how many have failed in a row.
func (s *strays) failed(id neon.ShardID, why string, shortest time.Duration) (failures int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		return 0
	}
	e.due = time.Now().Add(min(shortest<<min(e.failures, 16), strayRetryMax))
	e.working, e.why = false, why
	e.failures++
	s.signal.Set()
	return e.failures
}

func (s *strays) drop(id neon.ShardID) {
	if s.entries[id] == nil {
		return
	}
	delete(s.entries, id)
	if s.tenants[id.Tenant]--; s.tenants[id.Tenant] == 0 {
		delete(s.tenants, id.Tenant)
	}
}

// ofTenant names a stray of a tenant that may be attached, or is "". What was left alone is
// not any longer.
func (s *strays) ofTenant(st *fsm.State, id neon.TenantID) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenants[id] == 0 {
		return ""
	}
	for shard, e := range s.entries {
		if shard.Tenant != id || !unknown(st, shard) {
			continue
		}
		n, may := e.mayBeOn(st)
		if !may {
			continue
		}
		why = fmt.Sprintf("node %d has %s, which is to be detached first: %s", n, shard, e.why)
		if e.finds == 0 && e.failures == 0 {
			e.due = time.Time{}
			s.signal.Set()
		}
	}
	return why
}

// mayBeOn is a node that has to be asked before data is removed, and that may have a stray.
func (e *stray) mayBeOn(st *fsm.State) (n neon.NodeID, may bool) {
	for _, n := range e.nodes {
		if node, ok := st.Node(n); ok && mayServe(&node) {
			return n, true
		}
	}
	return 0, false
}

// mayServe reports whether a node has to be asked before data is removed.
func mayServe(n *fsm.Node) bool { return !n.Tombstone && n.Availability != neon.NodeOffline }
