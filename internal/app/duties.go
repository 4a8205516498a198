package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
)

// lead is what this replica does in one term of leadership. It returns when ctx
// ends and everything it started has ended, or with an error that makes going on
// pointless.
func (a *App) lead(ctx context.Context, term uint64) error {
	defer a.leadership.stepped.began()()
	if err := a.takeOffice(ctx, term); err != nil {
		return err
	}
	a.log.Info("Populating tenant shards' states from the log and the pageservers", "term", term)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.reconciler.Run(ctx, term) })
	g.Go(func() error { return a.tenants.ResumeDeletes(ctx) })
	g.Go(func() error { return a.keeper.Run(ctx, term) })
	g.Go(func() error { return a.giveFlags(ctx) })
	g.Go(func() error { return a.timelines.ResumeMigrations(ctx) })
	g.Go(func() error { return a.timelines.ResumeTimelines(ctx) })
	g.Go(func() error { return a.raiseLevel(ctx) })
	g.Go(func() error { return a.splits.Run(ctx) })
	err := g.Wait()
	if ctx.Err() != nil &&
		(errors.Is(err, context.Canceled) || neon.CodeOf(err) == neon.NotLeader) {
		return nil
	}
	return err
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
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *App) proposeOffice(ctx context.Context, term uint64) error {
	if a.replica.State().ClusterID == "" {
		id := a.cfg.Cluster.ClusterID
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
