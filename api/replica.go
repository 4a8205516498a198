package api

import (
	"context"
	"log/slog"
	"time"

	"quorate/api/neon"
	"quorate/internal/controller"
)

// Failpoints are places at which tests hold a replica.
type Failpoints interface {
	// Configure sets what happens at a place.
	Configure(name, actions string) error

	// Sleep returns after the time set for the place; its error is that of ctx.
	Sleep(ctx context.Context, name string) error
}

// replicaHandler answers requests about the replicas of the controller itself.
type replicaHandler struct {
	debug      *controller.Debug
	leadership stepper
	cluster    func() neon.Cluster
	failpoints Failpoints // nil: this replica cannot be held
	logger     *slog.Logger
}

// stepper gives the leadership away.
type stepper interface {
	// StepDown hands leadership over and returns what was seen under it. On a replica
	// that does not lead it returns what it returned when it last did.
	StepDown(ctx context.Context) (neon.GlobalObserved, error)
}

// leader names the replica that last took up its duties.
func (h replicaHandler) leader(c *call) (answer, error) {
	l, err := h.debug.Leader(c.ctx)
	if err != nil || l.Address == "" {
		return done(err)
	}
	return reply(neon.Leader{Address: l.Address, StartedAt: time.UnixMilli(l.StartedAt).UTC()}, nil)
}

// stepDown hands leadership over, if this replica has it, and answers with what was
// observed.
func (h replicaHandler) stepDown(c *call) (answer, error) {
	h.logger.Info("Received step down request from peer")
	if h.failpoints != nil {
		if err := h.failpoints.Sleep(c.ctx, "sleep-on-step-down-handling"); err != nil {
			return answer{}, err
		}
	}
	return reply(h.leadership.StepDown(c.ctx))
}

func (h replicaHandler) status(*call) (answer, error) { return reply(h.cluster(), nil) }

// setFailpoints sets what happens at places of this replica.
func (h replicaHandler) setFailpoints(c *call) (answer, error) {
	if h.failpoints == nil {
		return answer{}, neon.Errorf(neon.BadRequest,
			"Cannot manage failpoints because neon was compiled without failpoints support")
	}
	var req neon.List[neon.FailpointConfig]
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	for _, p := range req {
		if err := h.failpoints.Configure(p.Name, p.Actions); err != nil {
			return answer{}, neon.Errorf(neon.BadRequest, "Failed to configure failpoints: %w", err)
		}
	}
	return done(nil)
}
