package app

import (
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

// newKeeper makes the leader's work on safekeepers.
func newKeeper(
	cfg *Config, log *Replica, calls *safekeeper.Client, recorder *metrics.Recorder,
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
