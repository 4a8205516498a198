package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// health is the verdict on this server's disk, from the writes of the log and
// from a canary: a test write at a fixed interval, so that an idle leader
// notices too.
type health struct {
	log      *slog.Logger
	recovery time.Duration
	changed  func() // called without locks when the verdict may have changed

	// leads tells whether this server leads. lookForRivals: see there; nil where there
	// is nobody to ask.
	leads         func() bool
	lookForRivals func(ctx context.Context, patience time.Duration) <-chan struct{}

	mu      sync.Mutex
	stalled int       // writes that are past the deadline and not back
	failing bool      // the last write failed
	lastBad time.Time // zero: never
	cause   error     // of the last trouble
	fatal   error     // an error that trying again does not cure
	slowest time.Duration
	last    time.Duration
	fatalCh chan error // buffered, gets the first fatal error
}

func newHealth(log *slog.Logger, recovery time.Duration) *health {
	return &health{
		log: log, recovery: recovery, changed: func() {}, leads: func() bool { return false },
		fatalCh: make(chan error, 1),
	}
}

// able reports whether the disk works at this moment.
func (h *health) able() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stalled == 0 && !h.failing && h.fatal == nil
}

// fit reports whether the disk has worked for long enough to lead.
func (h *health) fit() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stalled == 0 && !h.failing && h.fatal == nil &&
		(h.lastBad.IsZero() || time.Since(h.lastBad) >= h.recovery)
}

func (h *health) stall(err error) {
	h.mu.Lock()
	h.stalled++
	h.note(err)
	h.mu.Unlock()
	h.log.Info("the disk hangs; this server does not lead until it recovers", "err", err)
	h.changed()
}

// overdue is called when a write has taken longer than it may. The channel is closed
// when the write counts as hanging, for a server that does not lead at once.
func (h *health) overdue(ctx context.Context, leads bool, patience time.Duration) <-chan struct{} {
	if leads && h.lookForRivals != nil {
		return h.lookForRivals(ctx, patience)
	}
	hangs := make(chan struct{})
	close(hangs)
	return hangs
}

// settled ends a stall that its caller did not wait for.
func (h *health) settled() {
	h.mu.Lock()
	h.stalled = max(0, h.stalled-1)
	h.lastBad = time.Now()
	h.mu.Unlock()
	h.changed()
}

func (h *health) note(err error) {
	h.lastBad = time.Now()
	h.cause = err
}

// trip records a write that failed.
func (h *health) trip(err error) {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	h.mu.Lock()
	first := !h.failing
	h.failing = true
	h.note(err)
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
	h.changed()
}

// wrote records the end of a write that was waited for.
func (h *health) wrote(took time.Duration, err error) {
	if err != nil {
		h.trip(err)
		return
	}
	h.mu.Lock()
	h.last = took
	h.slowest = max(h.slowest, took)
	recovered := h.failing
	h.failing = false
	h.mu.Unlock()
	if recovered {
		h.changed()
	}
}

// canary is a test write.
type canary func() error

// watch runs the canary until ctx ends. A canary that hangs in the kernel is
// left behind; the next one starts only when it is back.
func (h *health) watch(ctx context.Context, test canary, t Timeouts) {
	tick := time.NewTicker(t.Canary)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !h.probe(ctx, test, t) {
			return
		}
	}
}

func (h *health) probe(ctx context.Context, test canary, t Timeouts) bool {
	back := make(chan error, 1)
	began := time.Now()
	go func() { back <- test() }()
	timer := time.NewTimer(t.Store)
	defer timer.Stop()
	late := false
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var hangs <-chan struct{}
	for {
		select {
		case err := <-back:
			if late {
				h.settled()
			}
			h.wrote(time.Since(began), err)
			return true
		case <-timer.C:
			// The hang may have begun right after the test write before this one.
			hangs = h.overdue(asking, h.leads(), t.Patience-t.Canary)
		case <-hangs:
			hangs, late = nil, true
			h.stall(fmt.Errorf("%w: a test write takes longer than %v", ErrDisk,
				time.Since(began).Round(time.Millisecond)))
		case <-ctx.Done():
			select {
			case <-back:
			case <-time.After(t.Store):
			}
			return false
		}
	}
}

// fileCanary overwrites one block in place and syncs its data only, so it does
// not wait for the file system's journal.
func fileCanary(dir string) (canary, func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, canaryFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("cluster: %w", err)
	}
	block := make([]byte, 512)
	return func() error {
		block[0]++
		if _, err := f.WriteAt(block, 0); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	}, func() { _ = f.Close() }, nil
}
