package simpageserver

import (
	"time"

	"quorate/api/neon"
)

// reattachTenant is one entry of the controller's answer to a re-attach.
type reattachTenant struct {
	shard  neon.ShardID
	gen    neon.Generation
	hasGen bool
	mode   mode
	stripe neon.StripeSize
}

// restart forgets what only memory held.
func (c *core) restart() {
	c.stopping = false
	for shard, s := range c.leftovers {
		if c.slots[shard] == nil {
			c.slots[shard] = s
		}
	}
	clear(c.leftovers)
	for shard, s := range c.slots {
		if s.mode == modeNone {
			delete(c.slots, shard)
			continue
		}
		s.busy, s.broken, s.lazy, s.splitting, s.tenant = false, false, false, nil, nil
	}
}

// wipe loses the disk.
func (c *core) wipe() {
	c.slots, c.deletions = map[neon.ShardID]*slot{}, deletionQueue{}
	c.attached, c.secondary = 0, 0
	clear(c.leftovers)
}

// reattach applies the controller's answer: what it omits is purged, what it
// lowers is demoted, and what is not on disk is ignored.
func (c *core) reattach(now time.Duration, tenants []reattachTenant) []transition {
	listed := make(map[neon.ShardID]struct{}, len(tenants))
	moves := make([]transition, 0, len(c.slots))
	for _, t := range tenants {
		s := c.slots[t.shard]
		if s == nil || t.mode == modeNone || t.mode.attached() && !t.hasGen {
			continue
		}
		listed[t.shard] = struct{}{}
		moves = append(moves, c.readmit(now, s, t))
	}
	for shard, s := range c.slots {
		if _, ok := listed[shard]; !ok {
			moves = append(moves, transition{shard: shard, from: s.mode, fromGen: s.gen})
			delete(c.slots, shard)
		}
	}
	c.attached, c.secondary = 0, 0
	for _, s := range c.slots {
		c.count(s)
	}
	c.deletions.recover(c.slots)
	return moves
}

func (c *core) readmit(now time.Duration, s *slot, t reattachTenant) transition {
	m := transition{shard: t.shard, from: s.mode, fromGen: s.gen, to: t.mode, gen: t.gen}
	if t.mode.attached() && s.mode.attached() && t.gen < s.gen {
		m.to, m.gen, m.lowered = modeSecondary, 0, true
	}
	if m.to == modeSecondary {
		if s.mode.attached() {
			s.warm, s.since, s.have = true, now, c.store.heatmapBytes(t.shard, now)
		}
		s.mode, s.gen = modeSecondary, 0
		return m
	}
	s.mode, s.stripe = t.mode, t.stripe
	c.spawn(now, t.shard, s, t.gen)
	return m
}

// own is what the disk says, for a node without a controller.
func (c *core) own() []reattachTenant {
	list := make([]reattachTenant, 0, len(c.slots))
	for shard, s := range c.slots {
		list = append(list, reattachTenant{
			shard: shard, gen: s.gen, hasGen: s.mode.attached(), mode: s.mode, stripe: s.stripe,
		})
	}
	return list
}
