package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/deletion"
	"quorate/internal/duty"
	"quorate/internal/featureflags"
	"quorate/internal/imports"
	"quorate/internal/leadership"
	"quorate/internal/membership"
	"quorate/internal/safekeeping"
	"quorate/internal/split"
	"quorate/internal/timetravel"
	"quorate/internal/wait"
	"quorate/reconciler"
)

// leaderWork is what a replica does while it leads.
type leaderWork struct {
	log        *slog.Logger
	cluster    *cluster.Cluster
	replica    *Replica
	leadership *leadership.Leadership
	address    string // of our API

	reconciler *reconciler.Reconciler
	keeper     *safekeeping.Keeper
	migrations *membership.Migrator
	imports    *imports.Importer
	splits     *split.Splitter
	flags      *featureflags.Poller

	consistency *consistency

	tenantDeletions   *deletion.Tenants
	timelineDeletions *deletion.Timelines
	creating          *duty.Turns[neon.TimelineRef] // creations take turns with deletions
	travels           *timetravel.Travels
}

// run does the work of one term of leadership. It returns when ctx ends and everything
// it started has ended, or with an error when it cannot take office.
func (w *leaderWork) run(ctx context.Context, term uint64) error {
	defer w.leadership.TermBegins()()
	if err := w.takeOffice(ctx, term); err != nil {
		return err
	}
	w.log.Info("Populating tenant shards' states from the log and the pageservers", "term", term)
	duty.Run(ctx, w.log, w.duties(term))
	return nil
}

// duties are what the leader does in one term.
func (w *leaderWork) duties(term uint64) []duty.Duty {
	return []duty.Duty{
		{Name: "reconcile shards", Run: func(ctx context.Context) {
			_ = w.reconciler.Run(ctx, term) // the error is that of ctx
		}},
		{Name: "look after safekeepers", Run: func(ctx context.Context) {
			_ = w.keeper.Run(ctx, term) // the error is that of ctx
		}},
		{Name: "finish deletions of tenants", Run: w.tenantDeletions.Run},
		{Name: "finish deletions of timelines", Run: w.timelineDeletions.Run},
		{Name: "end time travels", Run: w.travels.Run},
		{Name: "end imports", Run: w.imports.Run},
		{Name: "carry on moves between safekeepers", Run: w.migrations.Run},
		{Name: "split tenants", Run: w.splits.Run},
		{Name: "spread feature flags", Run: w.flags.Run},
		{Name: "raise the feature level", Run: w.raiseLevel},
		{Name: "check the state", Run: w.consistency.run},
	}
}

// officePause is the pause before an entry that found no room is proposed again.
const officePause = 50 * time.Millisecond

// takeOffice commits who leads and, in the first term ever, the cluster's id. A
// proposal that found no room is repeated; one that is refused means that a later
// term has begun, and the end of ctx is near.
func (w *leaderWork) takeOffice(ctx context.Context, term uint64) error {
	for {
		err := w.proposeOffice(ctx, term)
		var refusal *neon.Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &refusal) && refusal.Code == neon.Internal:
			return fmt.Errorf("take office: %w", err)
		}
		w.log.Info("taking office again", "term", term, "err", err)
		if wait.Sleep(ctx, officePause) != nil {
			return nil
		}
	}
}

func (w *leaderWork) proposeOffice(ctx context.Context, term uint64) error {
	if w.replica.State().ClusterID == "" {
		id := w.cluster.ClusterID() // as it was founded; older directories may have none
		if id == "" {
			id = newClusterID()
		}
		if _, err := w.replica.Propose(ctx, fsm.RequestID{}, fsm.SetCluster{ID: id}); err != nil {
			return err
		}
	}
	_, err := w.replica.Propose(ctx, fsm.RequestID{}, fsm.SetLeader{Leader: fsm.Leader{
		ServerID: w.cluster.ID(), Address: w.address, StartedAt: time.Now().UnixMilli(),
		Term: term,
	}})
	return err
}

func newClusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// learnClusterID tells the cluster package the id as soon as it is in the state,
// and returns.
func (a *App) learnClusterID(ctx context.Context) {
	for {
		changed := a.replica.Changed()
		if id := a.replica.State().ClusterID; id != "" {
			if err := a.cluster.SetClusterID(id); err != nil {
				a.failed.report(fmt.Errorf(
					"this data directory belongs to another cluster: %w", err))
			}
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// watchDisk ends the process when its disk is beyond recovery: another replica
// leads by then, and a supervisor may start this one on a healthy disk.
func (a *App) watchDisk(ctx context.Context) {
	select {
	case err := <-a.cluster.Fatal():
		a.failed.report(err)
	case <-ctx.Done():
	}
}
