package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/duty"
)

// officePause is the pause between two tries to take office.
const officePause = 50 * time.Millisecond

// lead is what this replica does in one term of leadership. It returns when ctx
// ends and everything it started has ended, or with an error when it cannot take
// office.
func (a *App) lead(ctx context.Context, term uint64) error {
	defer a.leadership.stepped.began()()
	if err := a.takeOffice(ctx, term); err != nil {
		return err
	}
	a.log.Info("Populating tenant shards' states from the log and the pageservers", "term", term)
	duty.Run(ctx, a.log, a.duties(term))
	return nil
}

// duties are what the leader does in one term.
func (a *App) duties(term uint64) []duty.Duty {
	return []duty.Duty{
		{Name: "reconcile shards", Run: func(ctx context.Context) {
			_ = a.reconciler.Run(ctx, term) // the error is that of ctx
		}},
		{Name: "look after safekeepers", Run: func(ctx context.Context) {
			_ = a.keeper.Run(ctx, term) // the error is that of ctx
		}},
		{Name: "finish deletions of tenants", Run: a.tenantDeletions.Run},
		{Name: "finish deletions of timelines", Run: a.timelineDeletions.Run},
		{Name: "end imports", Run: a.imports.Run},
		{Name: "carry on moves between safekeepers", Run: a.migrations.Run},
		{Name: "split tenants", Run: a.splits.Run},
		{Name: "spread feature flags", Run: a.giveFlags},
		{Name: "raise the feature level", Run: a.raiseLevel},
	}
}

// takeOffice commits who leads and, in the first term ever, the cluster's id. A
// proposal that found no room is repeated; one that is refused means that a later
// term has begun, and the end of ctx is near.
func (a *App) takeOffice(ctx context.Context, term uint64) error {
	for {
		err := a.proposeOffice(ctx, term)
		var refusal *neon.Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &refusal) && refusal.Code == neon.Internal:
			return fmt.Errorf("take office: %w", err)
		}
		a.log.Info("taking office again", "term", term, "err", err)
		if !sleep(ctx, officePause) {
			return nil
		}
	}
}

func (a *App) proposeOffice(ctx context.Context, term uint64) error {
	if a.replica.State().ClusterID == "" {
		id := a.cluster.ClusterID() // as it was founded; older directories may have none
		if id == "" {
			id = newClusterID()
		}
		if _, err := a.replica.Propose(ctx, fsm.RequestID{}, fsm.SetCluster{ID: id}); err != nil {
			return err
		}
	}
	_, err := a.replica.Propose(ctx, fsm.RequestID{}, fsm.SetLeader{Leader: fsm.Leader{
		ServerID: a.cluster.ID(), Address: a.cfg.HTTP.Address, StartedAt: time.Now().UnixMilli(),
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
		if id := a.replica.State().ClusterID; id != "" {
			if err := a.cluster.SetClusterID(id); err != nil {
				a.fail(fmt.Errorf("this data directory belongs to another cluster: %w", err))
			}
			return
		}
		select {
		case <-a.applied:
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
		a.fail(err)
	case <-ctx.Done():
	}
}
