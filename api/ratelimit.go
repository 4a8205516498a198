package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"quorate/api/neon"
)

const (
	// keptLimiters bounds the table of tenants that asked lately.
	keptLimiters = 8192

	// limitWarning is the least time between two warnings about one tenant.
	limitWarning = 10 * time.Second
)

// limiter delays the requests about a tenant that are beyond its rate. It refuses one
// only if the delay is longer than the time that the request has.
type limiter struct {
	perSecond int
	observe   func(time.Duration)
	logger    *slog.Logger

	mu      sync.Mutex
	tenants map[neon.TenantID]*tenantRate // Invariant: at most keptLimiters entries.
}

type tenantRate struct {
	bucket *rate.Limiter
	used   time.Time
	warned time.Time
}

func newLimiter(perSecond int, logger *slog.Logger, observe func(time.Duration)) *limiter {
	return &limiter{
		perSecond: perSecond, observe: observe, logger: logger,
		tenants: make(map[neon.TenantID]*tenantRate),
	}
}

// wait takes one token of the tenant. It waits for it as long as ctx allows.
func (l *limiter) wait(ctx context.Context, id neon.TenantID) error {
	now := time.Now()
	delay, warn, cancel := l.reserve(id, now)
	if delay <= 0 {
		return nil
	}
	if warn {
		l.logger.Warn("tenant " + id.String() + " is rate limited")
	}
	if deadline, ok := ctx.Deadline(); ok && now.Add(delay).After(deadline) {
		cancel()
		return neon.Errorf(neon.Timeout, "tenant %s is rate limited", id)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		l.observe(delay)
		return nil
	case <-ctx.Done():
		cancel()
		return context.Cause(ctx)
	}
}

func (l *limiter) reserve(
	id neon.TenantID, now time.Time,
) (delay time.Duration, warn bool, cancel func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.tenants[id]
	if !ok {
		if len(l.tenants) >= keptLimiters {
			l.forget(now)
		}
		t = &tenantRate{bucket: rate.NewLimiter(rate.Limit(l.perSecond), l.perSecond)}
		l.tenants[id] = t
	}
	t.used = now
	r := t.bucket.ReserveN(now, 1)
	delay = r.DelayFrom(now)
	if delay > 0 && now.Sub(t.warned) >= limitWarning {
		t.warned, warn = now, true
	}
	return delay, warn, r.Cancel
}

// forget drops the tenants whose bucket is full again: they are as if they had never
// asked. If all are busy, it drops an eighth of them, whichever; each of these may then
// exceed its rate once.
func (l *limiter) forget(now time.Time) {
	for id, t := range l.tenants {
		if t.bucket.TokensAt(now) >= float64(l.perSecond) && now.Sub(t.warned) >= limitWarning {
			delete(l.tenants, id)
		}
	}
	const room = keptLimiters - keptLimiters/8
	for id := range l.tenants {
		if len(l.tenants) <= room {
			return
		}
		delete(l.tenants, id)
	}
}
