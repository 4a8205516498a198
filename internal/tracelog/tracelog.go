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

// off is above every level.
const off = slog.LevelError + 1

var levels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "error": slog.LevelError, "off": off,
}

// ParseLevel reads a level from a filter such as `info,h2=debug`, as RUST_LOG gives
// it: the one for the target storage_controller, or else the general one. Without
// either it is INFO.
func ParseLevel(filter string) slog.Level {
	level, own := slog.LevelInfo, false
	for part := range strings.SplitSeq(filter, ",") {
		target, word, named := strings.Cut(strings.TrimSpace(part), "=")
		if !named {
			target, word = "", target
		}
		l, ok := levels[strings.ToLower(word)]
		switch {
		case !ok:
		case target == "storage_controller":
			level, own = l, true
		case target == "" && !own:
			level = l
		}
	}
	return level
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
	appendText(&b, r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.prefix, a)
		return true
	})
	text := b.String()
	if r.Level < slog.LevelWarn {
		text = quiet.Replace(text)
	}
	line := when.UTC().Format(timeFormat) + levelWord(r.Level) + text + "\n"
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, line)
	return err
}

// quiet lowers the words by which scanners find the lines of warnings and errors,
// where they stand in the text of another program that is only information.
var quiet = strings.NewReplacer(" ERROR", " error", " WARN", " warn")

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
