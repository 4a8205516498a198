package decide

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"

	"quorate/fsm"
)

type requestKey struct{}

// request is what is known of a client's request on this replica.
type request struct {
	repeated atomic.Bool
	acted    atomic.Bool
}

// named is a request, or a part of one, under the name that it has in the log.
type named struct {
	id    fsm.RequestID
	begun int64 // tells two requests apart that have one id after another
	*request
}

// WithRequest names the request that ctx belongs to. Each request that a client sends has
// a name of its own. A try of it that follows another one has the same, through whichever
// replica.
func WithRequest(ctx context.Context, id fsm.RequestID) context.Context {
	return context.WithValue(ctx, requestKey{}, named{id, 0, new(request)})
}

// Under gives the request that ctx belongs to another name, which is in use since a time.
// What is known of the request stays.
func Under(ctx context.Context, id fsm.RequestID, begun int64) context.Context {
	r, ok := of(ctx)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, requestKey{}, named{id, begun, r.request})
}

// Part names a part of the request. Of each part, as of the request, the log takes one
// command. Work that no client has asked for has no parts.
func Part(ctx context.Context, name string) context.Context {
	r, ok := of(ctx)
	if !ok {
		return ctx
	}
	seed := binary.BigEndian.AppendUint64(r.id[:], uint64(r.begun))
	sum := sha256.Sum256(append(seed, name...))
	return Under(ctx, fsm.RequestID(sum[:len(r.id)]), 0)
}

func of(ctx context.Context) (named, bool) {
	r, ok := ctx.Value(requestKey{}).(named)
	return r, ok
}

// Repeat notes that an earlier try may have carried out the request that ctx belongs to.
func Repeat(ctx context.Context) {
	if r, ok := of(ctx); ok {
		r.repeated.Store(true)
	}
}

// Repeated reports whether an earlier try may have carried out the request.
func Repeated(ctx context.Context) bool {
	r, ok := of(ctx)
	return ok && r.repeated.Load()
}

// Acted notes that something has been done, or may have been, for the request that
// ctx belongs to: no later error of it may say that nothing was.
func Acted(ctx context.Context) {
	if r, ok := of(ctx); ok {
		r.acted.Store(true)
	}
}

// HasActed reports whether something may have been done for the request.
func HasActed(ctx context.Context) bool {
	r, ok := of(ctx)
	return ok && r.acted.Load()
}

// RequestID is the name under which the command of a request, or of a part of one, goes
// into the log. It is zero when no client has asked for it.
func RequestID(ctx context.Context) fsm.RequestID {
	r, _ := of(ctx)
	return r.id
}
