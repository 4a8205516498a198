package membership

import (
	"context"
	"log/slog"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/internal/safekeeping"
)

// Deps is what a Creator and a Migrator work with.
type Deps struct {
	Log         decide.Log
	Safekeepers Safekeepers
	Loads       Loads
	Hook        Hook // nil: compute need not be told

	Failpoints failpoint.Points // nil: none

	PerTimeline int // safekeepers
	Logger      *slog.Logger
}

// Safekeepers are the calls to safekeepers. One try each, bounded by ctx.
type Safekeepers interface {
	// BaseURL is how other safekeepers reach this one.
	BaseURL(sk *fsm.Safekeeper) string

	CreateTimeline(
		ctx context.Context, sk *fsm.Safekeeper, body neon.SafekeeperTimelineCreate,
	) error
	PullTimeline(
		ctx context.Context, sk *fsm.Safekeeper, body neon.PullTimelineRequest,
	) (neon.PullTimelineResponse, error)
	SwitchMembership(
		ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
	) (neon.MembershipSwitched, error)
	ExcludeTimeline(
		ctx context.Context, sk *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
	) error
}

// Loads is what the leader has seen of the safekeepers.
type Loads interface {
	// Loads are what their last heartbeats said.
	Loads() map[neon.NodeID]safekeeping.Load
}

// Hook tells compute on which safekeepers a timeline is.
type Hook interface {
	NotifySafekeepers(ctx context.Context, body neon.NotifySafekeepers) error
}
