package simpageserver

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"quorate/api/neon"
)

// host is what outlives the processes of a node: its disk, and what tests have done
// to it. Invariant: only the current incarnation changes the core.
type host struct {
	id      neon.NodeID
	epoch   time.Time // from which now counts
	oracle  *Oracle
	log     *slog.Logger
	changes atomic.Uint64 // location changes that took effect

	mu        sync.Mutex // guards what follows, and serialises the core
	core      *core
	current   *incarnation // nil while no process runs
	serving   bool         // the current incarnation has re-attached
	emptyDisk bool         // the disk was wiped since the last successful re-attach
	cutOff    bool         // rules make location calls fail
	paused    bool
}

func newHost(f *Fleet, opt NodeOptions, core *core) *host {
	h := &host{
		id: opt.ID, epoch: f.epoch, oracle: f.opt.Oracle, log: f.opt.Logger.With("node", opt.ID),
		core: core,
	}
	core.timelines.cutOff = func() bool {
		return h.paused || h.cutOff || h.oracle.unreachable(h.id)
	}
	return h
}

func (h *host) now() time.Duration { return time.Since(h.epoch) }

// markReachable tells the oracle whether the current incarnation can be reached.
func (h *host) markReachable() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current != nil {
		h.oracle.setUnreachable(h.current.index, h.paused || h.cutOff)
	}
}

// setPaused holds the current incarnation, or lets it go on.
func (h *host) setPaused(paused bool) {
	h.mu.Lock()
	h.paused = paused
	if h.current != nil {
		h.current.gate.set(paused)
	}
	h.mu.Unlock()
	h.markReachable()
}

// location looks at one shard, whether a process runs or not.
func (h *host) location(shard neon.ShardID) (LocationView, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.locate(shard)
}

// servedLocation looks at one shard of a process that has re-attached.
func (h *host) servedLocation(shard neon.ShardID) (LocationView, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil || !h.serving {
		return LocationView{}, false
	}
	return h.locate(shard)
}

// locate is for callers that hold the lock.
func (h *host) locate(shard neon.ShardID) (LocationView, bool) {
	s := h.core.slots[shard]
	if s == nil {
		return LocationView{}, false
	}
	return s.view(h.now()), true
}

// counts also reports whether a process serves.
func (h *host) counts() (attached, secondary int, serving bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.core.attached, h.core.secondary, h.current != nil && h.serving
}

// leftovers are the directories without a location, if a process runs.
func (h *host) leftovers() (all []neon.ShardID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil {
		return nil
	}
	for shard := range h.core.leftovers {
		all = append(all, shard)
	}
	return all
}

// act runs f on an attached shard if a process runs.
func (h *host) act(shard neon.ShardID, f func(now time.Duration, c *core, s *slot)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil {
		return fmt.Errorf("node %s: %w", h.id, ErrNotRunning)
	}
	s := h.core.slots[shard]
	if s == nil || s.busy || !s.mode.attached() {
		return fmt.Errorf("node %s: shard %s is not attached", h.id, shard)
	}
	f(h.now(), h.core, s)
	return nil
}

// copyDisk puts a copy of what is on another host's disk onto this one.
func (h *host) copyDisk(from *host) {
	from.mu.Lock()
	defer from.mu.Unlock()
	*h.core.behave = *from.core.behave
	for shard, s := range from.core.slots {
		if s.mode == modeNone {
			continue
		}
		h.core.slots[shard] = &slot{
			conf: s.conf, gen: s.gen, stripe: s.stripe, mode: s.mode, warm: s.warm,
			since: s.since, have: s.have,
		}
		h.core.count(s)
	}
}
