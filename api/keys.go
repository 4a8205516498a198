package api

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// keyHeader names a request for all times that the client sends it, as the IETF's draft
// "The Idempotency-Key HTTP Header Field" has it.
const keyHeader = "Idempotency-Key"

// keys recognises the requests that clients send under keys of their own. The log has the
// keys. What runs is known to the leader that runs it: when the leader is gone, nothing
// runs any more, and the next request under the key finds what was done.
type keys struct {
	log decide.Log

	mu      sync.Mutex
	running map[fsm.RequestID]running // by key
}

// running is a request that is being carried out. A replica that sends a further try does
// not wait for the end of the one before.
type running struct {
	request fsm.RequestID
	tries   int
}

func newKeys(log decide.Log) *keys {
	return &keys{log: log, running: make(map[fsm.RequestID]running)}
}

var (
	errKeysUnknown = neon.Errorf(neon.Unavailable,
		"Idempotency-Key: not all members of the cluster know it yet, please retry")
	errKeyRuns = neon.Errorf(neon.InProgress,
		"Idempotency-Key: the first request under this key is still being carried out")
	errKeyReused = neon.Errorf(neon.Unprocessable,
		"Idempotency-Key: another request was sent under this key")
)

// begin records that a request is sent under a key. The context is that of the request
// under the name that it has for all times it is sent. The error says that it is being
// carried out, or that the key was used for another request. end must be called when the
// request has ended here.
func (k *keys) begin(
	ctx context.Context, key string, print [sha256.Size]byte,
) (under context.Context, end func(), err error) {
	sum := sha256.Sum256([]byte("idempotency key " + key))
	c := fsm.BeginKeyed{Key: fsm.RequestID(sum[:16]), Print: [16]byte(print[:16])}
	if !k.enter(c.Key, decide.RequestID(ctx)) {
		return nil, nil, errKeyRuns
	}
	begun, err := k.record(ctx, c)
	if err != nil {
		k.leave(c.Key)
		return nil, nil, err
	}
	return decide.Under(ctx, c.Key, begun), func() { k.leave(c.Key) }, nil
}

// record puts a key into the log, if it is not there, and returns since when it is.
func (k *keys) record(ctx context.Context, c fsm.BeginKeyed) (begun int64, err error) {
	for range decide.Tries {
		s, rerr := k.log.ReadState(ctx)
		if rerr != nil {
			return 0, rerr
		}
		c.At = time.Now().UnixMilli()
		switch old, known := s.Keyed(c.Key); {
		case fsm.Admit(s, c) != nil:
			return 0, errKeysUnknown
		case known && !old.Expired(c.At) && old.Print != c.Print:
			return 0, errKeyReused
		case known && !old.Expired(c.At):
			decide.Repeat(ctx)
			return old.At, nil
		}
		if _, err = k.log.Propose(ctx, fsm.RequestID{}, c); err == nil ||
			neon.CodeOf(err) != neon.Conflict {
			return c.At, err
		}
	}
	return 0, err
}

// enter reports whether a request may run: no other one runs under its key.
func (k *keys) enter(key, request fsm.RequestID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, runs := k.running[key]
	if runs && r.request != request {
		return false
	}
	k.running[key] = running{request, r.tries + 1}
	return true
}

func (k *keys) leave(key fsm.RequestID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.running[key]
	if r.tries--; r.tries == 0 {
		delete(k.running, key)
		return
	}
	k.running[key] = r
}
