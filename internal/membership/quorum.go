package membership

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

const (
	// quorumTime bounds what needs a quorum of the safekeepers of a timeline.
	quorumTime = 30 * time.Second

	// stragglerTime is how long the others are waited for once there is a quorum:
	// they are seen to in the background.
	stragglerTime = 2 * time.Second

	// safekeeperPause is between two tries on one safekeeper, of which there are
	// safekeeperTries.
	safekeeperPause = 500 * time.Millisecond
	safekeeperTries = 5
)

// tryHard runs f on one safekeeper until it succeeds, a few times.
// quorum runs f on all safekeepers of a set, a few tries each, and lists those where
// it failed or took too long. Without success on a majority that is an error.
func quorum(
	ctx context.Context, logger *slog.Logger, s *fsm.State, set []neon.NodeID,
	f func(context.Context, *fsm.Safekeeper) error,
) (missed []neon.NodeID, err error) {
	ctx, cancel := context.WithTimeout(ctx, quorumTime)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		good = make(map[neon.NodeID]bool)
		late *time.Timer
	)
	for _, id := range set {
		sk, ok := s.Safekeeper(id)
		if !ok {
			continue // cannot be: members are registered
		}
		wg.Go(func() {
			err := tryHard(ctx, &sk, f)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				logger.Info("a safekeeper did not do its part", "safekeeper", id, "err", err)
				return
			}
			good[id] = true
			if len(good) == len(set)/2+1 {
				late = time.AfterFunc(stragglerTime, cancel)
			}
		})
	}
	wg.Wait()
	if late != nil {
		late.Stop()
	}
	for _, id := range set {
		if !good[id] {
			missed = append(missed, id)
		}
	}
	if need := len(set)/2 + 1; len(good) < need {
		return missed, neon.Errorf(neon.Internal,
			"not enough successful reconciliations to reach quorum size: %d of %d of total %d",
			len(good), need, len(set))
	}
	return missed, nil
}

// tryHard runs f on one safekeeper until it succeeds, a few times.
func tryHard(
	ctx context.Context, sk *fsm.Safekeeper, f func(context.Context, *fsm.Safekeeper) error,
) (err error) {
	for n := range safekeeperTries {
		if n > 0 {
			if wait.Sleep(ctx, safekeeperPause) != nil {
				return err
			}
		}
		if err = f(ctx, sk); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}
