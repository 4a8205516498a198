package store

import (
	"math/rand/v2"
	"testing"
)

// What is added and removed in random ways is counted as a plain map counts it.
func TestLogSizeCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var l logSize
	entries := map[uint64]int{}
	first, last := uint64(1), uint64(0)
	for step := range 20_000 {
		switch rng.IntN(12) {
		case 0: // a prefix goes
			if n := uint64(rng.IntN(int(last-first) + 2)); n > 0 {
				l.remove(first, first+n-1)
				for ; n > 0; n-- {
					delete(entries, first)
					first++
				}
			}
		case 1: // a suffix goes
			if last >= first {
				low := last - uint64(rng.IntN(int(min(last-first+1, 5))))
				l.remove(low, last)
				for ; last >= low; last-- {
					delete(entries, last)
				}
			}
		case 2: // a suffix is replaced
			if last > first {
				last -= uint64(rng.IntN(int(min(last-first, 3))))
				for i := last; entries[i] > 0; i++ {
					delete(entries, i)
				}
				last--
			}
			fallthrough
		default:
			last++
			entries[last] = 1 + rng.IntN(1000)
			l.add(last, entries[last])
		}
		sum := int64(0)
		for _, n := range entries {
			sum += int64(n)
		}
		if got := l.LogBytes(); got != sum {
			t.Fatalf("step %d: %d bytes, want %d", step, got, sum)
		}
		limit, want := int64(rng.IntN(5000)), uint64(0)
		for left, i := limit, last; i >= first && i > 0; i-- {
			if left -= int64(entries[i]); left < 0 {
				break
			}
			want++
		}
		if got := l.NewestWithin(limit); got != want {
			t.Fatalf("step %d: %d entries within %d bytes, want %d", step, got, limit, want)
		}
	}
}
