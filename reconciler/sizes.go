package reconciler

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// sizeCalls is how many pageservers are asked at a time, and mostShards what each of them
// may name. An answer costs 3 µs for each shard; with more than 60,000 a node that has told is
// asked again less often, by sizeShare.
const (
	sizeCalls  = 16
	mostShards = 1 << 20
	sizeShare  = time.Millisecond // for each shard
)

// sizes asks pageservers for the sizes of what is attached there: what it has on their
// disks.
type sizes struct {
	ctx    context.Context
	opts   Options
	log    decide.Log
	asker  Sizes
	logger *slog.Logger
	ready  <-chan struct{} // closed after the first look at the nodes

	mu   sync.Mutex
	told map[neon.NodeID]sizeList // replaced, never changed; guarded by mu

	toldAt map[neon.NodeID]time.Time // guarded by mu
}

// sized is a shard and its bytes. There are millions of them, and a part in 16 million more
// or less does not matter.
type sized struct {
	shard neon.ShardID
	bytes float32
}

// sizeList has the shards of one node in the order of their ids.
type sizeList []sized

// of is the size of a shard in bytes; 0 for one that is not in the list.
func (l sizeList) of(id neon.ShardID) uint64 {
	i, ok := slices.BinarySearchFunc(l, id,
		func(x sized, id neon.ShardID) int { return x.shard.Compare(id) })
	if !ok {
		return 0
	}
	return uint64(l[i].bytes)
}

// run asks in intervals until the term ends, once the nodes were looked at: there is enough
// to do before that.
func (s *sizes) run() {
	if s.asker == nil || s.opts.OptimisePerNode < 0 {
		return
	}
	select {
	case <-s.ready:
	case <-s.ctx.Done():
		return
	}
	tick := time.NewTicker(s.opts.SizeInterval)
	defer tick.Stop()
	for {
		s.ask()
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// due reports whether a node is to be asked: it has not told, or long ago.
func (s *sizes) due(n neon.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, told := range s.told {
		all += len(told)
	}
	return s.told[n] == nil || time.Since(s.toldAt[n]) >= time.Duration(all)*sizeShare
}

// ask asks every pageserver that is available. What one has told holds until it is asked
// again with success, or is away.
func (s *sizes) ask() {
	st := s.log.State()
	var wg sync.WaitGroup
	permits := make(chan struct{}, sizeCalls)
	for n := range st.Nodes() {
		if !n.Available() {
			s.tell(n.ID, nil)
			continue
		}
		if !s.due(n.ID) {
			continue
		}
		wg.Go(func() {
			permits <- struct{}{}
			defer func() { <-permits }()
			s.askOne(n)
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.told {
		if n, ok := st.Node(id); !ok || n.Tombstone {
			delete(s.told, id)
			delete(s.toldAt, id)
		}
	}
}

func (s *sizes) askOne(n *fsm.Node) {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.LookTimeout)
	defer cancel()
	list, err := s.asker.TopTenants(ctx, n, neon.TopTenantsRequest{
		Order: neon.ByResidentSize, Limit: mostShards,
	})
	if err != nil {
		if s.ctx.Err() == nil {
			s.logger.Info("The sizes of the shards of a node are not known", "node", n.ID, "err", err)
		}
		return
	}
	told := make(sizeList, len(list))
	for i, t := range list {
		told[i] = sized{t.Shard, float32(t.ResidentSize)}
	}
	slices.SortFunc(told, func(x, y sized) int { return x.shard.Compare(y.shard) })
	s.tell(n.ID, told)
}

func (s *sizes) tell(n neon.NodeID, told sizeList) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if told == nil {
		delete(s.told, n)
		return
	}
	s.told[n], s.toldAt[n] = told, time.Now()
}

// known tells the sizes of shards, or is nil as long as some schedulable node has not told
// its own: it would look empty. Of a shard that moves the larger one counts.
func (s *sizes) known(st *fsm.State) func(*fsm.Shard) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range st.Nodes() {
		if n.Schedulable() && s.told[n.ID] == nil {
			return nil
		}
	}
	told := maps.Clone(s.told)
	return func(sh *fsm.Shard) uint64 {
		size := told[sh.Attached].of(sh.ID)
		for _, n := range [...]neon.NodeID{sh.GenNode, sh.PriorNode, sh.PreferredNode} {
			if n != 0 && n != sh.Attached {
				size = max(size, told[n].of(sh.ID))
			}
		}
		if size > 0 {
			return size
		}
		for _, list := range told { // it has moved on since it was told of
			size = max(size, list.of(sh.ID))
		}
		return size
	}
}
