package bench

import (
	"slices"
	"time"

	"quorate/internal/results"
)

// durations are measured values of one kind.
type durations []time.Duration

// quantile is the value that a share q of the values does not exceed: with few
// values the largest ones, never a guess between two.
func (d durations) quantile(q float64) time.Duration {
	return results.Quantile(slices.Sorted(slices.Values(d)), q)
}

func (d durations) median() time.Duration { return d.quantile(0.5) }

func sorted(d durations) durations {
	slices.Sort(d)
	return d
}

// short prints a duration with three digits.
func short(d time.Duration) string { return results.Short(d) }

// single makes a result of one time.
func single(name, title string, d time.Duration) results.Result {
	return results.Durations(name, title, []time.Duration{d})
}

// rate makes a result of how many are done a second.
func rate(name, title, unit string, perSecond ...float64) results.Result {
	return results.Values(name, title, unit, results.More, perSecond...)
}

// count makes a result of how often something happened that should not.
func count(name, title string, n int) results.Result {
	return results.Values(name, title, results.Count, results.Less, float64(n))
}
