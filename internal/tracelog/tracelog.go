// Package tracelog writes log records as the plain one-line text that Neon's
// tools and people read:
//
//	2026-03-04T05:06:07.123456Z  INFO leading term=3
//
// Test runners of our users search these lines and fail on every WARN or ERROR
// they do not expect, so a record is always exactly one line, whatever its
// message and its values hold.
package tracelog

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// timeFormat is UTC in microseconds.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// New returns a logger that writes lines of at least the given level to w, each
// in one call.
func New(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(&handler{out: &output{w: w}, level: level})
}

// ParseLevel reads a level from the first word of a filter such as
// `info,raft=debug`, as RUST_LOG gives it. Unknown words mean INFO.
func ParseLevel(filter string) slog.Level {
	for part := range strings.SplitSeq(filter, ",") {
		switch strings.ToLower(strings.TrimSpace(part)) {
		case "trace", "debug":
			return slog.LevelDebug
		case "warn":
			return slog.LevelWarn
		case "error":
			return slog.LevelError
		}
	}
	return slog.LevelInfo
}

type output struct {
	mu sync.Mutex
	w  io.Writer
}

type handler struct {
	out    *output
	level  slog.Leveler
	prefix string // of attribute names: the open groups
	attrs  string // rendered, each with a leading blank
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.prefix += name + "."
	}
	return &next
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	var b strings.Builder
	for _, a := range attrs {
		appendAttr(&b, h.prefix, a)
	}
	next.attrs += b.String()
	return &next
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	when := r.Time
	if when.IsZero() {
		when = time.Now()
	}
	b.WriteString(when.UTC().Format(timeFormat))
	b.WriteString(levelWord(r.Level))
	appendText(&b, r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.prefix, a)
		return true
	})
	b.WriteByte('\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, b.String())
	return err
}

func levelWord(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return " ERROR "
	case l >= slog.LevelWarn:
		return "  WARN "
	case l >= slog.LevelInfo:
		return "  INFO "
	default:
		return " DEBUG "
	}
}

func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			appendAttr(b, prefix, inner)
		}
		return
	}
	b.WriteByte(' ')
	appendText(b, prefix+a.Key)
	b.WriteByte('=')
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().UTC().Format(timeFormat)
	}
	if text == "" || strings.ContainsFunc(text, needsQuotes) {
		text = strconv.Quote(text)
	}
	b.WriteString(text)
}

func needsQuotes(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }

// appendText writes a message, with what would break the line escaped.
func appendText(b *strings.Builder, s string) {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		b.WriteString(s)
		return
	}
	quoted := strconv.Quote(s)
	b.WriteString(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`))
}
