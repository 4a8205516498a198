package results

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Better says which way a value is better, in the words of Neon's results.
type Better string

// The directions.
const (
	Less    Better = "lower_is_better"
	More    Better = "higher_is_better"
	Neither Better = "test_param" // it describes the measurement
)

// Units have at most ten letters, as a column of Neon's results has.
const (
	Seconds = "s"
	Bytes   = "B"
	Percent = "%" // of one core
	Times   = "x" // a ratio
	Count   = "count"
)

// maxSamples is how many samples a result keeps. Of more than that it keeps as many ranks,
// evenly spaced, the least and the largest among them.
const maxSamples = 1000

// Stat is one value of a summary.
type Stat string

// The values of a summary.
const (
	Min    Stat = "min"
	Median Stat = "median"
	Mean   Stat = "mean"
	P99    Stat = "p99"
	Max    Stat = "max"
)

// Summary is what is said of many samples. Quantiles are values that were measured: of fewer
// than a hundred, p99 is the largest.
type Summary struct {
	N      int     `json:"n"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Mean   float64 `json:"mean"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// Of is one value of the summary.
func (s Summary) Of(which Stat) float64 {
	switch which {
	case Min:
		return s.Min
	case Mean:
		return s.Mean
	case P99:
		return s.P99
	case Max:
		return s.Max
	}
	return s.Median
}

// Goal bounds one value of a summary, from above where less is better and from below where
// more is.
type Goal struct {
	Of    Stat    `json:"of"`
	Bound float64 `json:"bound"`
}

// Result is what was found of one thing. Name and Labels tell it from others, on every
// platform and at every commit.
type Result struct {
	Name   string            `json:"name"`  // such as create.rate
	Value  float64           `json:"value"` // the median
	Unit   string            `json:"unit"`
	Better Better            `json:"report"`
	Labels map[string]string `json:"labels,omitempty"` // such as members: 3

	Title string `json:"title"` // for people
	Summary
	Samples []float64 `json:"samples,omitempty"` // sorted by rank if there were more than 1,000
	Goals   []Goal    `json:"goals,omitempty"`
	Note    string    `json:"note,omitempty"`
}

// Values makes a result of samples.
func Values(name, title, unit string, better Better, samples ...float64) Result {
	r := Result{Name: name, Title: title, Unit: unit, Better: better}
	r.sum(samples)
	return r
}

// Durations makes a result of times, of which less is better.
func Durations(name, title string, d []time.Duration) Result {
	samples := make([]float64, len(d))
	for i, v := range d {
		samples[i] = v.Seconds()
	}
	return Values(name, title, Seconds, Less, samples...)
}

// sum makes the summary of samples and keeps them.
func (r *Result) sum(samples []float64) {
	r.Samples, r.Summary = samples, Summary{N: len(samples)}
	if len(samples) == 0 {
		return
	}
	sorted := slices.Sorted(slices.Values(samples))
	total := 0.0
	for _, v := range sorted {
		total += v
	}
	r.Summary = Summary{
		N: len(sorted), Min: sorted[0], Max: sorted[len(sorted)-1],
		Median: Quantile(sorted, 0.5), P99: Quantile(sorted, 0.99),
		Mean: total / float64(len(sorted)),
	}
	r.Value = r.Median
	if len(sorted) <= maxSamples {
		return
	}
	r.Samples = make([]float64, maxSamples)
	for i := range r.Samples {
		r.Samples[i] = sorted[i*(len(sorted)-1)/(maxSamples-1)]
	}
}

// Quantile is the value of sorted ones that a share q of them does not exceed.
func Quantile[T any](sorted []T, q float64) (none T) {
	if len(sorted) == 0 {
		return none
	}
	at := int(math.Ceil(q*float64(len(sorted))-1e-9)) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// Want adds a goal.
func (r Result) Want(of Stat, bound float64) Result {
	r.Goals = append(slices.Clone(r.Goals), Goal{of, bound})
	return r
}

// WantWithin adds a goal of a time.
func (r Result) WantWithin(of Stat, bound time.Duration) Result {
	return r.Want(of, bound.Seconds())
}

// Noting adds what people should know.
func (r Result) Noting(format string, args ...any) Result {
	if note := fmt.Sprintf(format, args...); r.Note == "" {
		r.Note = note
	} else {
		r.Note += "; " + note
	}
	return r
}

// With adds a label.
func (r Result) With(label, value string) Result {
	r.Labels = maps.Clone(r.Labels)
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	r.Labels[label] = value
	return r
}

// Missed reports whether a goal was not reached, or nothing was measured.
func (r Result) Missed() bool {
	if r.N == 0 {
		return true
	}
	return slices.ContainsFunc(r.Goals, func(g Goal) bool {
		have := r.Of(g.Of)
		return r.Better == More && have < g.Bound || r.Better == Less && have > g.Bound
	})
}

// Key tells a result from the others of its suite.
func (r Result) Key() string { return r.Name + "{" + r.LabelText() + "}" }

// LabelText is the labels, in order.
func (r Result) LabelText() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		all = append(all, k+"="+r.Labels[k])
	}
	return strings.Join(all, ",")
}

// Pool joins the samples of results that were measured again and again. What the last of them
// says otherwise, such as its note, holds.
func Pool(rounds ...[]Result) (pooled []Result) {
	at := map[string]int{}
	for _, round := range rounds {
		for _, r := range round {
			i, known := at[r.Key()]
			if !known {
				at[r.Key()] = len(pooled)
				pooled = append(pooled, r)
				continue
			}
			pooled[i] = pool(pooled[i], r)
		}
	}
	return pooled
}

// pool joins two results. Of many samples only ranks are kept, so the number of all and their
// mean are counted on; the quantiles are of the ranks, in which each round weighs the same.
func pool(before, now Result) Result {
	all := now
	all.sum(append(slices.Clone(before.Samples), now.Samples...))
	if all.N = before.N + now.N; all.N > 0 {
		all.Mean = (before.Mean*float64(before.N) + now.Mean*float64(now.N)) / float64(all.N)
	}
	return all
}
