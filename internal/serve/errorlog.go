package serve

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

const (
	// throttlePause is the pause between two lines of one kind.
	throttlePause = time.Minute

	// longestError is how much of one error is kept, in bytes. A panic has a stack.
	longestError = 8 << 10
)

// throttle lets one line a minute pass and counts the others.
type throttle struct {
	mu     sync.Mutex
	passed time.Time
	missed int
}

func newThrottle() *throttle { return &throttle{} }

// pass reports whether a line may pass, and how many did not since the last one.
func (t *throttle) pass() (ok bool, missed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.passed.IsZero() || now.Sub(t.passed) >= throttlePause {
		missed, t.missed, t.passed = t.missed, 0, now
		return true, missed
	}
	t.missed++
	return false, 0
}

// errorKind is one kind of what http.Server says of connections. The library has no
// values for them, only texts.
type errorKind struct {
	prefix   string
	level    slog.Level
	throttle *throttle
}

// errorLog passes on what http.Server has to say, each kind at most once a minute.
type errorLog struct {
	log   *slog.Logger
	kinds []errorKind
}

// newErrorLog makes the ErrorLog of an http.Server. A handshake that fails is the
// client's doing; descriptors that run out, and panics, are for the operator.
func newErrorLog(to *slog.Logger) *log.Logger {
	return log.New(&errorLog{log: to, kinds: []errorKind{
		{"http: Accept error", slog.LevelWarn, newThrottle()},
		{"http: TLS handshake error", slog.LevelInfo, newThrottle()},
		{"http: panic", slog.LevelError, newThrottle()},
		{"", slog.LevelDebug, newThrottle()},
	}}, "", 0)
}

func (e *errorLog) Write(line []byte) (int, error) {
	for _, k := range e.kinds {
		if !bytes.HasPrefix(line, []byte(k.prefix)) {
			continue
		}
		if ok, missed := k.throttle.pass(); ok {
			text := bytes.TrimSpace(line[:min(len(line), longestError)])
			e.log.Log(context.Background(), k.level, "HTTP server: "+string(text),
				"not_told", missed)
		}
		break
	}
	return len(line), nil
}
