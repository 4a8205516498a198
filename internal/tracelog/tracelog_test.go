package tracelog

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestLineCarriesTimeLevelMessageAndAttributes(t *testing.T) {
	var out bytes.Buffer
	log := New(&out, slog.LevelInfo).With("server", "a b").WithGroup("raft")
	log.Info("leading", "term", 3, slog.Group("disk", "err", errors.New("x=\"1\"")))
	want := regexp.MustCompile(
		`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z  INFO leading server="a b" raft\.term=3 raft\.disk\.err="x=\\"1\\""\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got %q", out.String())
	}
}

func TestRecordIsAlwaysOneLine(t *testing.T) {
	var out bytes.Buffer
	New(&out, slog.LevelInfo).Info("first\n2026-01-01T00:00:00Z ERROR forged", "k\n", "v\nERROR",
		"e", "")
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("%d line ends in %q", got, out.String())
	}
}

func TestLevelIsHonoured(t *testing.T) {
	var out bytes.Buffer
	log := New(&out, ParseLevel("warn,h2=debug"))
	log.Info("quiet")
	log.Warn("loud")
	if s := out.String(); strings.Contains(s, "quiet") || !strings.Contains(s, "  WARN loud") {
		t.Errorf("got %q", s)
	}
	for filter, want := range map[string]slog.Level{
		"": slog.LevelInfo, "info": slog.LevelInfo, "debug": slog.LevelDebug,
		"TRACE": slog.LevelDebug, "nonsense": slog.LevelInfo,
		"error,storage_controller=info": slog.LevelInfo,
		"storage_controller=debug,warn": slog.LevelDebug,
		"info,h2=trace":                 slog.LevelInfo, "off": off, "debug, warn": slog.LevelWarn,
	} {
		if got := ParseLevel(filter); got != want {
			t.Errorf("%q is read as %s, want %s", filter, got, want)
		}
	}
}

// Scanners for warnings and errors look for these words.
func TestOthersWordsDoNotLookLikeLevels(t *testing.T) {
	var out bytes.Buffer
	log := New(&out, slog.LevelInfo)
	log.Info("compute says", "err", "db error: ERROR: no such WARN")
	if s := out.String(); strings.Contains(s, " ERROR") || strings.Contains(s, " WARN") ||
		!strings.Contains(s, "db error: error: no such warn") {
		t.Errorf("got %q", s)
	}
	log.Warn("compute says", "err", "db error: ERROR")
	if s := out.String(); !strings.Contains(s, "  WARN compute says err=\"db error: ERROR\"") {
		t.Errorf("got %q", s)
	}
}
