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

// committer commits what the scheduler proposes.
//
// What the log has refused is left out until its shard has changed, or a pause has
// passed that doubles each time. So a rule that proposes the same again and again does
// not fill the log.
type committer struct {
	ctx    context.Context
	log    decide.Log
	logger *slog.Logger

	mu      sync.Mutex
	refused map[neon.ShardID]refusal
}

// refusal is of an intent that was based on that. Whatever is based on something else is
// another decision, which does not wait.
type refusal struct {
	sequence uint64
	basis    fsm.Basis
	pause    time.Duration
	until    time.Time
}

// sameAs reports whether an intent is based on what the refused one was.
func (r *refusal) sameAs(in *fsm.Intent) bool {
	return r.sequence == in.Sequence && r.basis == basisOf(in)
}

func basisOf(in *fsm.Intent) (b fsm.Basis) {
	if in.Basis != nil {
		b = *in.Basis
	}
	return b
}

// Pauses after refusals. The first is short: what was refused may be about a shard that
// nobody serves.
const (
	refusedMin = 100 * time.Millisecond
	refusedMax = 5 * time.Minute
)

// entryBytes bounds one entry of the log. The log takes no more than twice of that.
const entryBytes = 512 << 10

func newCommitter(ctx context.Context, d Deps) *committer {
	return &committer{
		ctx: ctx, log: d.Log, logger: d.Logger, refused: make(map[neon.ShardID]refusal),
	}
}

// commit proposes intents and returns the shards for which they were refused.
func (c *committer) commit(intents []fsm.Intent) (refused []neon.ShardID) {
	r, err := c.propose(intents)
	if err == nil {
		return r.Refused
	}
	if c.ctx.Err() == nil {
		c.logger.Info("intents were not committed, the rule will propose them again", "err", err)
	}
	for _, in := range intents {
		refused = append(refused, in.Shard)
	}
	return refused
}

// propose proposes intents in as many entries as it takes. After an error some may have
// been committed.
func (c *committer) propose(intents []fsm.Intent) (all fsm.Result, err error) {
	intents, all.Refused = c.due(intents)
	for len(intents) > 0 && c.ctx.Err() == nil {
		n := fitting(intents)
		r, err := c.log.Propose(c.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: intents[:n]})
		if err != nil {
			return all, err
		}
		c.note(intents[:n], r.Refused)
		all.Grants = append(all.Grants, r.Grants...)
		all.Refused = append(all.Refused, r.Refused...)
		intents = intents[n:]
	}
	if len(intents) > 0 {
		return all, context.Cause(c.ctx)
	}
	return all, nil
}

// fitting is how many of some intents one entry takes, at least one.
func fitting(intents []fsm.Intent) int {
	left := entryBytes
	for i := range intents {
		left -= 112 + 9*len(intents[i].Secondary) // a number takes up to nine bytes
		if left < 0 && i > 0 {
			return i
		}
	}
	return len(intents)
}

// due divides intents into those that may be proposed now and the shards of the others.
func (c *committer) due(intents []fsm.Intent) (now []fsm.Intent, not []neon.ShardID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range intents {
		r, ok := c.refused[in.Shard]
		if ok && r.sameAs(&in) && time.Now().Before(r.until) {
			not = append(not, in.Shard)
			continue
		}
		now = append(now, in)
	}
	return now, not
}

// note remembers which intents were refused.
func (c *committer) note(intents []fsm.Intent, refused []neon.ShardID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	based := make(map[neon.ShardID]*fsm.Intent, len(intents))
	for i := range intents {
		based[intents[i].Shard] = &intents[i]
	}
	for _, id := range refused {
		r := c.refused[id]
		if in := based[id]; in != nil && !r.sameAs(in) {
			r = refusal{sequence: in.Sequence, basis: basisOf(in)}
		}
		r.pause = min(max(refusedMin, 2*r.pause), refusedMax)
		r.until = time.Now().Add(r.pause)
		c.refused[id] = r
		delete(based, id)
	}
	for id := range based {
		delete(c.refused, id)
	}
}
