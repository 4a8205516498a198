package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"quorate/api/neon"
)

// alarms tell the operator of reconciles that take long.
type alarms struct {
	ctx     context.Context
	after   time.Duration
	metrics Metrics
	logger  *slog.Logger

	mu   sync.Mutex
	rang map[*alarm]struct{} // those that have not ended since
}

// alarm rings once when the reconcile of a shard takes long. The lock of the alarms
// guards over.
type alarm struct {
	timer    *time.Timer
	shard    neon.ShardID
	sequence uint64
	over     bool
}

func newAlarms(ctx context.Context, d Deps) *alarms {
	return &alarms{
		ctx: ctx, after: d.Options.LongReconcile, metrics: d.Metrics, logger: d.Logger,
		rang: make(map[*alarm]struct{}),
	}
}

// set makes an alarm for a reconcile that begins now.
func (s *alarms) set(id neon.ShardID, sequence uint64) *alarm {
	a := &alarm{shard: id, sequence: sequence}
	a.timer = time.AfterFunc(s.after, func() { s.ring(a) })
	return a
}

func (s *alarms) ring(a *alarm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.over || s.ctx.Err() != nil {
		return
	}
	s.rang[a] = struct{}{}
	s.metrics.LongRunning(a.shard, a.sequence)
	s.logger.Warn(fmt.Sprintf("Reconcile passed the long running threshold of %s", s.after),
		"shard", a.shard)
}

// end is the end of a reconcile, long or not; nil is one that has no alarm.
func (s *alarms) end(a *alarm) {
	if a == nil {
		return
	}
	a.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(a)
}

func (s *alarms) endLocked(a *alarm) {
	if _, rang := s.rang[a]; rang {
		delete(s.rang, a)
		s.metrics.LongEnded(a.shard, a.sequence)
	}
	a.over = true
}

// endAll ends what the term leaves unfinished.
func (s *alarms) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.rang {
		a.timer.Stop()
		s.endLocked(a)
	}
}
