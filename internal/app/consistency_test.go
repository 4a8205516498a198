package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/internal/logbuffer"
)

// exposed is the series of a collector in text, without comments.
func exposed(t *testing.T, all ...prometheus.Collector) string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(all...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			text.WriteString(f.GetName() + " " + m.String() + "\n")
		}
	}
	return text.String()
}

func TestALeaderChecksItsState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbuffer.Buffer
		var found atomic.Pointer[error]
		var checks atomic.Int32
		check := func() error {
			checks.Add(1)
			if err := found.Load(); err != nil {
				return *err
			}
			return nil
		}
		c := newConsistency(time.Hour, check,
			slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); c.run(ctx) }()
		at := func(d time.Duration) string {
			time.Sleep(d)
			synctest.Wait()
			return exposed(t, c.series()...)
		}
		if text := at(time.Hour + time.Minute); checks.Load() != 1 || log.String() != "" ||
			!strings.Contains(text, "inconsistent gauge:{value:0}") {
			t.Errorf("%d checks: %s\n%s", checks.Load(), text, log.String())
		}
		owners := errors.New("two owners")
		found.Store(&owners)
		if text := at(time.Hour); checks.Load() != 2 ||
			!strings.Contains(text, "inconsistent gauge:{value:1}") ||
			!strings.Contains(log.String(), "level=WARN") ||
			!strings.Contains(log.String(), "two owners") {
			t.Errorf("%d checks: %s\n%s", checks.Load(), text, log.String())
		}
		found.Store(nil)
		if text := at(time.Hour); !strings.Contains(text, "inconsistent gauge:{value:0}") {
			t.Errorf("once it is good again: %s", text)
		}
		cancel()
		<-ended
		newConsistency(0, func() error { t.Error("checked"); return nil }, nil).run(t.Context())
	})
}
