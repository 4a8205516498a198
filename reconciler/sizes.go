package reconciler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// sizeCalls is how many pageservers are asked at a time, and mostShards what each of them
// may name.
const (
	sizeCalls  = 16
	mostShards = 1 << 20
)

// sizes asks pageservers for the sizes of what is attached there: what it has on their
// disks.
type sizes struct {
	ctx    context.Context
	opts   Options
	log    decide.Log
	asker  Sizes
	logger *slog.Logger

	mu   sync.Mutex
	told map[neon.NodeID]map[neon.ShardID]uint64 // replaced, never changed; guarded by mu
}

// run asks in intervals until the term ends.
func (s *sizes) run() {
	if s.asker == nil || s.opts.OptimisePerNode < 0 {
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
	told := make(map[neon.ShardID]uint64, len(list))
	for _, t := range list {
		told[t.Shard] = t.ResidentSize
	}
	s.tell(n.ID, told)
}

func (s *sizes) tell(n neon.NodeID, told map[neon.ShardID]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if told == nil {
		delete(s.told, n)
		return
	}
	s.told[n] = told
}

// known are the sizes of all shards, or nil as long as some schedulable node has not told
// its own: it would look empty. Of a shard that moves the larger one counts.
func (s *sizes) known(st *fsm.State) map[neon.ShardID]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range st.Nodes() {
		if n.Schedulable() && s.told[n.ID] == nil {
			return nil
		}
	}
	all := make(map[neon.ShardID]uint64)
	for _, told := range s.told {
		for id, size := range told {
			all[id] = max(all[id], size)
		}
	}
	return all
}
