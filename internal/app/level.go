package app

import (
	"context"
	"time"

	"quorate/cluster"
	"quorate/fsm"
)

// levelPoll is how often the leader looks whether all members have been upgraded.
const levelPoll = time.Second

// raiseLevel raises the agreed level of the cluster as soon as every member, with
// or without a vote, runs a version that knows a higher one. A member that cannot
// be reached holds it up: it might come back with the version it had.
func (a *App) raiseLevel(ctx context.Context) {
	for {
		have := a.replica.State().AgreedLevel()
		if all := commonLevel(a.cluster.Members()); all > have {
			_, err := a.replica.Propose(ctx, fsm.RequestID{}, fsm.SetLevel{Level: all})
			if err == nil {
				a.log.Info("All members know a higher feature level", "level", all, "before", have)
			} else if ctx.Err() == nil {
				a.log.Info("raising the feature level again", "level", all, "err", err)
			}
		}
		if !sleep(ctx, levelPoll) {
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
