package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// durations are measured values of one kind.
type durations []time.Duration

// quantile is the value that a share q of the values does not exceed: with few
// values the largest ones, never a guess between two.
func (d durations) quantile(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Clone(d)
	slices.Sort(s)
	at := int(q*float64(len(s))+0.9999999) - 1
	return s[min(max(at, 0), len(s)-1)]
}

func (d durations) median() time.Duration { return d.quantile(0.5) }

// figure is one row of a report.
type figure struct {
	name   string
	n      int    // how many values; 0 for a single reading
	min    string // the values, empty where there is but one
	median string // or the one value
	p99    string
	max    string
	target string
	missed bool
	note   string
}

// spread makes a figure of durations.
func spread(name string, d durations) figure {
	if len(d) == 0 {
		return figure{name: name, median: "no value", missed: true}
	}
	return figure{
		name: name, n: len(d), min: short(slices.Min(d)), median: short(d.median()),
		p99: short(d.quantile(0.99)), max: short(slices.Max(d)),
	}
}

// single makes a figure of one value.
func single(name, value string) figure { return figure{name: name, median: value} }

// want says what is asked for and whether it was reached.
func (f figure) want(target string, reached bool) figure {
	f.target, f.missed = target, f.missed || !reached
	return f
}

func (f figure) noting(format string, args ...any) figure {
	f.note = fmt.Sprintf(format, args...)
	return f
}

// short prints a duration with three digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// report prints the figures and tells how many missed their target.
func report(out io.Writer, title string, figures []figure) (missed int) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.SetTitle(title)
	t.AppendHeader(table.Row{"figure", "n", "min", "median", "p99", "max", "target", "", "note"})
	for _, f := range figures {
		verdict := ""
		switch {
		case f.missed:
			verdict = "MISSED"
			missed++
		case f.target != "":
			verdict = "ok"
		}
		n := ""
		if f.n > 0 {
			n = fmt.Sprint(f.n)
		}
		t.AppendRow(table.Row{f.name, n, f.min, f.median, f.p99, f.max, f.target, verdict, f.note})
	}
	fmt.Fprintln(out, t.Render())
	return missed
}

// machine describes what the figures were measured on.
func machine() string {
	load := "?"
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.Trim(name, " \t:\n")
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d × %s, %s, load average %s",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), model, runtime.Version(),
		load)
}

func sorted(d durations) durations {
	slices.Sort(d)
	return d
}
