package reconciler

import (
	"context"
	"log/slog"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// committer commits what the scheduler proposes.
type committer struct {
	ctx    context.Context
	log    decide.Log
	logger *slog.Logger
}

// commit proposes intents and returns the shards for which they were refused.
func (c *committer) commit(intents []fsm.Intent) (refused []neon.ShardID) {
	if len(intents) == 0 || c.ctx.Err() != nil {
		return nil
	}
	r, err := c.log.Propose(c.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: intents})
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
