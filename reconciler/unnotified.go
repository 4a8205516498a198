package reconciler

import (
	"errors"
	"fmt"
	"log/slog"

	"quorate/api/neon"
	"quorate/internal/decide"
	"quorate/reconciler/outbox"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// unnotified says to those who wait for a tenant's shards that compute could not be
// told of them.
type unnotified struct {
	log     decide.Log
	scenes  *scenes
	wait    *waiters
	report  *report
	metrics Metrics
	logger  *slog.Logger
}

// NotifyFailed is for the outbox. The shards are attached, only compute does not
// know. A shard in the middle of a live migration stays there until compute knows,
// or its origin is gone. Clients that wait for it go on waiting, unless compute will
// never take it.
func (u *unnotified) NotifyFailed(id neon.TenantID, failures int, err error) {
	u.logger.Info("compute could not be notified, it will be tried again", "tenant", id, "err", err)
	if failures%queue.StuckAfter == 0 {
		warnStuck(u.logger, id, failures)
	}
	tenant, ok := u.log.State().Tenant(id)
	if !ok || tenant.Policy.Kind != neon.PlaceAttached {
		return // compute need not know any more
	}
	for _, shard := range tenant.Shards() {
		if sh, ok := u.log.State().Shard(shard); !ok || !sh.OwesNotification() {
			continue
		}
		if u.scenes.cuttingOver(shard) {
			// The name of the task is what existing tests allow such lines by.
			u.logger.Warn(
				"reconciler: Live migration blocked by compute notification error, retrying: "+err.Error(),
				"shard", shard)
			if refusal := (*outbox.Refusal)(nil); !errors.As(err, &refusal) || !refusal.Never {
				continue
			}
		} else if u.report.taken(shard) {
			u.metrics.Completed("ok_no_notify")
		}
		u.wait.failed(shard, reconcileError(shard, err))
	}
}

// warnStuck tells the operator of something that does not come to an end by itself.
// The words are those that existing alerts and tests look for.
func warnStuck(logger *slog.Logger, what fmt.Stringer, failures int) {
	logger.Warn(fmt.Sprintf(
		"background_reconcile: Shard reconciliation is stuck: %d consecutive launches",
		failures), "of", what)
}

// logIfNotNotified says that a live migration goes on although compute was not told,
// because the location it comes from cannot be used any more.
func logIfNotNotified(logger *slog.Logger, sc *plan.Scene, step plan.Step) {
	at := sc.On(sc.Shard.Attached)
	if sc.Owes() && step.Kind == plan.Put && step.Node == sc.Shard.Attached &&
		step.Conf.Mode == neon.AttachedSingle &&
		at.Attached() && at.Conf.Mode == neon.AttachedMulti {
		logger.Info("Giving up on compute notification because the origin is unavailable",
			"shard", sc.Shard.ID)
	}
}
