package results

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
)

// membersLabel is the label that is a column of tables and not a row.
const membersLabel = "members"

// Row is one result as it was found with each number of members.
type Row struct {
	Name, Labels, Title, Note string
	Goals                     []string  // the first is of the most members
	Cells                     []*Result // in the order of the members; nil where there is none
}

// Rows puts results beside each other that differ only in the number of members, the most
// first.
func Rows(list []Result) (members []string, rows []Row) {
	found := map[string]bool{}
	for _, r := range list {
		found[r.Labels[membersLabel]] = true
	}
	members = slices.Sorted(maps.Keys(found))
	slices.Reverse(members)
	for _, r := range list {
		rest := maps.Clone(r.Labels)
		delete(rest, membersLabel)
		labels := Result{Labels: rest}.LabelText()
		at := slices.IndexFunc(rows,
			func(row Row) bool { return row.Name == r.Name && row.Labels == labels })
		if at < 0 {
			at = len(rows)
			rows = append(rows, Row{
				Name: r.Name, Labels: labels, Title: r.Title, Note: r.Note,
				Cells: make([]*Result, len(members)),
			})
		}
		row := &rows[at]
		row.Cells[slices.Index(members, r.Labels[membersLabel])] = &r
		if goal := r.GoalText(); goal != "" && !slices.Contains(row.Goals, goal) {
			if len(row.Goals) > 0 {
				goal = "with " + r.Labels[membersLabel] + ": " + goal
			}
			row.Goals = append(row.Goals, goal)
		}
	}
	return members, rows
}

// WriteGoals prints what has a goal, in one table.
func (r *Run) WriteGoals(to io.Writer) {
	var judged []Result
	for _, s := range r.Suites {
		for _, d := range s.Data {
			// Also what has none with this number of members, beside what has one.
			if slices.ContainsFunc(s.Data, func(other Result) bool {
				return other.Name == d.Name && len(other.Goals) > 0
			}) {
				judged = append(judged, d)
			}
		}
	}
	if len(judged) == 0 {
		return
	}
	members, rows := Rows(judged)
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	header := table.Row{"work", "result"}
	for _, m := range members {
		header = append(header, "members: "+m)
	}
	t.AppendHeader(append(header, "goal"))
	for _, row := range rows {
		cells := table.Row{row.Title, strings.TrimSpace(row.Name + " " + row.Labels)}
		for _, c := range row.Cells {
			cells = append(cells, c.judged())
		}
		t.AppendRow(append(cells, strings.Join(row.Goals, "; ")))
	}
	t.SetCaption("%s", fmt.Sprintf("%d of %d goals are missed", r.Missed(), r.Judged()))
	fmt.Fprintln(to, t.Render())
}

// judged is the values that goals are of, and the verdict.
func (r *Result) judged() string {
	switch {
	case r == nil:
		return ""
	case r.N == 0:
		return "no value  MISSED"
	}
	var values []string
	for _, g := range r.Goals {
		values = append(values, Format(r.Of(g.Of), r.Unit))
	}
	if len(values) == 0 {
		values = append(values, Format(r.Median, r.Unit))
	}
	return strings.TrimSpace(strings.Join(values, ", ") + "  " + r.verdict())
}

// Judged counts the results that have a goal.
func (r *Run) Judged() (n int) {
	for _, s := range r.Suites {
		for _, d := range s.Data {
			if len(d.Goals) > 0 {
				n++
			}
		}
	}
	return n
}
