package simpageserver

import (
	"math/rand/v2"
	"net/http"
	"time"

	"quorate/api/neon"
)

// core is the state machine of one pageserver: no I/O, no clock, no locks. The
// caller passes the time since the fleet's epoch and serialises the calls.
type core struct {
	id        neon.NodeID
	store     *Store
	rng       *rand.Rand
	behave    *Behaviour
	slots     map[neon.ShardID]*slot
	leftovers map[neon.ShardID]*slot // directories without a location: on disk only
	attached  int                    // slots whose mode is attached
	secondary int
	stopping  bool

	timelines *timelines
	heatmaps  *heatmaps
	deletions deletionQueue
}

func newCore(id neon.NodeID, store *Store, rng *rand.Rand) *core {
	b := &Behaviour{}
	return &core{
		id: id, store: store, rng: rng, behave: b, slots: map[neon.ShardID]*slot{},
		leftovers: map[neon.ShardID]*slot{},
		timelines: &timelines{store: store, behave: b},
		heatmaps:  &heatmaps{store: store, behave: b},
	}
}

// locationChange is one decoded PUT location_config.
type locationChange struct {
	shard  neon.ShardID
	mode   mode // modeNone means Detached
	gen    neon.Generation
	hasGen bool
	warm   bool
	lazy   bool
	number neon.ShardNumber
	count  neon.ShardCount
	stripe neon.StripeSize
	conf   neon.TenantConfig
}

// transition is what a change did to a slot, as the oracle wants to know it.
type transition struct {
	shard   neon.ShardID
	from    mode
	fromGen neon.Generation
	to      mode
	gen     neon.Generation
	lowered bool // a re-attach answered a lower generation than the disk had
}

func (t transition) attaches() bool {
	return t.to.attached() && (!t.from.attached() || t.gen != t.fromGen)
}

// validate refuses what no state of the pageserver would accept.
func (ch *locationChange) validate() *failure {
	switch {
	case ch.mode.attached() && !ch.hasGen:
		return fail(http.StatusBadRequest, "Generation must be set when attaching")
	case ch.mode == modeSecondary && ch.hasGen:
		return fail(http.StatusBadRequest, "Secondary locations have no generation")
	case ch.mode == modeNone:
		return nil
	case ch.count == 0 && ch.number != 0, ch.count > 0 && uint8(ch.number) >= uint8(ch.count):
		return failf(http.StatusBadRequest, "Invalid shard number %d of %d", ch.number, ch.count)
	case ch.count > 0 && ch.stripe == 0:
		return fail(http.StatusBadRequest, "Invalid shard stripe size 0")
	}
	return nil
}

// begin starts a change. A change that only swaps configuration is done at once
// and done is true. Otherwise the slot is in progress until finish is called.
func (c *core) begin(now time.Duration, ch *locationChange) (t transition, done bool, f *failure) {
	if c.stopping {
		return t, false, fail(http.StatusServiceUnavailable, "Shutting down")
	}
	s := c.slots[ch.shard]
	if s != nil && s.busy {
		if ch.mode == modeNone {
			return t, false, failf(http.StatusServiceUnavailable,
				"Tenant shard %s: operation in progress", ch.shard)
		}
		return t, false, failf(http.StatusConflict,
			"Conflict: tenant shard %s: operation in progress", ch.shard)
	}
	if s == nil {
		delete(c.leftovers, ch.shard) // the directory is removed, or taken over
		if ch.mode == modeNone {
			return transition{shard: ch.shard}, true, nil
		}
		s = &slot{}
		c.slots[ch.shard] = s
	}
	switch {
	case s.mode.attached() && ch.mode.attached():
		if ch.gen < s.gen {
			return t, false, failf(http.StatusBadRequest, "Generation %s is less than existing %s",
				ch.gen, s.gen)
		}
		if ch.gen == s.gen {
			return c.inPlace(now, s, ch), true, nil
		}
	case s.mode == modeSecondary && ch.mode == modeSecondary:
		return c.inPlace(now, s, ch), true, nil
	}
	s.busy = true
	return t, false, nil
}

// inPlace swaps mode and configuration without disturbing the tenant.
func (c *core) inPlace(now time.Duration, s *slot, ch *locationChange) transition {
	t := transition{shard: ch.shard, from: s.mode, fromGen: s.gen, to: ch.mode, gen: s.gen}
	s.mode, s.stripe, s.conf, s.warm = ch.mode, ch.stripe, ch.conf, ch.warm
	c.heatmaps.schedule(now, ch.shard, s)
	return t
}

// finish completes a structural change that begin left in progress.
func (c *core) finish(now time.Duration, ch *locationChange) transition {
	s := c.slots[ch.shard]
	t := transition{shard: ch.shard, from: s.mode, fromGen: s.gen, to: ch.mode, gen: ch.gen}
	c.uncount(s)
	had := c.heatmaps.resident(now, ch.shard, s)
	s.busy, s.broken, s.splitting, s.tenant = false, false, nil, nil
	switch {
	case ch.mode == modeNone:
		delete(c.slots, ch.shard)
		return t
	case ch.mode == modeSecondary:
		s.since, s.have, s.gen = now, had, 0
	default:
		replaced := s.mode.attached() // which is never queued
		c.spawn(now, ch.shard, s, ch.gen)
		if ch.lazy && !replaced {
			s.lazy, s.since = true, s.since+c.behave.LazyActivation
		}
	}
	s.mode, s.stripe, s.conf, s.warm = ch.mode, ch.stripe, ch.conf, ch.warm
	c.count(s)
	c.heatmaps.schedule(now, ch.shard, s)
	return t
}

// spawn starts an attached tenant in a generation: it loads the indices that
// the generation may see and will be active after the activation delay.
func (c *core) spawn(now time.Duration, shard neon.ShardID, s *slot, gen neon.Generation) {
	s.gen, s.have, s.lazy = gen, 0, false
	s.since = now + c.behave.activation(c.rng)
	s.broken = c.behave.BrokenOneIn > 0 && c.rng.IntN(c.behave.BrokenOneIn) == 0
	s.tenant = c.timelines.load(s.since, shard, gen)
}

func (c *core) count(s *slot) {
	switch {
	case s.mode.attached():
		c.attached++
	case s.mode == modeSecondary:
		c.secondary++
	}
}

func (c *core) uncount(s *slot) {
	switch {
	case s.mode.attached():
		c.attached--
	case s.mode == modeSecondary:
		c.secondary--
	}
}

// access finds an attached shard for a call on its tenant. A queued activation
// is brought forward. When the tenant is not active yet, wait is how long it
// will take; a busy slot has no known end and wait is negative.
func (c *core) access(
	now time.Duration, shard neon.ShardID,
) (s *slot, wait time.Duration, f *failure) {
	s = c.slots[shard]
	switch {
	case s == nil && c.stopping:
		return nil, 0, fail(http.StatusServiceUnavailable, "Shutting down")
	case s == nil, !s.busy && s.mode == modeSecondary:
		return nil, 0, failf(http.StatusNotFound, "NotFound: tenant %s", shard)
	case s.busy:
		return nil, -1, nil
	case s.broken:
		return nil, 0, failf(http.StatusInternalServerError, "Tenant shard %s is broken", shard)
	}
	if s.lazy {
		s.lazy = false
		s.since = min(s.since, now+c.behave.activation(c.rng))
	}
	if now < s.since {
		return nil, s.since - now, nil
	}
	return s, 0, nil
}

// secondaryOf finds a secondary location.
func (c *core) secondaryOf(shard neon.ShardID) (*slot, *failure) {
	s := c.slots[shard]
	if s == nil || s.busy || s.mode != modeSecondary {
		return nil, failf(http.StatusNotFound, "NotFound: tenant %s", shard)
	}
	return s, nil
}

// maintain does one round of background work on one shard.
func (c *core) maintain(now time.Duration, shard neon.ShardID, s *slot) {
	if s.busy || s.broken || !s.mode.attached() || now < s.since || s.tenant == nil {
		return
	}
	for _, tl := range c.timelines.remaining(now, shard, s) {
		c.timelines.upload(now, shard, s, tl)
		if len(tl.layers) >= compactAt && tl.usable() {
			c.timelines.compact(shard, s, tl)
		}
	}
	if s.mode != modeStale && hasHeatmapPeriod(s.conf) {
		c.heatmaps.upload(now, shard, s)
	}
	c.deletions.enqueue(shard, s)
}

// compactAt is the number of layers at which background compaction sets in.
const compactAt = 4

// uploadAttached uploads everything that the attached shards hold.
func (c *core) uploadAttached(now time.Duration) {
	for shard, s := range c.slots {
		if s.mode.attached() && !s.busy && !s.broken && s.tenant != nil {
			c.timelines.uploadAll(now, shard, s)
		}
	}
}
