package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// vouchLimit bounds how long a snapshot waits for others to compare its state with.
	vouchLimit = 3 * time.Second

	// vouchAtOnce is how often the others are asked again as soon as entries were applied
	// here, and not after a pause. Under load that is when they have come further too.
	vouchAtOnce = 8
)

// vouch waits until a majority of the voters is known to have the state of this server,
// at an index that is not before that of a snapshot of it. Otherwise a wrong state would
// be saved before it is found to be wrong: a member that lags behind the log gets it from
// there, and the two of them would then be a majority against the one that is right.
//
// While nobody can be compared with, as when the others are away or of another version,
// the snapshot is saved all the same after vouchLimit: the log must not grow for ever, and
// a member that lags may be needed for a majority.
func (e *equality) vouch(ctx context.Context, index uint64) error {
	limited, cancel := context.WithTimeout(ctx, vouchLimit)
	defer cancel()
	differs, q := "", question{self: e.node.id, least: index}
	for try := 1; limited.Err() == nil; try++ {
		moved := e.fsm.applied.moved.Changed()
		q.voters = nil
		for _, s := range e.node.servers() {
			if s.Suffrage == raft.Voter {
				q.voters = append(q.voters, string(s.ID))
			}
		}
		q.hashes = e.ask(limited)
		equal, other, others := q.count()
		if equal > len(q.voters)/2 {
			return nil
		}
		if other != "" {
			differs = other
		}
		if others > len(q.voters)/2 {
			break
		}
		if try > vouchAtOnce {
			moved = nil
		}
		pauseOrMoved(limited, moved)
	}
	switch {
	case ctx.Err() != nil:
		return ErrClosed
	case differs != "":
		return fmt.Errorf("%w: not saved, since %s has another state than this server at or "+
			"after entry %d, and no majority has this one; %s", ErrDiverged, differs, index,
			q.instead())
	}
	return nil
}

// instead says whose state can be saved.
func (q *question) instead() string {
	if d, _ := q.judge(); d != nil && d.confirmed {
		return "a majority has that of " + strings.Join(d.sources, " and ") + ": save it there"
	}
	return "start the missing members, so that a majority can say whose is right, and save that of " +
		"a replica that is in service then"
}

// pauseOrMoved ends when moved is closed, at the latest after examinePause.
func pauseOrMoved(ctx context.Context, moved <-chan struct{}) {
	timer := time.NewTimer(examinePause)
	defer timer.Stop()
	select {
	case <-moved:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// count tells how many voters have the hash of the server itself where most can be
// compared, how many have another one, and one of these.
func (q *question) count() (equal int, other string, others int) {
	at, _ := q.common()
	mine, known := q.hashes[q.self][at]
	if !known {
		return 0, "", 0
	}
	for _, id := range q.voters {
		switch hash, ok := q.hashes[id][at]; {
		case ok && hash == mine:
			equal++
		case ok:
			other, others = id, others+1
		}
	}
	return equal, other, others
}
