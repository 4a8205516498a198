package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
		var log bytes.Buffer
		var found error
		done := 0
		c := newConsistency(time.Hour, func() error { done++; return found },
			slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); c.run(ctx) }()
		at := func(d time.Duration) string {
			time.Sleep(d)
			synctest.Wait()
			return exposed(t, c.series()...)
		}
		if text := at(time.Hour + time.Minute); done != 1 || log.Len() > 0 ||
			!strings.Contains(text, "inconsistent gauge:{value:0}") {
			t.Errorf("%d checks: %s\n%s", done, text, log.String())
		}
		found = errors.New("two owners")
		if text := at(time.Hour); done != 2 ||
			!strings.Contains(text, "inconsistent gauge:{value:1}") ||
			!strings.Contains(log.String(), "level=WARN") ||
			!strings.Contains(log.String(), "two owners") {
			t.Errorf("%d checks: %s\n%s", done, text, log.String())
		}
		found = nil
		if text := at(time.Hour); !strings.Contains(text, "inconsistent gauge:{value:0}") {
			t.Errorf("once it is good again: %s", text)
		}
		cancel()
		<-ended
		newConsistency(0, func() error { t.Error("checked"); return nil }, nil).run(t.Context())
	})
}
