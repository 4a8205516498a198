package controller

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"quorate/api/neon"
	"quorate/internal/decide"
)

// Locks make a request about a tenant wait for one that takes long, and report long waits
// in the log of the process, in the words that existing alerts look for. They are not
// needed for safety: the replicated log orders the changes.
type Locks struct {
	logger *slog.Logger
	mu     sync.Mutex
	held   map[neon.TenantID]*lock
}

type lock struct {
	room  *semaphore.Weighted
	users int
}

// NewLocks makes Locks of which none is held.
func NewLocks(logger *slog.Logger) *Locks {
	return &Locks{logger: logger, held: make(map[neon.TenantID]*lock)}
}

// everything is the room that an exclusive holder takes.
const everything = math.MaxInt32

// hold is one way to hold a lock.
type hold struct {
	operation string
	room      int64
}

func exclusive(operation string) hold { return hold{operation, everything} }
func shared(operation string) hold    { return hold{operation, 1} }

func (h hold) String() string {
	if h.room == everything {
		return "exclusive"
	}
	return "shared"
}

// title is how a line of the log begins.
func (h hold) title() string {
	if h.room == everything {
		return "Exclusive"
	}
	return "Shared"
}

// acquire waits for a tenant's lock; release gives it back. Nil Locks are no locks.
func (l *Locks) acquire(ctx context.Context, id neon.TenantID, h hold) (release func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	k := l.use(id)
	began := time.Now()
	if err := k.room.Acquire(ctx, h.room); err != nil {
		l.unuse(id, k)
		return nil, context.Cause(ctx)
	}
	got := time.Now()
	if waited := got.Sub(began); waited > decide.LongWait {
		l.logger.Warn(fmt.Sprintf("Operation %s on key %s has waited %s for %s lock", h.operation,
			id, waited, h))
	}
	return func() {
		if took := time.Since(got); took > decide.LongWait {
			l.logger.Warn(fmt.Sprintf("%s lock by %s was held for %s", h.title(), h.operation,
				took))
		}
		k.room.Release(h.room)
		l.unuse(id, k)
	}, nil
}

func (l *Locks) use(id neon.TenantID) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[id]
	if k == nil {
		k = &lock{room: semaphore.NewWeighted(everything)}
		l.held[id] = k
	}
	k.users++
	return k
}

func (l *Locks) unuse(id neon.TenantID, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, id)
	}
}
