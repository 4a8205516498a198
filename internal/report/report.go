package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"quorate/internal/results"
)

//go:embed page.html
var page string

var pageTemplate = template.Must(template.New("page").Parse(page))

// figure is one picture of the page.
type figure struct {
	Title, Text string
	SVG         template.HTML // made here or by a controller that was measured, never by others
	Foreign     bool          // has its own colours
	Keys        []key
}

// cell is what was found with one number of members.
type cell struct{ Median, Spread, More, Verdict string }

// row is one result, with a cell for each number of members.
type row struct {
	results.Row
	Cells []cell
}

// suite is the table of one part.
type suite struct {
	Title, Noise, Took string
	Members            []string
	Rows, Ratios       []row
}

// run is everything of one run.
type run struct {
	About, Command, Against string
	Remote                  bool
	Missed, Judged          int
	Suites                  []suite
}

// Write writes the page about runs.
func Write(to io.Writer, runs ...*results.Run) error {
	var data struct {
		Runs  []run
		Plots []figure
		Fires []figure
	}
	for _, r := range runs {
		data.Runs = append(data.Runs, tables(r))
		plots, err := pictures(r)
		if err != nil {
			return err
		}
		data.Plots = append(data.Plots, plots...)
		for _, d := range r.Drawings {
			at := max(strings.Index(d.SVG, "<svg"), 0)
			data.Fires = append(data.Fires, figure{
				Title: d.Title, SVG: template.HTML(d.SVG[at:]), Foreign: true,
			})
		}
	}
	if err := pageTemplate.Execute(to, data); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// tables makes the tables of a run.
func tables(r *results.Run) run {
	out := run{
		About: r.About(), Command: r.Command, Remote: r.RemoteCluster, Missed: r.Missed(),
		Judged: r.Judged(),
	}
	if r.Against != "" {
		out.Against = r.Against[:min(10, len(r.Against))]
	}
	for _, s := range r.Suites {
		t := suite{
			Title: s.Title, Noise: s.Noise.String(), Took: results.Format(s.Took, results.Seconds),
		}
		members, rows := results.Rows(s.Data)
		t.Members = members
		for _, r := range rows {
			if strings.HasSuffix(r.Name, results.RatioSuffix) {
				t.Ratios = append(t.Ratios, row{r, cells(r)})
			} else {
				t.Rows = append(t.Rows, row{r, cells(r)})
			}
		}
		out.Suites = append(out.Suites, t)
	}
	return out
}

// cells prints what was found with each number of members.
func cells(r results.Row) (list []cell) {
	for _, d := range r.Cells {
		if d == nil {
			list = append(list, cell{})
			continue
		}
		c := cell{Median: results.Format(d.Median, d.Unit)}
		if d.N > 1 {
			c.Spread = fmt.Sprintf("%s – %s", results.Format(d.Min, d.Unit),
				results.Format(d.Max, d.Unit))
			c.More = fmt.Sprintf("n = %d", d.N)
		}
		if d.N >= 100 { // of fewer it is the largest
			c.More = fmt.Sprintf("p99 %s, n = %d", results.Format(d.P99, d.Unit), d.N)
		}
		switch {
		case d.N == 0:
			c = cell{Median: "no value", Verdict: "missed"}
		case d.Missed():
			c.Verdict = "missed"
		case len(d.Goals) > 0:
			c.Verdict = "ok"
		}
		list = append(list, c)
	}
	return list
}

// label is the name of a result in a plot.
func label(r results.Result) string {
	name := strings.TrimPrefix(r.Name, "gap.")
	if m := r.Labels["members"]; m != "" {
		name += ", " + m
	}
	return name
}

// pictures draws what a run has to be drawn.
func pictures(r *results.Run) (list []figure, err error) {
	var waits, costs, memory []results.Result
	for _, s := range r.Suites {
		for _, d := range s.Data {
			switch {
			case strings.HasPrefix(d.Name, "gap.") && d.Unit == results.Seconds && d.N > 1:
				waits = append(waits, d)
			case s.Name == "size" && d.Unit == results.Seconds:
				costs = append(costs, d)
			case s.Name == "size" && d.Unit == results.Bytes:
				memory = append(memory, d)
			}
		}
	}
	draw := func(title, text string, f func() (string, []key, error)) {
		svg, keys, e := f()
		if e != nil {
			err = e
			return
		}
		list = append(list, figure{Title: title, Text: text, SVG: template.HTML(svg), Keys: keys})
	}
	if len(waits) > 0 {
		draw("Longest time without an acknowledged write", "Around each event, and in the second "+
			"before it; with the number of members. A point for each event, a bar for the median.",
			func() (string, []key, error) { return gaps(waits) })
	}
	for _, s := range r.Series {
		draw(s.Title, "What was acknowledged in each tenth of a second, and what was done.",
			func() (string, []key, error) { return overTime(s) })
	}
	if len(costs) > 0 {
		draw("The cost of a change over the number of shards",
			"Medians of the processor time of all controllers, and of the time until the answer.",
			func() (string, []key, error) { return overSize(costs, "milliseconds", 1000) })
	}
	if len(memory) > 0 {
		draw("Memory over the number of shards", "Resident bytes of one controller per shard.",
			func() (string, []key, error) { return overSize(memory, "bytes per shard", 1) })
	}
	return list, err
}
