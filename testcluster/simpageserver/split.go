package simpageserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
)

// SplitStage is a boundary inside the split of one shard.
type SplitStage uint8

// The stages, in their order. A stage is what has been done.
const (
	SplitUntouched SplitStage = iota
	SplitIndexed              // the children's indices are uploaded, in the parent's generation
	SplitLinked               // the parent takes no calls; its slot is in progress
	SplitHalf                 // half of the children are attached
	SplitAttached             // all children are attached
	SplitFinished             // the parent is gone, but for its directory
)

// owner is the part of a shard's id that tells it from the others of its tenant.
type owner struct {
	number neon.ShardNumber
	count  neon.ShardCount
}

func ownerOf(shard neon.ShardID) owner { return owner{shard.Number, shard.Count} }

func (o owner) of(t neon.TenantID) neon.ShardID {
	return neon.ShardID{Tenant: t, Number: o.number, Count: o.count}
}

// splitting is one split of one shard under way.
type splitting struct {
	parent   neon.ShardID
	gen      neon.Generation
	slot     *slot
	children []neon.ShardID
	stripe   neon.StripeSize
	stage    SplitStage
}

// beginSplit checks a request. The slot is the parent's, which is active.
func beginSplit(
	parent neon.ShardID, s *slot, req neon.ShardSplitRequest,
) (*splitting, *failure) {
	to := neon.ShardCount(req.Count)
	w := &splitting{
		parent: parent, gen: s.gen, slot: s, children: parent.Children(to), stripe: s.stripe,
	}
	if n := req.StripeSize; n != nil {
		if parent.Count.Shards() > 1 && *n != s.stripe {
			return nil, fail(http.StatusInternalServerError,
				"Cannot change the stripe size of a tenant with several shards")
		}
		w.stripe = *n
	}
	switch {
	case !neon.CanSplit(parent.Count, to):
		return nil, failf(http.StatusInternalServerError, "Cannot split %s into %d shards", parent,
			req.Count)
	case s.splitting != nil:
		return nil, failf(http.StatusInternalServerError, "Tenant shard %s is being split already",
			parent)
	}
	if s.tenant != nil &&
		slices.ContainsFunc(s.tenant.timelines, func(tl *timeline) bool { return tl.deleting }) {
		return nil, failf(http.StatusInternalServerError,
			"Tenant shard %s: a timeline is being deleted", parent)
	}
	s.splitting = w
	return w, nil
}

// advance takes a split to its next stage and returns the slots that moved. It
// fails when another call has changed the parent.
func (w *splitting) advance(now time.Duration, c *core) (moves []transition, f *failure) {
	s := w.slot
	if c.stopping || c.slots[w.parent] != s || s.splitting != w || !s.mode.attached() ||
		s.busy != (w.stage >= SplitLinked) {
		return nil, failf(http.StatusInternalServerError,
			"Tenant shard %s was changed while it was split", w.parent)
	}
	half := len(w.children) / 2
	switch w.stage++; w.stage {
	case SplitIndexed:
		w.indexChildren(now, c)
	case SplitLinked:
		s.busy = true
	case SplitHalf:
		moves = w.attachChildren(now, c, w.children[:half])
	case SplitAttached:
		moves = w.attachChildren(now, c, w.children[half:])
	case SplitFinished:
		c.uncount(s)
		delete(c.slots, w.parent)
		c.leftovers[w.parent] = &slot{
			conf: s.conf, gen: s.gen, stripe: s.stripe, mode: s.mode, warm: s.warm,
		}
		moves = []transition{{shard: w.parent, from: s.mode, fromGen: s.gen}}
	}
	return moves, nil
}

// indexChildren uploads the parent and gives each child a copy of its indices and of
// its manifest.
func (w *splitting) indexChildren(now time.Duration, c *core) {
	c.timelines.uploadAll(now, w.parent, w.slot)
	if w.slot.tenant == nil {
		return
	}
	tls := c.timelines.remaining(now, w.parent, w.slot)
	for _, child := range w.children {
		for _, tl := range tls {
			c.timelines.putIndex(child, w.slot, tl)
		}
		c.timelines.putManifest(child, w.slot)
	}
}

func (w *splitting) attachChildren(
	now time.Duration, c *core, children []neon.ShardID,
) (moves []transition) {
	for _, id := range children {
		if c.slots[id] != nil {
			continue // of an earlier try: an attached shard of that generation is left as it is
		}
		s := &slot{mode: modeSingle, stripe: w.stripe, conf: w.slot.conf}
		c.slots[id] = s
		delete(c.leftovers, id)
		c.spawn(now, id, s, w.gen)
		c.count(s)
		c.heatmaps.schedule(now, id, s)
		moves = append(moves, transition{shard: id, to: modeSingle, gen: w.gen})
	}
	return moves
}

// giveUp ends a split that failed: the parent is started again if it is still
// there; children that were attached stay. A parent that was configured since then
// may be split again already, and is none of this split's.
func (w *splitting) giveUp(now time.Duration, c *core) {
	s := w.slot
	if c.slots[w.parent] != s || s.splitting != w {
		return
	}
	s.splitting = nil
	if w.stage >= SplitLinked {
		s.busy = false
		c.spawn(now, w.parent, s, s.gen)
	}
}

// splitHandler splits shards.
type splitHandler struct{ *incarnation }

// split is PUT /v1/tenant/{shard}/shard_split.
func (h *splitHandler) split(c *call) reply {
	var req neon.ShardSplitRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	var w *splitting
	out := h.whenActive(c.shard, func(_ time.Duration, core *core, s *slot) reply {
		var f *failure
		if w, f = beginSplit(c.shard, s, req); f != nil {
			return f.reply()
		}
		return ok(nil)
	})
	if w == nil {
		return out
	}
	for w.stage < SplitFinished {
		var f *failure
		var pause time.Duration
		if !h.with(func(now time.Duration, core *core) {
			if at := core.behave.SplitFailsAt; at > SplitUntouched && w.stage == at {
				f = failf(http.StatusInternalServerError, "Split of %s failed", w.parent)
			} else {
				f = h.nextStage(now, core, c, w)
			}
			if f != nil {
				w.giveUp(now, core)
			}
			pause = core.behave.SplitStage
		}) {
			return aborted
		}
		if f != nil {
			return f.reply()
		}
		if !h.sleep(pause) || !h.pass() {
			return aborted
		}
	}
	return answer(http.StatusOK, neon.ShardSplitResponse{Shards: w.children})
}

// nextStage does the next stage and tells the oracle.
func (h *splitHandler) nextStage(now time.Duration, core *core, c *call, w *splitting) *failure {
	moves, f := w.advance(now, core)
	oracle := h.host.oracle
	for _, t := range moves {
		h.host.changes.Add(1)
		// What a child finds of timelines that were deleted is the controller's to remove
		// before the child is anybody's: it is looked at when all is at rest (I17).
		oracle.moved(h.index, t, c.source())
	}
	if f == nil && w.stage == SplitIndexed {
		oracle.divided(w.parent, w.children)
	}
	return f
}
