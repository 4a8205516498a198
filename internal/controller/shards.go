package controller

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/split"
	"quorate/scheduler"
)

// Shards moves single shards by an operator's order.
type Shards struct{ Deps }

// NewShards makes a Shards.
func NewShards(d Deps) *Shards { return &Shards{d} }

// Migrate moves the attached location of a shard. A graceful migration returns as
// soon as it is begun: the destination is warmed first. An immediate one waits
// for its end.
func (h *Shards) Migrate(ctx context.Context, id neon.ShardID, req neon.MigrateRequest) error {
	move := (*scheduler.Scheduler).Migrate
	if req.Config.Prewarm {
		move = (*scheduler.Scheduler).Prewarm
	}
	override := scheduler.RespectScheduler
	if req.Config.OverrideScheduler {
		override = scheduler.OverrideScheduler
	}
	there := false
	index, err := h.move(ctx, id, req,
		func(s *scheduler.Scheduler, sh fsm.Shard) (fsm.Intent, error) {
			if req.Origin != nil && *req.Origin != sh.Attached {
				return fsm.Intent{}, neon.Errorf(neon.PreconditionFailed,
					"Migration expected to originate from %d but shard is on %s", *req.Origin,
					describeNode(sh.Attached))
			}
			there = sh.Attached == req.Node
			if there {
				return unmoved(sh), nil
			}
			in, err := move(s, sh, req.Node, override)
			if c := req.Config; err == nil && !c.Prewarm &&
				(c.WarmupTimeout != nil || c.DownloadTimeout != nil) {
				h.Reality.LimitWarming(id, (*time.Duration)(c.WarmupTimeout),
					(*time.Duration)(c.DownloadTimeout))
			}
			return in, err
		})
	if err != nil {
		return err
	}
	if req.Config.Prewarm && !there {
		h.Reality.Kick(id)
		return nil
	}
	return decide.Await(ctx, h.Reality, index, id)
}

// MigrateSecondary makes a node the only secondary of a shard and waits for it.
// Nothing changes when the shard is attached there.
func (h *Shards) MigrateSecondary(
	ctx context.Context, id neon.ShardID, req neon.MigrateRequest,
) error {
	index, err := h.move(ctx, id, req,
		func(s *scheduler.Scheduler, sh fsm.Shard) (fsm.Intent, error) {
			return s.MigrateSecondary(sh, req.Node)
		})
	if err != nil {
		return err
	}
	return decide.Await(ctx, h.Reality, index, id)
}

type mover func(*scheduler.Scheduler, fsm.Shard) (fsm.Intent, error)

// move commits the intent that a mover decides on. An operator insists on it: it was
// accepted although the node takes nothing, or the tenant is pinned, so that it is not
// held against that later either.
func (h *Shards) move(
	ctx context.Context, id neon.ShardID, req neon.MigrateRequest, choose mover,
) (uint64, error) {
	if err := split.AwaitEnd(ctx, h.Log, id.Tenant); err != nil {
		return 0, err
	}
	return decide.Commit(ctx, h.Log, func(s *fsm.State) (fsm.Command, error) {
		if n, ok := s.Node(req.Node); !ok || n.Tombstone {
			return nil, neon.Errorf(neon.BadRequest, "Node %d not found", req.Node)
		}
		sh, ok := s.Shard(id)
		if !ok {
			return nil, neon.Errorf(neon.NotFound, "Tenant shard not found")
		}
		in, err := choose(scheduler.New(s, h.Reality.Loads()), sh)
		if err != nil || !scheduler.Changes(sh, in) {
			return nil, err
		}
		if s.KnowsBasis() {
			in.Insisted, in.At = true, time.Now().UnixMilli()
		}
		return fsm.SetIntents{Intents: []fsm.Intent{in}}, nil
	})
}

func describeNode(n neon.NodeID) string {
	if n == 0 {
		return "no node"
	}
	return n.String()
}

// unmoved is the intent of a shard as it is, without a preferred node. It is right
// whatever else has changed.
func unmoved(sh fsm.Shard) fsm.Intent {
	return fsm.Intent{
		Shard: sh.ID, Sequence: sh.Sequence, Attached: sh.Attached, Secondary: sh.Secondary,
	}
}

// Cancel ends the reconcile of a shard that is under way, and waits shortly for its end.
// It is no error when there is none. It is an error when one was cut short.
func (h *Shards) Cancel(ctx context.Context, id neon.ShardID) error {
	s, err := h.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	if _, ok := s.Shard(id); !ok {
		return neon.Errorf(neon.NotFound, "Tenant shard not found")
	}
	ctx, cancel := context.WithTimeout(ctx, decide.ShortWait)
	defer cancel()
	return h.Reality.Cancel(ctx, id)
}
