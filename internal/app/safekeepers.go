package app

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/localhook"
	"quorate/internal/metrics"
	"quorate/internal/safekeeper"
	"quorate/internal/safekeeping"
)

// Safekeepers says how safekeepers are called and used.
type Safekeepers struct {
	// Scheme is http (the default) or https.
	Scheme string

	// Timelines makes the controller choose the safekeepers of new timelines,
	// PerTimeline of them; 0 means 3.
	Timelines   bool
	PerTimeline int

	// Options are the settings of the leader's work. The heartbeats are those of
	// the reconciler unless set.
	Options safekeeping.Options
}

// safekeepers gives the client's calls the shape the others ask for.
type safekeepers struct{ client *safekeeper.Client }

func safekeeperAt(k *fsm.Safekeeper) safekeeper.Addr {
	return safekeeper.Addr{
		ID: k.ID, Host: k.Host, HTTPPort: int(k.HTTPPort), HTTPSPort: int(k.HTTPSPort),
	}
}

func (s safekeepers) BaseURL(k *fsm.Safekeeper) string { return s.client.BaseURL(safekeeperAt(k)) }

func (s safekeepers) Utilization(
	ctx context.Context, k *fsm.Safekeeper,
) (neon.SafekeeperUtilization, error) {
	return s.client.Utilization(ctx, safekeeperAt(k))
}

func (s safekeepers) CreateTimeline(
	ctx context.Context, k *fsm.Safekeeper, body neon.SafekeeperTimelineCreate,
) error {
	return s.client.CreateTimeline(ctx, safekeeperAt(k), body)
}

func (s safekeepers) PullTimeline(
	ctx context.Context, k *fsm.Safekeeper, body neon.PullTimelineRequest,
) (neon.PullTimelineResponse, error) {
	return s.client.PullTimeline(ctx, safekeeperAt(k), body)
}

func (s safekeepers) SwitchMembership(
	ctx context.Context, k *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
) (neon.MembershipSwitched, error) {
	return s.client.SwitchMembership(ctx, safekeeperAt(k), id, conf)
}

func (s safekeepers) ExcludeTimeline(
	ctx context.Context, k *fsm.Safekeeper, id neon.TimelineRef, conf neon.Membership,
) error {
	return s.client.ExcludeTimeline(ctx, safekeeperAt(k), id, conf)
}

func (s safekeepers) DeleteTimeline(
	ctx context.Context, k *fsm.Safekeeper, id neon.TimelineRef,
) error {
	return s.client.DeleteTimeline(ctx, safekeeperAt(k), id)
}

func (s safekeepers) DeleteTenant(ctx context.Context, k *fsm.Safekeeper, id neon.TenantID) error {
	return s.client.DeleteTenant(ctx, safekeeperAt(k), id)
}

// observeSafekeepers counts the calls to safekeepers.
func observeSafekeepers(m *metrics.Recorder) func(safekeeper.Call) {
	return func(c safekeeper.Call) {
		m.Safekeeper(metrics.Call{
			Node: c.Node, Path: c.Path, Method: c.Method, OK: c.Status/100 == 2, Took: c.Duration,
		})
	}
}

// newKeeper makes the leader's work on safekeepers.
func newKeeper(
	cfg *Config, log *Replica, calls safekeepers, recorder *metrics.Recorder,
) *safekeeping.Keeper {
	o := cfg.Safekeepers.Options
	if o.HeartbeatInterval == 0 {
		o.HeartbeatInterval = cfg.Reconciler.HeartbeatInterval
	}
	if o.MaxOffline == 0 {
		o.MaxOffline = cfg.Reconciler.MaxOffline
	}
	return safekeeping.New(safekeeping.Deps{
		Log: log, Calls: calls, Metrics: recorder, Options: o, Logger: cfg.Logger,
	})
}

// localKeepers tells the computes of neon_local.
type localKeepers struct{ hook *localhook.Hook }

func (l localKeepers) NotifySafekeepers(ctx context.Context, body neon.NotifySafekeepers) error {
	n := localhook.Safekeepers{
		Tenant: body.Tenant, Timeline: body.Timeline, Generation: uint32(body.Generation),
	}
	for _, k := range body.Safekeepers {
		n.IDs = append(n.IDs, k.ID)
	}
	return l.hook.NotifySafekeepers(ctx, n)
}

// NotifySafekeepers tries until compute has been told or the control plane refuses.
func (h hook) NotifySafekeepers(ctx context.Context, body neon.NotifySafekeepers) error {
	return h.client.NotifySafekeepersUntilHeard(ctx, body)
}
