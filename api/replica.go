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
	cluster    func() Cluster
	failpoints Failpoints // nil: this replica cannot be held
	logger     *slog.Logger
}

// stepper gives the leadership away.
type stepper interface {
	// StepDown hands leadership over and returns what was seen under it. On a replica
	// that does not lead it returns what it returned when it last did.
	StepDown(ctx context.Context) (neon.GlobalObserved, error)
}

// Cluster is the answer of GET /debug/v1/cluster: the members as the replica that
// was asked sees them.
type Cluster struct {
	ID           string   `json:"cluster_id"`
	Server       string   `json:"server_id"` // of the replica that answers
	Leader       string   `json:"leader_id"` // empty when none is known
	Term         uint64   `json:"term"`
	CommitIndex  uint64   `json:"commit_index"`
	AppliedIndex uint64   `json:"applied_index"`
	Level        uint64   `json:"feature_level"` // that all members know
	Members      []Member `json:"members"`
}

// Member is one replica of a Cluster.
type Member struct {
	ID          string `json:"id"`
	RaftAddr    string `json:"raft_addr"`
	HTTPAddr    string `json:"http_addr"`
	Role        string `json:"role"` // leader, voter or learner
	LastContact string `json:"last_contact"`
	Applied     uint64 `json:"applied_index"`
	Lag         uint64 `json:"lag"`           // entries behind the leader
	Level       uint64 `json:"feature_level"` // that its version knows; 0: not known
}

// leader names the replica that last took up its duties.
func (h replicaHandler) leader(c *call) (answer, error) {
	l, err := h.debug.Leader(c.ctx)
	if err != nil || l.Address == "" {
		return done(err)
	}
	return reply(neon.Leader{Address: l.Address, StartedAt: time.UnixMilli(l.StartedAt).UTC()}, nil)
}

// stepDown hands leadership over, if this replica has it, and tells what was seen.
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

// setFailpoints sets what happens at places of this very replica.
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
