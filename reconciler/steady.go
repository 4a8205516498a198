package reconciler

import (
	"slices"
	"time"
)

// A node that was lost, or restarted, is steady again after Options.SteadyAfter. With every
// further time in the last fallsCount that doubles. What is moved there for an even load, or
// for a better place, would have to leave it with each fall.
const (
	fallsCount = time.Hour
	mostFalls  = 5 // beyond which it doubles no more
)

// fell notes that a node that was available is not any more, or is another process. The
// caller holds the lock.
func (e *watched) fell(now time.Time) {
	e.falls = slices.DeleteFunc(e.falls,
		func(at time.Time) bool { return now.Sub(at) >= fallsCount })
	e.falls = append(e.falls[max(0, len(e.falls)-mostFalls+1):], now)
}

// unsteady reports whether a node is not to be counted on yet, which for one that fell once
// takes first. One that was not seen to fall, by this leader, is. The caller holds the lock.
func (e *watched) unsteady(now time.Time, first time.Duration) bool {
	n := 0
	for _, at := range e.falls {
		if now.Sub(at) < fallsCount {
			n++
		}
	}
	return n > 0 && now.Sub(e.since) < first<<(min(n, mostFalls)-1)
}
