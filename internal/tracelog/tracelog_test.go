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
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z  INFO leading server="a b" raft\.term=3 raft\.disk\.err="x=\\"1\\""\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got %q", out.String())
	}
}

func TestRecordIsAlwaysOneLine(t *testing.T) {
	var out bytes.Buffer
	New(&out, slog.LevelInfo).Info("first\n2026-01-01T00:00:00Z ERROR forged", "k\n", "v\nERROR", "e", "")
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
	if ParseLevel("info") != slog.LevelInfo || ParseLevel("") != slog.LevelInfo || ParseLevel("debug") != slog.LevelDebug {
		t.Error("levels of RUST_LOG are misread")
	}
}
