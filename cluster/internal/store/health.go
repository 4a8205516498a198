package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// Health is the verdict on this server's disk. It comes from the writes of the log,
// and from a test write at a fixed interval, so that an idle leader notices too.
type Health struct {
	log    *slog.Logger
	limits Limits
	hooks  Hooks

	mu      sync.Mutex
	stalled int       // writes that are past the deadline and not back
	failing bool      // the last write failed
	lastBad time.Time // zero: never
	unfit   time.Time // when the trouble began that lastBad belongs to
	cause   error     // of the last trouble
	fatal   error     // an error that trying again does not cure
	slowest time.Duration
	last    time.Duration
	logged  time.Time  // when the log was last written
	fatalCh chan error // buffered, gets the first fatal error

	soon chan struct{} // buffered: it may be time for a test write
}

func newHealth(log *slog.Logger, limits Limits, hooks Hooks) *Health {
	return &Health{
		log: log, limits: limits, hooks: hooks, fatalCh: make(chan error, 1),
		soon: make(chan struct{}, 1),
	}
}

// Fatal delivers at most one error: the disk refuses writes, and trying again does
// not help, or the server was condemned.
func (h *Health) Fatal() <-chan error { return h.fatalCh }

// Report is the verdict in words and numbers.
type Report struct {
	Fit    bool
	Reason string    // why the disk is not fit
	Since  time.Time // when it ceased to be fit; zero while it is
	// LastWrite and SlowestWrite are durations of writes, fsync included.
	LastWrite, SlowestWrite time.Duration
}

// Report returns the verdict of this moment.
func (h *Health) Report() Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Report{Fit: h.fit(), LastWrite: h.last, SlowestWrite: h.slowest}
	if !r.Fit && h.cause != nil {
		r.Reason, r.Since = h.cause.Error(), h.unfit
	}
	return r
}

// Works reports whether the disk works at this moment.
func (h *Health) Works() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.works()
}

// Fit reports whether the disk has worked for long enough to lead.
func (h *Health) Fit() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fit()
}

func (h *Health) works() bool { return h.stalled == 0 && !h.failing && h.fatal == nil }

func (h *Health) fit() bool {
	return h.works() && (h.lastBad.IsZero() || time.Since(h.lastBad) >= h.limits.Recovery)
}

// stallBegan records that a write hangs.
func (h *Health) stallBegan(err error) {
	h.mu.Lock()
	h.noteTrouble(err)
	h.stalled++
	h.mu.Unlock()
	h.log.Info("the disk hangs; this server does not lead until it recovers", "err", err)
	h.hooks.Changed()
}

// stallEnded records that a write which hung is back.
func (h *Health) stallEnded() {
	h.mu.Lock()
	h.stalled = max(0, h.stalled-1)
	h.lastBad = time.Now()
	h.mu.Unlock()
	h.hooks.Changed()
}

// overdue is called when a write has taken longer than it may. The channel is closed
// when the write counts as hanging: at once on a server that does not lead, and on a
// leader when others can take over, or after the grace.
func (h *Health) overdue(ctx context.Context, leads bool, grace time.Duration) <-chan struct{} {
	if leads {
		return h.hooks.MajorityWrites(ctx, grace)
	}
	hangs := make(chan struct{})
	close(hangs)
	return hangs
}

// noteTrouble is called before the disk counts as hanging or failing.
func (h *Health) noteTrouble(err error) {
	if h.fit() {
		h.unfit = time.Now()
	}
	h.lastBad = time.Now()
	h.cause = err
}

// failed records a write that failed.
func (h *Health) failed(err error) {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	h.mu.Lock()
	first := !h.failing
	h.noteTrouble(err)
	h.failing = true
	if !full && h.fatal == nil {
		h.fatal = fmt.Errorf("%w: %w", ErrDisk, err)
		h.fatalCh <- h.fatal
	}
	h.mu.Unlock()
	if first && full {
		h.log.Error("the disk is full; this server waits until there is space", "err", err)
	} else if first {
		h.log.Error("the disk refuses writes; restart the server on a healthy one", "err", err)
	}
	h.hooks.Changed()
}

// Condemn ends this server for a reason that lies outside its disk: it writes, votes and
// leads no more, and Fatal delivers the error.
func (h *Health) Condemn(err error) {
	h.mu.Lock()
	first := h.fatal == nil
	if first {
		h.noteTrouble(err)
		h.fatal = err
		h.fatalCh <- err
	}
	h.mu.Unlock()
	if first {
		h.log.Error("this server stops", "err", err)
		h.hooks.Changed()
	}
}

// condemned returns the error that ended this server, nil while it goes on.
func (h *Health) condemned() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fatal
}

// wroteLog records that a write of the log succeeded.
func (h *Health) wroteLog() {
	h.mu.Lock()
	h.logged = time.Now()
	h.mu.Unlock()
}

// wrote records the end of a write that was waited for.
func (h *Health) wrote(took time.Duration, err error) {
	if err != nil {
		h.failed(err)
		return
	}
	h.mu.Lock()
	h.last = took
	h.slowest = max(h.slowest, took)
	recovered := h.failing
	h.failing = false
	h.mu.Unlock()
	if recovered {
		h.hooks.Changed()
	}
}

// followerTests is how much less often a server tests its disk that does not lead. A write
// waits for no single follower, and whether one could lead is proved by ProveWritable, or by
// the vote that it writes. Its verdict only chooses who stands for election first, so that
// it may come a little later. A leader has to notice within a second.
const followerTests = 3

// pause is how long the disk may go untested.
func (h *Health) pause() time.Duration {
	if h.hooks.Leads() || !h.Fit() {
		return h.limits.TestWrite
	}
	return followerTests * h.limits.TestWrite
}

// LeaderMoved is to be called when the server may have begun to lead.
func (h *Health) LeaderMoved() {
	select {
	case h.soon <- struct{}{}:
	default:
	}
}

// watch makes test writes until ctx ends, the next one pause after the disk was last seen to
// work. One that hangs in the kernel is left behind. The next one starts only when it is back.
func (h *Health) watch(ctx context.Context, test testWrite) {
	tick := time.NewTimer(h.pause())
	defer tick.Stop()
	for tested := time.Now(); ; {
		select {
		case <-tick.C:
		case <-h.soon:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		if h.logged.After(tested) {
			tested = h.logged // nothing is learnt from another write
		}
		h.mu.Unlock()
		if time.Since(tested) >= h.pause() {
			tested = time.Now()
			if !h.try(ctx, test) {
				return
			}
		}
		tick.Reset(max(0, h.pause()-time.Since(tested)))
	}
}

// try makes one test write. It reports false when ctx has ended.
func (h *Health) try(ctx context.Context, test testWrite) bool {
	back := make(chan error, 1)
	began := time.Now()
	go func() { back <- test() }()
	timer := time.NewTimer(h.limits.Write)
	defer timer.Stop()
	late := false
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var hangs <-chan struct{}
	for {
		select {
		case err := <-back:
			if late {
				h.stallEnded()
			}
			h.wrote(time.Since(began), err)
			return true
		case <-timer.C:
			// The hang may have begun right after the test write before this one.
			hangs = h.overdue(asking, h.hooks.Leads(), h.limits.Grace-h.limits.TestWrite)
		case <-hangs:
			hangs, late = nil, true
			h.stallBegan(fmt.Errorf("%w: a test write takes longer than %v", ErrDisk,
				time.Since(began).Round(time.Millisecond)))
		case <-ctx.Done():
			select {
			case <-back:
			case <-time.After(h.limits.Write):
			}
			return false
		}
	}
}
