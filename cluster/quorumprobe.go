package cluster

import (
	"context"
	"sync"
	"time"
)

// quorumProbe finds out whether a majority without this server can write.
//
// A leader whose write is overdue gives way only if the others can do without it.
// Servers often share what makes a write slow: one disk under three processes, one
// array under three machines. An election then gains nothing, and costs a round of
// everything that a new leader does. So the leader asks first. Each voter makes a test
// write behind the log writes that it has under way. The voters that finish it soon,
// and that are healthy enough to be elected, must be a majority by themselves.
//
// Otherwise the leader waits on, and asks again, for Timeouts.StoreGrace. After that
// it gives way in any case: a leader that cannot write stops within a second.
type quorumProbe struct {
	ctx        context.Context
	background *group
	node       *raftNode
	link       func(id string) *link // nil without a standing connection
}

// start is called when a write of a leader is overdue. The channel is closed when the
// leader should give way: a majority without this server can write, or limit has
// passed. What start begins ends with ctx.
func (q *quorumProbe) start(ctx context.Context, limit time.Duration) <-chan struct{} {
	giveWay := make(chan struct{})
	look := func() {
		q.await(ctx, limit)
		if ctx.Err() == nil {
			close(giveWay)
		}
	}
	if limit <= 0 || !q.background.Go(look) {
		close(giveWay)
	}
	return giveWay
}

// await asks in rounds until a majority can write or limit has passed.
func (q *quorumProbe) await(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ctx.Err() == nil && q.ctx.Err() == nil {
		round, done := context.WithTimeout(ctx, q.node.timeouts.StoreGrace/3)
		found := q.majorityWrites(round)
		if !found {
			<-round.Done()
		}
		done()
		if found {
			return
		}
	}
}

// majorityWrites asks all other voters at once. It returns when enough of them have
// written, or when too few are left to wait for.
func (q *quorumProbe) majorityWrites(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	wrote := make(chan bool, maxServers)
	asked := 0
	others, missing := q.node.otherVoters()
	for _, s := range others {
		l := q.link(string(s.ID))
		if l == nil || asked == maxServers {
			continue
		}
		asked++
		calls.Go(func() {
			_, err := l.call(ctx, callTestWrite, nil)
			wrote <- err == nil
		})
	}
	for ; asked >= missing && missing > 0; asked-- {
		if <-wrote {
			missing--
		}
	}
	return missing == 0
}
