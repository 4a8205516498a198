package resultsdb

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what a test of a Grafana dashboard needs of one.
type dashboard struct {
	Templating struct {
		List []struct{ Name, Type, Query string }
	}
	Annotations struct {
		List []struct{ Target struct{ RawSQL string } }
	}
	Panels []struct {
		Title   string
		Targets []struct{ RawSQL, Format string }
	}
}

// TestTheDashboardReadsTheDatabase: each of its queries runs on both databases, finds something,
// is of one platform alone, and leaves no variable that the dashboard does not have.
func TestTheDashboardReadsTheDatabase(t *testing.T) {
	raw, err := os.ReadFile("../../docs/grafana-results.json")
	if err != nil {
		t.Fatal(err)
	}
	var dash dashboard
	if err := json.Unmarshal(raw, &dash); err != nil {
		t.Fatal(err)
	}
	type query struct{ title, sql, format string }
	var queries []query
	variables := map[string]string{
		"__from": "1700000000000", "__to": "1900000000000", "name": "create.rate",
		"platform": "ci", "commit": "cccc",
	}
	for _, v := range dash.Templating.List {
		if v.Type == "query" {
			queries = append(queries, query{"variable " + v.Name, v.Query, ""})
			if variables[v.Name] == "" {
				t.Errorf("the test has no value for variable %s", v.Name)
			}
		}
	}
	for _, a := range dash.Annotations.List {
		queries = append(queries, query{"annotation", a.Target.RawSQL, "time"})
	}
	for _, p := range dash.Panels {
		for _, q := range p.Targets {
			queries = append(queries, query{p.Title, q.RawSQL, q.Format})
		}
	}
	variable := regexp.MustCompile(`\$\w+`)
	databases(t, func(t *testing.T, url string) {
		d := open(t, url)
		ingest(t, d, run(1, "aaaa", "ci", 2), run(2, "bbbb", "staging", 4),
			run(3, "cccc", "ci", 2.1))
		for _, q := range queries {
			if !strings.Contains(q.sql, "'$platform'") && q.title != "variable platform" {
				t.Errorf("%s: the query is not of one platform", q.title)
			}
			filled := variable.ReplaceAllStringFunc(q.sql, func(name string) string {
				value := variables[name[1:]]
				if value == "" {
					t.Errorf("%s: there is no variable %s", q.title, name)
				}
				return value
			})
			found, columns := rowsOf(t, d, filled)
			if len(found) == 0 {
				t.Errorf("%s: nothing is found by %s", q.title, filled)
			}
			for _, row := range found {
				if slices.Contains(row, "staging") && q.title != "variable platform" ||
					slices.Contains(row, "bbbb") {
					t.Errorf("%s: it finds another platform: %v", q.title, row)
				}
			}
			if q.format == "time_series" &&
				!slices.Equal(columns, []string{"time", "metric", "value"}) {
				t.Errorf("%s: columns %v", q.title, columns)
			}
		}
	})
}

// rowsOf runs a query and returns its rows.
func rowsOf(t *testing.T, d *DB, sql string) (found [][]any, columns []string) {
	rows, err := d.db.QueryContext(t.Context(), sql)
	if err != nil {
		t.Errorf("%v in %s", err, sql)
		return nil, nil
	}
	defer rows.Close()
	if columns, err = rows.Columns(); err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Errorf("%v in %s", err, sql)
		}
		found = append(found, row)
	}
	if err := rows.Err(); err != nil {
		t.Errorf("%v in %s", err, sql)
	}
	return found, columns
}
