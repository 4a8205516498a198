package repeats

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// output is what was told, without times.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

// take is what was told since it was last called.
func (o *output) take() (lines []string) {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(o.b.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	o.b.Reset()
	return lines
}

// scene runs a test in virtual time with a Handler at a level.
func scene(t *testing.T, level slog.Level, test func(*testing.T, *Handler, *slog.Logger, *output)) {
	synctest.Test(t, func(t *testing.T) {
		out := &output{}
		h := New(slog.NewTextHandler(out, &slog.HandlerOptions{
			Level: level,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.Run(ctx) }()
		test(t, h, slog.New(h).With("server", "a"), out)
		cancel()
		<-done
	})
}

func demand(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestALineThatRepeatsIsToldOnceAMinuteAndWhenItIsOver(t *testing.T) {
	scene(t, slog.LevelInfo, func(t *testing.T, _ *Handler, log *slog.Logger, out *output) {
		time.Sleep(300 * time.Millisecond) // not in the same instant as Run
		for i := range 150 {
			log.Info("cannot reach", "peer", "b", "try", i)
			if i == 0 {
				demand(t, "the first", out.take(),
					`level=INFO msg="cannot reach" server=a peer=b try=0`)
			}
			time.Sleep(time.Second)
		}
		demand(t, "two and a half minutes", out.take(),
			`level=INFO msg="cannot reach (repeated)" server=a peer=b try=64 times=64 in=1m5s`,
			`level=INFO msg="cannot reach (repeated)" server=a peer=b try=124 times=60 in=1m0s`)
		time.Sleep(time.Minute)
		demand(t, "the end", out.take(),
			`level=INFO msg="cannot reach (over)" server=a peer=b try=149 times=150 in=2m29s`)
		log.Info("cannot reach", "peer", "b", "try", 0)
		demand(t, "again", out.take(), `level=INFO msg="cannot reach" server=a peer=b try=0`)
	})
}

func TestALineThatDoesNotRepeatIsToldAsItIs(t *testing.T) {
	scene(t, slog.LevelInfo, func(t *testing.T, _ *Handler, log *slog.Logger, out *output) {
		log.Debug("not told")
		log.Info("cannot reach", "peer", "b")
		log.Info("cannot reach", "peer", "c")
		log.Info("something else", "peer", "b")
		time.Sleep(10 * time.Minute)
		demand(t, "lines about others", out.take(),
			`level=INFO msg="cannot reach" server=a peer=b`,
			`level=INFO msg="cannot reach" server=a peer=c`,
			`level=INFO msg="something else" server=a peer=b`)
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	scene(t, slog.LevelInfo, func(t *testing.T, h *Handler, log *slog.Logger, out *output) {
		kept := func() int {
			h.lines.mu.Lock()
			defer h.lines.mu.Unlock()
			return len(h.lines.kept)
		}
		for i := range 3 * maxKept {
			log.Info("odd", "from", fmt.Sprint(i))
		}
		if n := kept(); n != maxKept {
			t.Errorf("%d lines are remembered", n)
		}
		if n := len(out.take()); n != maxKept {
			t.Errorf("%d lines were told", n)
		}
		time.Sleep(2 * quiet)
		synctest.Wait()
		if n := kept(); n != 0 {
			t.Errorf("%d lines are remembered when all is over", n)
		}
		if n := len(out.take()); n != 1 {
			t.Errorf("%d lines told that it is over", n)
		}
	})
}

func TestMutedLinesAreDebugLines(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelInfo: 0, slog.LevelDebug: 100} {
		scene(t, level, func(t *testing.T, h *Handler, log *slog.Logger, out *output) {
			log.Info("cannot reach", "peer", "b")
			out.take()
			h.Mute(true)
			h.Mute(true)
			for range 100 {
				log.Info("cannot reach", "peer", "b")
				time.Sleep(time.Second)
			}
			if n := len(out.take()); n != want {
				t.Errorf("at %s: %d lines", level, n)
			}
			h.Mute(false)
			log.Info("cannot reach", "peer", "b")
			if n := len(out.take()); n != 1 {
				t.Errorf("at %s: %d lines when it is muted no more", level, n)
			}
		})
	}
}
