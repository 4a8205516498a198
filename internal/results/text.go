package results

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
)

// WriteTable prints a suite for people.
func (s Suite) WriteTable(to io.Writer) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.SetTitle(s.Title)
	t.AppendHeader(table.Row{
		"result", "what", "n", "min", "median", "mean", "p99", "max", "goal", "", "note",
	})
	for _, r := range s.Data {
		t.AppendRow(r.row())
	}
	t.SetCaption("%s", s.Noise)
	fmt.Fprintln(to, t.Render())
}

func (r Result) row() table.Row {
	name := r.Name
	if labels := r.LabelText(); labels != "" {
		name += " " + labels
	}
	cells := table.Row{name, r.Title}
	switch {
	case r.N == 0:
		cells = append(cells, 0, "", "no value", "", "", "")
	case r.N == 1:
		cells = append(cells, 1, "", Format(r.Median, r.Unit), "", "", "")
	default:
		cells = append(cells, r.N)
		for _, s := range []Stat{Min, Median, Mean, P99, Max} {
			cells = append(cells, Format(r.Of(s), r.Unit))
		}
	}
	return append(cells, r.GoalText(), r.verdict(), r.Note)
}

func (r Result) verdict() string {
	switch {
	case r.Missed():
		return "MISSED"
	case len(r.Goals) > 0:
		return "ok"
	}
	return ""
}

func (n Noise) String() string {
	return fmt.Sprintf("beside it: steal %.1f %%, load %.1f, fsync %s, at most %s", n.Steal, n.Load,
		Format(n.FsyncMedian, Seconds), Format(n.FsyncMax, Seconds))
}

// About describes the run in one line.
func (r *Run) About() string {
	commit := r.Revision[:min(len(r.Revision), 10)]
	if r.Modified {
		commit += " with changes"
	}
	return fmt.Sprintf("%s, commit %s, %s: %d × %s, %.0f GiB, Linux %s, %s",
		r.Time.Format("2006-01-02 15:04 UTC"), commit, r.Platform, r.Machine.CPUs, r.Machine.Model,
		float64(r.Machine.Memory)/(1<<30), r.Machine.Kernel, r.Machine.Go)
}

// WriteTables prints the whole run for people.
func (r *Run) WriteTables(to io.Writer) {
	fmt.Fprintln(to, r.About())
	for _, s := range r.Suites {
		s.WriteTable(to)
	}
}

// WriteBenchstat prints the run as benchstat reads it: each sample is a line.
func (r *Run) WriteBenchstat(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\ncommit: %s\nplatform: %s\n", r.Machine.OS,
		r.Machine.Arch, r.Machine.Model, r.Revision, r.Platform)
	told := map[string]bool{}
	for _, s := range r.Suites {
		for _, d := range s.Data {
			unit := benchUnit(d.Unit)
			if !told[unit] && d.Better != Neither {
				fmt.Fprintf(&b, "Unit %s better=%s\n", unit,
					map[Better]string{Less: "lower", More: "higher"}[d.Better])
			}
			told[unit] = true
			name := "Benchmark" + strings.ToUpper(d.Name[:1]) + d.Name[1:]
			if labels := d.LabelText(); labels != "" {
				name += "/" + strings.ReplaceAll(labels, ",", "/")
			}
			for _, v := range d.Samples {
				fmt.Fprintf(&b, "%s 1 %.9g %s\n", strings.ReplaceAll(name, " ", "_"), v, unit)
			}
		}
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// benchUnit is the unit as benchstat knows it.
func benchUnit(unit string) string {
	switch unit {
	case Seconds:
		return "sec/op"
	case Percent:
		return "%core"
	}
	return strings.ReplaceAll(unit, " ", "-")
}
