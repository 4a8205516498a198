// Package repeats folds lines of a log that repeat: one is told at once, then once a
// minute with how often it came, then once when it is over. What raft says about a peer
// that is gone would otherwise fill the log for as long as it is away.
//
// It knows messages and the name of whom they are about, and nothing of what they mean.
package repeats

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// interval is between two lines about what goes on.
	interval = time.Minute
	// quiet is after how long without a line it is over. Raft's pauses between two tries
	// grow to ten seconds.
	quiet = 30 * time.Second
	// step is how often Run looks.
	step = 5 * time.Second
	// maxKept bounds the lines that are remembered. Further ones count as one.
	maxKept = 256
)

// subjects are the attributes that name whom a line is about. Lines with the same
// message about two of them are told apart.
var subjects = map[string]bool{
	"peer": true, "server-id": true, "target": true, "from": true, "candidate": true,
}

// Handler passes lines on to another slog.Handler, folded. Those below Info are passed on
// as they are. Run has to run beside it.
type Handler struct {
	inner slog.Handler
	lines *lines // shared with the handlers that are derived from this one
}

// lines are the ones that repeat.
type lines struct {
	muted atomic.Bool

	mu   sync.Mutex
	kept map[key]*line
}

type key struct{ message, subject string }

// line is one that was told and may repeat.
type line struct {
	first, last, written time.Time
	total, suppressed    int
	record               slog.Record // the newest
	inner                slog.Handler
}

// New makes a Handler that passes lines on to inner.
func New(inner slog.Handler) *Handler {
	return &Handler{inner: inner, lines: &lines{kept: make(map[key]*line)}}
}

// Enabled is part of slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.inner.Enabled(ctx, l) }

// WithAttrs is part of slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{inner: h.inner.WithAttrs(attrs), lines: h.lines}
}

// WithGroup is part of slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{inner: h.inner.WithGroup(name), lines: h.lines}
}

// Handle is part of slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo || h.lines.muted.Load() {
		r.Level = min(r.Level, slog.LevelDebug)
		if !h.inner.Enabled(ctx, r.Level) {
			return nil
		}
		return h.inner.Handle(ctx, r)
	}
	if h.lines.note(r, h.inner) {
		return h.inner.Handle(ctx, r)
	}
	return nil
}

// Mute makes all lines debug lines, or no more.
func (h *Handler) Mute(yes bool) {
	if h.lines.muted.Swap(yes) == yes || !yes {
		return
	}
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	clear(h.lines.kept)
}

// note reports whether a line is to be told now.
func (l *lines) note(r slog.Record, inner slog.Handler) bool {
	k := key{message: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if subjects[a.Key] {
			k.subject = a.Value.String()
		}
		return k.subject == ""
	})
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.kept[k]; !known && len(l.kept) >= maxKept-1 {
		k = key{message: "further lines"}
	}
	x := l.kept[k]
	if x == nil {
		x = &line{first: now, written: now}
		l.kept[k] = x
	} else {
		x.suppressed++
	}
	x.last, x.record, x.inner = now, r.Clone(), inner
	x.total++
	return x.total == 1
}

// Run tells of lines that go on, and of those that are over, until ctx ends.
func (h *Handler) Run(ctx context.Context) {
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, t := range h.lines.due(time.Now()) {
				_ = t.to.Handle(ctx, t.record)
			}
		case <-ctx.Done():
			return
		}
	}
}

// report is a line to write, and the handler that writes it.
type report struct {
	to     slog.Handler
	record slog.Record
}

// due takes what is to be told by now.
func (l *lines) due(now time.Time) (out []report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.kept, func(_ key, x *line) bool {
		over := now.Sub(x.last) >= quiet
		switch {
		case over && x.total > 1:
			out = append(out, x.about(now, " (over)", x.total, x.last.Sub(x.first)))
		case !over && x.suppressed > 0 && now.Sub(x.written) >= interval:
			out = append(out, x.about(now, " (repeated)", x.suppressed, now.Sub(x.written)))
			x.written, x.suppressed = now, 0
		}
		return over
	})
	return out
}

// about makes the line that says how often this one came, and in how long.
func (x *line) about(now time.Time, what string, times int, in time.Duration) report {
	r := slog.NewRecord(now, x.record.Level, x.record.Message+what, 0)
	x.record.Attrs(func(a slog.Attr) bool { r.AddAttrs(a); return true })
	r.AddAttrs(slog.Int("times", times), slog.String("in", in.Round(time.Second).String()))
	return report{x.inner, r}
}
