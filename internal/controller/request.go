package controller

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

type requestKey struct{}

// request is what is known of a client's request on this replica.
type request struct {
	key   [32]byte
	acted atomic.Bool
}

// WithRequest names the request that ctx belongs to. The same request, tried again
// through whichever replica, has the same key, and its commands are recognised.
func WithRequest(ctx context.Context, key [32]byte) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{key: key})
}

// Acted notes that something has been done, or may have been, for the request that
// ctx belongs to: no later error of it may say that nothing was.
func Acted(ctx context.Context) {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		r.acted.Store(true)
	}
}

// HasActed tells whether something may have been done for the request.
func HasActed(ctx context.Context) bool {
	r, ok := ctx.Value(requestKey{}).(*request)
	return ok && r.acted.Load()
}

// requestID is the name under which the commands of a request go into the log;
// zero for what nobody asked for.
func requestID(ctx context.Context) (id fsm.RequestID) {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		copy(id[:], r.key[:])
	}
	return id
}

// decision makes one command from a state. A nil command means that nothing is
// to be changed any more.
type decision func(s *fsm.State) (fsm.Command, error)

// commit decides and proposes until the log takes it. The index is that of the
// state in which the wish is fulfilled.
//
// A command that is recognised as done proves that it was done, not that it still
// holds: somebody may have used one request id for several requests. So the
// decision is made once more, on a state that holds the command; if there is still
// something to change it is proposed without a name.
func commit(ctx context.Context, log Log, decide decision) (uint64, error) {
	id := requestID(ctx)
	var refused error
	for range decisions {
		s, c, err := decideFirmly(ctx, log, decide)
		if err != nil || c == nil {
			return s.Index, err
		}
		r, err := log.Propose(ctx, id, c)
		switch {
		case r.Err != nil && r.Err.Code == neon.Conflict:
			refused = err
		case err != nil:
			return 0, err
		case r.Duplicate:
			id = fsm.RequestID{}
		case len(r.Refused) > 0:
			// The entry was taken and remembered, but not for everything.
			id = fsm.RequestID{}
			refused = neon.Errorf(neon.Conflict, "placement of %s does not hold any more",
				r.Refused[0])
		default:
			return r.Index, nil
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	if refused == nil {
		refused = neon.Errorf(neon.Conflict, "others change the same all the time, please retry")
	}
	return 0, refused
}

// decideFirmly decides on the newest local state. A leader that has just been
// elected may not have applied everything that was acknowledged, so that a refusal,
// and finding nothing to do, count only on a linearizable read; a command is
// checked by the log anyway.
func decideFirmly(ctx context.Context, log Log, decide decision) (*fsm.State, fsm.Command, error) {
	s := log.State()
	c, err := decide(s)
	if err == nil && c != nil {
		return s, c, nil
	}
	fresh, rerr := log.ReadState(ctx)
	switch {
	case rerr != nil:
		return s, nil, rerr
	case fresh.Index == s.Index:
		return s, c, err
	}
	c, err = decide(fresh)
	return fresh, c, err
}

// settle waits for shards for at most that long and reports only what keeps the
// caller from answering: a reconcile that is slow or fails goes on without it.
func settle(
	ctx context.Context, r Reality, wait time.Duration, index uint64, shards []neon.ShardID,
) {
	r.Kick(shards...)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_ = r.Await(ctx, index, shards...)
}

// await waits for shards and reports how that went.
func await(ctx context.Context, r Reality, index uint64, shards ...neon.ShardID) error {
	r.Kick(shards...)
	ctx, cancel := context.WithTimeout(ctx, longWait)
	defer cancel()
	return r.Await(ctx, index, shards...)
}

// statusOf is the HTTP status that a pageserver answered with, 0 when err is no
// such answer.
func statusOf(err error) int {
	var s interface{ HTTPStatus() int }
	if errors.As(err, &s) {
		return s.HTTPStatus()
	}
	return 0
}

// messageOf is the text of a pageserver's answer.
func messageOf(err error) string {
	var m interface{ Message() string }
	if errors.As(err, &m) {
		return m.Message()
	}
	return ""
}
