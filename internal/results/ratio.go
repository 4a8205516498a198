package results

import (
	"context"
	"fmt"
	"strings"
)

// RatioSuffix ends the name of a result that is a ratio.
const RatioSuffix = ".ratio"

// Measured is one of two binaries that are compared.
type Measured int

// The two binaries.
const (
	This  Measured = iota // the one that is asked about
	Other                 // the one it is compared with
)

// InTurn measures two binaries in turn, A B B A A B and so on, so that neither is always the
// first, and returns what was found of each in every round.
func InTurn(
	ctx context.Context, rounds int, measure func(context.Context, Measured) ([]Result, error),
) (this, other [][]Result, err error) {
	for n := range rounds {
		order := []Measured{This, Other}
		if n%2 == 1 {
			order = []Measured{Other, This}
		}
		for _, who := range order {
			found, err := measure(ctx, who)
			if err != nil {
				return this, other, err
			}
			if who == This {
				this = append(this, found)
			} else {
				other = append(other, found)
			}
		}
	}
	return this, other, nil
}

// Ratios divides the medians of one binary by those of the other, round by round. Each ratio
// is a result with the spread over the rounds; what only one of the two has is left out.
func Ratios(this, other [][]Result, against string) (ratios []Result) {
	var rounds [][]Result
	for i := range min(len(this), len(other)) {
		theirs := map[string]Result{}
		for _, r := range other[i] {
			theirs[r.Key()] = r
		}
		var round []Result
		for _, r := range this[i] {
			base, ok := theirs[r.Key()]
			if !ok || r.Better == Neither || base.N == 0 || r.N == 0 || base.Median == 0 {
				continue
			}
			ratio := Values(r.Name+RatioSuffix, r.Title+", this : other", Times, r.Better,
				r.Median/base.Median)
			ratio.Labels = r.Labels
			round = append(round, ratio.With("against", against))
		}
		rounds = append(rounds, round)
	}
	return Pool(rounds...)
}

// Allowed is how much worse a ratio may get: 10 %.
const Allowed = 0.1

// Regression is one ratio that got worse by more than Allowed.
type Regression struct {
	Suite  string
	Result Result
	Before float64 // what the ratio was before: 1 for equal binaries
}

// Of is the name of the result that the ratio is of.
func (r Regression) Of() string { return strings.TrimSuffix(r.Result.Name, RatioSuffix) }

func (r Regression) String() string {
	return fmt.Sprintf("%s %s: %.3f (%.3f to %.3f in %d rounds), before %.3f", r.Suite,
		r.Result.Key(), r.Result.Median, r.Result.Min, r.Result.Max, r.Result.N, r.Before)
}

// Regressed reports whether a ratio is worse than one before by more than Allowed, and every
// round of it by more than half of that: on a busy machine the rounds of two equal binaries lie
// on both sides.
func (r Result) Regressed(before float64) bool {
	if r.Unit != Times || r.N == 0 || before <= 0 {
		return false
	}
	if r.Better == More {
		return r.Median < before*(1-Allowed) && r.Max < before*(1-Allowed/2)
	}
	return r.Better == Less && r.Median > before*(1+Allowed) && r.Min > before*(1+Allowed/2)
}

// Regressions are the ratios of a run whose binary is worse than the other one.
func (r *Run) Regressions() (found []Regression) {
	for _, s := range r.Suites {
		for _, d := range s.Data {
			if d.Regressed(1) {
				found = append(found, Regression{Suite: s.Name, Result: d, Before: 1})
			}
		}
	}
	return found
}
