package decide

import (
	"context"
	"sync/atomic"

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

// HasActed reports whether something may have been done for the request.
func HasActed(ctx context.Context) bool {
	r, ok := ctx.Value(requestKey{}).(*request)
	return ok && r.acted.Load()
}

// RequestID is the name under which the commands of a request go into the log. It
// is zero when no client has asked for them.
func RequestID(ctx context.Context) (id fsm.RequestID) {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		copy(id[:], r.key[:])
	}
	return id
}
