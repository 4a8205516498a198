package app

import (
	"context"
	"time"

	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/wait"
)

// levelPoll is how often the leader looks whether all members have been upgraded.
const levelPoll = time.Second

// raiseLevel raises the agreed level of the cluster as soon as every member, with
// or without a vote, runs a version that knows a higher one. A member that cannot
// be reached holds it up: it might come back with the version it had.
func (w *leaderWork) raiseLevel(ctx context.Context) {
	for {
		have := w.replica.State().AgreedLevel()
		if all := commonLevel(w.cluster.Members()); all > have {
			_, err := w.replica.Propose(ctx, fsm.RequestID{}, fsm.SetLevel{Level: all})
			if err == nil {
				w.log.Info("All members know a higher feature level", "level", all, "before", have)
			} else if ctx.Err() == nil {
				w.log.Info("raising the feature level again", "level", all, "err", err)
			}
		}
		if wait.Sleep(ctx, levelPoll) != nil {
			return
		}
	}
}

// commonLevel is the highest level that every member knows; 0 while that of one is
// not known.
func commonLevel(members []cluster.MemberStatus) uint64 {
	if len(members) == 0 {
		return 0
	}
	least := members[0].Level
	for _, m := range members {
		least = min(least, m.Level)
	}
	return least
}
