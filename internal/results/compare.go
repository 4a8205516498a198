package results

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
)

// WriteComparison prints two runs side by side. The ratio is of their medians, after to before.
// Two runs are not one: what the machine did beside each is printed too.
func WriteComparison(to io.Writer, before, after *Run) error {
	then := map[string]Result{}
	for _, s := range before.Suites {
		for _, r := range s.Data {
			then[s.Name+" "+r.Key()] = r
		}
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"result", "before", "spread", "after", "spread", "ratio", ""})
	spread := func(r Result) string {
		return Format(r.Min, r.Unit) + " … " + Format(r.Max, r.Unit)
	}
	for _, s := range after.Suites {
		t.AppendSeparator()
		for _, now := range s.Data {
			old, ok := then[s.Name+" "+now.Key()]
			if !ok || old.N == 0 || now.N == 0 {
				continue
			}
			ratio, verdict := "", ""
			if old.Median != 0 {
				ratio = fmt.Sprintf("%.3f", now.Median/old.Median)
				verdict = apart(old, now)
			}
			t.AppendRow(table.Row{
				now.Name + " " + now.LabelText(), Format(old.Median, old.Unit), spread(old),
				Format(now.Median, now.Unit), spread(now), ratio, verdict,
			})
		}
	}
	if before.Platform != after.Platform {
		fmt.Fprintf(to, "THE PLATFORMS DIFFER: %s and %s\n", before.Platform, after.Platform)
	}
	fmt.Fprintf(to, "before: %s\nafter:  %s\n", before.About(), after.About())
	_, err := fmt.Fprintln(to, t.Render())
	return err
}

// apart says which of two results is better, if no sample speaks against it.
func apart(old, now Result) string {
	less, more := now.Max < old.Min, now.Min > old.Max
	switch {
	case now.Better == Neither || !less && !more:
		return ""
	case less == (now.Better == Less):
		return "better"
	}
	return "WORSE"
}

// CountRatios counts the results that are ratios of two binaries.
func (r *Run) CountRatios() (n int) {
	for _, s := range r.Suites {
		for _, d := range s.Data {
			if d.Unit == Times {
				n++
			}
		}
	}
	return n
}
