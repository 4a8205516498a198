package simpageserver

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"quorate/api/neon"
)

// Options configures a Fleet. The zero value works.
type Options struct {
	Seed   uint64  // of all random choices: faults, jitter, broken shards
	Store  *Store  // shared object store; nil means a new empty one
	Oracle *Oracle // nil means a new one
	Logger *slog.Logger
	// Behaviour is what nodes start with; Node.SetBehaviour changes one.
	Behaviour Behaviour
}

// Fleet is a set of simulated pageservers that share an object store and an
// oracle. Its methods may be called from any goroutine.
type Fleet struct {
	opt   Options
	epoch time.Time

	mu    sync.Mutex
	nodes []*Node
}

// NewFleet makes a fleet without nodes.
func NewFleet(opt Options) *Fleet {
	if opt.Store == nil {
		opt.Store = NewStore(StoreOptions{})
	}
	if opt.Oracle == nil {
		opt.Oracle = NewOracle(OracleOptions{})
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Fleet{opt: opt, epoch: time.Now()}
}

// Oracle is the fleet's oracle.
func (f *Fleet) Oracle() *Oracle { return f.opt.Oracle }

// Store is the fleet's object store.
func (f *Fleet) Store() *Store { return f.opt.Store }

// AddNode adds a pageserver, not yet started. A second node with an id that is
// already there is a zombie: it gets an empty disk of its own. See Node.Clone
// for one with the same disk.
func (f *Fleet) AddNode(opt NodeOptions) (*Node, error) {
	if opt.ID == 0 {
		return nil, errors.New("add node: the id must not be zero")
	}
	if opt.Register && opt.AZ.IsZero() {
		return nil, fmt.Errorf("add node %s: registering needs an availability zone", opt.ID)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rng := rand.New(rand.NewPCG(f.opt.Seed, uint64(opt.ID)<<16|uint64(len(f.nodes))))
	core := newCore(opt.ID, f.opt.Store, rng)
	*core.behave = f.opt.Behaviour
	n := &Node{fleet: f, opt: opt, host: newHost(f, opt, core), life: make(chan struct{}, 1)}
	n.life <- struct{}{}
	n.faults.rng = rand.New(rand.NewPCG(f.opt.Seed+1, uint64(opt.ID)<<16|uint64(len(f.nodes))))
	f.nodes = append(f.nodes, n)
	return n, nil
}

// Nodes lists all nodes in the order they were added.
func (f *Fleet) Nodes() []*Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Node(nil), f.nodes...)
}

// Node finds the first node with an id; nil if there is none.
func (f *Fleet) Node(id neon.NodeID) *Node {
	for _, n := range f.Nodes() {
		if n.opt.ID == id {
			return n
		}
	}
	return nil
}

// Close kills all nodes and waits until nothing of them runs any more.
func (f *Fleet) Close() {
	for _, n := range f.Nodes() {
		n.Kill()
	}
}

// Attached counts the attached locations of the running nodes, by node.
func (f *Fleet) Attached() map[neon.NodeID]int {
	counts := map[neon.NodeID]int{}
	for _, n := range f.Nodes() {
		if attached, _, running := n.host.counts(); running {
			counts[n.opt.ID] += attached
		}
	}
	return counts
}

// Secondaries counts the secondary locations of the running nodes, by node.
func (f *Fleet) Secondaries() map[neon.NodeID]int {
	counts := map[neon.NodeID]int{}
	for _, n := range f.Nodes() {
		if _, secondary, running := n.host.counts(); running {
			counts[n.opt.ID] += secondary
		}
	}
	return counts
}

// Changes counts the location changes that took effect in all nodes. While it
// stands still, locations are not reconfigured.
func (f *Fleet) Changes() uint64 {
	var sum uint64
	for _, n := range f.Nodes() {
		sum += n.host.changes.Load()
	}
	return sum
}

// placed is one live attached location.
type placed struct {
	node neon.NodeID
	view LocationView
}

// AttachedExactlyOnce is nil if each of the shards is attached on exactly one
// running node, active, as AttachedSingle and in its newest generation.
func (f *Fleet) AttachedExactlyOnce(shards []neon.ShardID) error {
	return f.checkAttached(shards, false)
}

// AttachedNewest is as AttachedExactlyOnce, but allows stale attachments in older
// generations beside the newest.
func (f *Fleet) AttachedNewest(shards []neon.ShardID) error {
	return f.checkAttached(shards, true)
}

func (f *Fleet) checkAttached(shards []neon.ShardID, staleAllowed bool) error {
	nodes := f.Nodes()
	var errs []error
	bad := 0
	for _, shard := range shards {
		var found []placed
		for _, n := range nodes {
			if v, ok := n.host.servedLocation(shard); ok && v.Mode.Attached() {
				found = append(found, placed{n.opt.ID, v})
			}
		}
		if err := f.checkPlaced(shard, found, staleAllowed); err != nil {
			if bad++; len(errs) < 10 {
				errs = append(errs, err)
			}
		}
	}
	if bad == 0 {
		return nil
	}
	return errors.Join(append([]error{
		fmt.Errorf("%d of %d shards are not attached exactly once", bad, len(shards)),
	}, errs...)...)
}

func (f *Fleet) checkPlaced(shard neon.ShardID, found []placed, staleAllowed bool) error {
	if len(found) == 0 {
		return fmt.Errorf("shard %s is attached nowhere", shard)
	}
	best := found[0]
	for _, p := range found[1:] {
		if p.view.Generation > best.view.Generation {
			best = p
		}
	}
	if len(found) > 1 && !staleAllowed {
		return fmt.Errorf("shard %s is attached %d times, newest in generation %d on node %s",
			shard, len(found), best.view.Generation, best.node)
	}
	newest, _ := f.opt.Oracle.newest(shard)
	switch {
	case best.view.Generation != newest:
		return fmt.Errorf("shard %s is attached in generation %d on node %s, the newest is %d",
			shard, best.view.Generation, best.node, newest)
	case best.view.Mode != neon.AttachedSingle || best.view.State != Active:
		return fmt.Errorf("shard %s on node %s is %s and %s", shard, best.node, best.view.Mode,
			best.view.State)
	}
	return nil
}
