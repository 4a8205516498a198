package fanout

import (
	"context"
	"net/http"
	"time"

	"quorate/internal/wait"
)

const (
	// firstLook and longestLook bound the pause before a call is made again.
	firstLook   = 50 * time.Millisecond
	longestLook = time.Second

	// busyTime bounds the wait for a pageserver that says 503: it starts, stops or changes
	// the shard. After that another pageserver is likely to get the shard.
	busyTime = 5 * time.Second

	// underWayTime bounds the wait for a call that is under way. Pageservers need seconds for
	// such calls, and minutes at the most.
	underWayTime = 2 * time.Minute
)

// Settle makes a call until its answer says what came of it. A pageserver that is at the
// same thing already answers underWay, and one that has no time for the shard 503. The
// first is likely to work for a leader that has died, and for the client that waits here.
// So it is waited for, and then asked again, which changes nothing that is done. 0 is for
// calls that have no such status.
//
// A call that is under way is waited for underWayTime at most, and a busy pageserver for
// busyTime. Neither is longer than ctx. The error is that of the last answer.
func Settle(ctx context.Context, underWay int, call func() error) error {
	deadline, bounded := ctx.Deadline()
	begun := time.Now()
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		err := call()
		var limit time.Duration
		switch status := StatusOf(err); {
		case err == nil, status == 0:
			return err
		case status == underWay:
			limit = underWayTime
		case status == http.StatusServiceUnavailable:
			limit = busyTime
		}
		if time.Since(begun)+pause > limit || bounded && time.Until(deadline) <= pause ||
			wait.Sleep(ctx, pause) != nil {
			return err
		}
	}
}
