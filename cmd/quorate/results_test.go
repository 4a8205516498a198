package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/internal/results"
	"quorate/testcluster/bench"
)

// quorate runs a command and returns what it printed.
func quorate(args ...string) (string, error) {
	cmd := newRoot()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

// keepRun writes a run with one ratio into a directory.
func keepRun(t *testing.T, dir, revision string, day int, ratio float64) {
	r := results.Begin("/nowhere", "ci", "quorate bench")
	r.Revision, r.Time = revision, time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
	found := results.Values("create.rate.ratio", "create", results.Times, results.More, ratio)
	if ratio == 0 {
		found = results.Values("create.rate", "create", "shards/s", results.More, 1000)
	}
	r.Suites = []results.Suite{{Name: "requests", Data: []results.Result{found}}}
	if err := (&output{dir: dir}).keep(r); err != nil {
		t.Fatal(err)
	}
}

func TestResultsAreKeptListedComparedAndJudged(t *testing.T) {
	dir, db := t.TempDir(), filepath.Join(t.TempDir(), "r.db")
	keepRun(t, dir, "aaaa", 1, 1.05)
	keepRun(t, dir, "bbbb", 2, 0.7)
	keepRun(t, dir, "cccc", 3, 0)
	for _, c := range []struct {
		args []string
		want string
		err  error
	}{
		{[]string{"ingest", dir}, "taken in", nil},
		{[]string{"ingest", dir}, "there already", nil},
		{[]string{"list"}, "cccc", nil},
		{[]string{"list", "create.rate"}, "1,000 shards/s", nil},
		{[]string{"list", "--platform", "staging"}, "", nil},
		{[]string{"report", "aaaa", "--html", filepath.Join(dir, "report", "a.html")}, "", nil},
		{[]string{"compare", "aaaa", "bbbb"}, "0.667", nil},
		{[]string{"regressions", "--commit", "aaaa"}, "1 ratios, none got worse", nil},
		{[]string{"regressions", "--commit", "bbbb"}, "before 1.050", errRegressed},
		{[]string{"regressions", "--commit", "bbbb", "--result", "locate.cpu"}, "none", nil},
		{[]string{"regressions", "--commit", "bbbb", "--result", "create.rate"}, "", errRegressed},
		{[]string{"regressions"}, "", errNoRatios},
	} {
		out, err := quorate(append([]string{"results", "--database", db}, c.args...)...)
		if !errors.Is(err, c.err) || !strings.Contains(out, c.want) {
			t.Errorf("%v: %v, want %v; %q is to be in\n%s", c.args, err, c.err, c.want, out)
		}
	}
}

func TestWhatIsNoRunIsRefusedWithItsName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(file, []byte(`{"a": 1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(t.TempDir(), "r.db")
	if _, err := quorate("results", "--database", db, "ingest", file); err == nil ||
		!strings.Contains(err.Error(), "x.json") {
		t.Errorf("%v", err)
	}
	if _, err := quorate("bench", "-o", "xml"); err == nil ||
		!strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("%v", err)
	}
}

// TestARunIsPrintedInEachForm: and one that has missed a goal is an error in each.
func TestARunIsPrintedInEachForm(t *testing.T) {
	r := results.Begin("/nowhere", "ci", "quorate bench")
	r.Suites = []results.Suite{{Name: "requests", Title: "Requests", Data: []results.Result{
		results.Values("create.rate", "create", "shards/s", results.More, 1000).
			Want(results.Median, 4800),
	}}}
	for form, want := range map[string]string{
		formatText: "commit", formatJSON: `"suit": "requests"`,
		formatBenchstat: "BenchmarkCreate.rate 1 1000 shards/s",
	} {
		cmd := newRoot()
		var out bytes.Buffer
		cmd.SetOut(&out)
		err := (&output{format: form}).measured(cmd, r, nil)
		if !errors.Is(err, bench.ErrMissed) || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v, %q is to be in\n%s", form, err, want, out.String())
		}
	}
}
