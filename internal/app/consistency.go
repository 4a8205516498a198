package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/internal/wait"
)

// consistency has the leader check its own state at intervals.
type consistency struct {
	every time.Duration // 0: never
	check func() error
	log   *slog.Logger

	checks  *prometheus.CounterVec // by outcome
	failing prometheus.Gauge
}

func newConsistency(every time.Duration, check func() error, log *slog.Logger) *consistency {
	c := &consistency{
		every: every, check: check, log: log,
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "storage_controller_consistency_checks",
			Help: "Checks of the state for contradictions (--consistency-check-interval)",
		}, []string{"outcome"}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "storage_controller_inconsistent",
			Help: "1 since the last such check has found a contradiction",
		}),
	}
	for _, outcome := range []string{"ok", "failed"} {
		c.checks.WithLabelValues(outcome)
	}
	return c
}

func (c *consistency) series() []prometheus.Collector {
	return []prometheus.Collector{c.checks, c.failing}
}

// run checks until ctx ends. What another leader has found is not known here.
func (c *consistency) run(ctx context.Context) {
	c.failing.Set(0)
	for c.every > 0 && wait.Sleep(ctx, c.every) == nil {
		err := c.check()
		if err == nil {
			c.checks.WithLabelValues("ok").Inc()
			c.failing.Set(0)
			continue
		}
		c.checks.WithLabelValues("failed").Inc()
		c.failing.Set(1)
		c.log.Warn("The state has a contradiction: save a snapshot and the log, and report it",
			"err", err)
	}
	c.failing.Set(0)
}
