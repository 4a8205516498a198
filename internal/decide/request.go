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
	key      [32]byte
	byClient bool
	acted    atomic.Bool
	step     atomic.Uint32 // of the next change
}

// WithRequest names the request that ctx belongs to. A later try of the same request,
// through whichever replica, has the same key. What an earlier one has done is recognised,
// and not done again.
//
// The changes of a request are counted, in the order in which they are made. So one try
// makes them one after another, and an earlier change does not decide whether it makes a
// later one of another kind.
func WithRequest(ctx context.Context, key [32]byte) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{key: key})
}

// ByClient says that the client has named the request that ctx belongs to, and may make it
// again when it is long over. Else only replicas do, until the client has its answer.
func ByClient(ctx context.Context) context.Context {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		r.byClient = true
	}
	return ctx
}

// BeginTry begins a try of the request that ctx belongs to: its changes are counted anew.
func BeginTry(ctx context.Context) {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		r.step.Store(0)
	}
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

// Named reports whether ctx belongs to a client's request.
func Named(ctx context.Context) bool {
	_, ok := ctx.Value(requestKey{}).(*request)
	return ok
}

// NextStep is the name under which the next change of a request goes into the log. It is
// zero when no client has asked for it.
func NextStep(ctx context.Context) fsm.RequestID {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return fsm.RequestID{}
	}
	return r.id(r.step.Add(1) - 1)
}

func namedByClient(ctx context.Context) bool {
	r, ok := ctx.Value(requestKey{}).(*request)
	return ok && r.byClient
}

// Done reports whether an earlier try of the request that ctx belongs to, or this one, has
// made its first change, as far as s remembers. It tells for sure only on a linearizable
// read.
func Done(ctx context.Context, s *fsm.State) bool { return DoneAll(ctx, s, 1) }

// DoneAll is Done for a request of several changes, of which the last one has been made.
func DoneAll(ctx context.Context, s *fsm.State, changes uint32) bool {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return false
	}
	_, done := s.Done(r.id(changes - 1))
	return done
}

// id names a change of a request.
func (r *request) id(step uint32) (id fsm.RequestID) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(r.key[:], step))
	copy(id[:], sum[:])
	return id
}
