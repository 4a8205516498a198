package resultsdb

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/internal/results"
)

// run is a run of a commit, a day after another for each number, with a ratio.
func run(day int, revision, platform string, ratio float64) *results.Run {
	r := results.Begin("/nowhere", platform, "quorate bench")
	r.Revision, r.Against = revision, "base"
	r.Time = time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
	r.Suites = []results.Suite{{
		Name: "requests", Title: "Requests", Took: 3,
		Data: []results.Result{
			results.Values("create.rate", "create", "shards/s", results.More, 100*ratio, 101*ratio).
				With("members", "3").Want(results.Median, 4800),
			results.Values("create.rate.ratio", "create", results.Times, results.More, ratio).
				With("members", "3").With("against", "base"),
		},
	}}
	return r
}

// databases calls a test with an empty database of each kind.
func databases(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "results.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, startPostgres(t)) })
}

func open(t *testing.T, url string) *DB {
	d, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func ingest(t *testing.T, d *DB, runs ...*results.Run) {
	for _, r := range runs {
		if fresh, err := d.Ingest(t.Context(), r); err != nil || !fresh {
			t.Fatalf("ingest %s: %v, %v", r.Revision, fresh, err)
		}
	}
}

// TestARunIsThereOnce: taken in twice, by two who opened the database one after the other.
func TestARunIsThereOnce(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		d := open(t, url)
		ingest(t, d, run(1, "aaaa", "ci", 1), run(2, "bbbb", "ci", 1))
		again := open(t, url)
		if fresh, err := again.Ingest(t.Context(), run(1, "aaaa", "ci", 1)); err != nil || fresh {
			t.Errorf("it was taken in again: %v, %v", fresh, err)
		}
		list, err := again.List(t.Context(), Which{})
		if err != nil || len(list) != 2 || list[0].Revision != "bbbb" || list[0].Results != 2 ||
			list[0].Missed != 1 {
			t.Errorf("list %+v, %v", list, err)
		}
		var n int
		if err := d.db.QueryRow("SELECT count(*) FROM perf_test_results").Scan(&n); err != nil ||
			n != 4 {
			t.Errorf("%d results, %v", n, err)
		}
	})
}

func TestRunsAreFoundByCommitAndPlatform(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		d := open(t, url)
		first := run(1, "aaaa1", "ci", 1)
		ingest(t, d, first, run(2, "aaaa2", "staging", 1), run(3, "bbbb", "ci", 2))
		got, err := d.Newest(t.Context(), Which{Run: "aaaa", Platform: "ci"})
		if err != nil || got.ID() != first.ID() {
			t.Errorf("got %+v, %v", got, err)
		}
		if got, err = d.Newest(t.Context(), Which{Run: first.ID()[:8]}); err != nil ||
			got.Revision != "aaaa1" {
			t.Errorf("got %+v, %v", got, err)
		}
		if _, err := d.Newest(t.Context(), Which{Run: "cccc"}); !errors.Is(err, ErrNone) {
			t.Errorf("found what is not there: %v", err)
		}
		list, err := d.List(t.Context(), Which{Name: "create.rate", Platform: "ci", Limit: 1})
		if err != nil || len(list) != 1 || list[0].Revision != "bbbb" {
			t.Errorf("list %+v, %v", list, err)
		}
		if list, err = d.List(t.Context(), Which{Name: "nothing"}); err != nil || len(list) != 0 {
			t.Errorf("list %+v, %v", list, err)
		}
	})
}

// TestARatioIsComparedWithTheOneBefore: of the same platform and another commit; without one
// with equal binaries.
func TestARatioIsComparedWithTheOneBefore(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		d := open(t, url)
		ingest(t, d, run(1, "aaaa", "ci", 2), run(2, "bbbb", "staging", 4))
		for _, c := range []struct {
			run  *results.Run
			want string
		}{
			{run(3, "cccc", "ci", 1.7), "1.700 (1.700 to 1.700 in 1 rounds), before 2.000"},
			{run(3, "cccc", "ci", 1.9), ""},
			{run(3, "cccc", "staging", 3), "before 4.000"},
			{run(3, "cccc", "other", 0.8), "before 1.000"},
			{run(3, "aaaa", "ci", 1.7), ""}, // the same commit again
		} {
			found, err := d.Regressions(t.Context(), c.run)
			if err != nil {
				t.Fatal(err)
			}
			var text string
			if len(found) > 0 {
				text = found[0].String()
			}
			if c.want == "" && text != "" || !strings.Contains(text, c.want) {
				t.Errorf("%s on %s: %q, want %q", c.run.Revision, c.run.Platform, text, c.want)
			}
		}
	})
}

func TestADatabaseThatCannotBeOpenedSaysWhy(t *testing.T) {
	for _, url := range []string{
		"postgres://127.0.0.1:1/x", filepath.Join(t.TempDir(), "missing", "results.db"),
	} {
		if _, err := Open(t.Context(), url); err == nil ||
			!strings.Contains(err.Error(), "bring the schema up to date") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
