package reconciler

import (
	"cmp"
	"errors"
	"maps"
	"testing"
	"time"

	"quorate/api/neon"
)

// What was changed behind the leader's back is found by listing nodes again; where
// that is not wanted, only for some time after a call to the node has failed.
func TestNodesAreListedAgain(t *testing.T) {
	for name, tt := range map[string]struct{ inDoubt, fails, mended bool }{
		"now and then":             {false, false, true},
		"not without a reason":     {true, false, false},
		"after a call that failed": {true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 3, func(b *bench) {
				b.depose()
				b.opts.RelistInDoubt = tt.inDoubt
				b.lead()
				b.create(1, 1, neon.Attached(0))
				b.awaitIdle()
				sh := first(b)
				if tt.fails {
					failed := false
					b.fleet.set(func() {
						b.fleet.onPut = func(neon.NodeID, neon.ShardID) error {
							if failed {
								return nil
							}
							failed = true
							return errors.New("no answer")
						}
					})
					b.createAs(neon.TenantID{}, 1, neon.Attached(0))
					b.awaitIdle()
					sh = first(b)
				}
				b.fleet.set(func() { delete(b.fleet.at[sh.Attached], sh.ID) })
				elapse(2 * time.Minute)
				b.fleet.mu.Lock()
				_, mended := maps.Clone(b.fleet.at[sh.Attached])[sh.ID]
				b.fleet.mu.Unlock()
				if mended != tt.mended {
					t.Errorf("attached again: %v, want %v", mended, tt.mended)
				}
				elapse(2 * doubtTime)
				b.fleet.set(func() { delete(b.fleet.at[sh.Attached], sh.ID) })
				elapse(2 * time.Minute)
				b.fleet.mu.Lock()
				_, mended = b.fleet.at[sh.Attached][sh.ID]
				b.fleet.mu.Unlock()
				if mended == tt.inDoubt {
					t.Errorf("attached again long after: %v", mended)
				}
			})
		})
	}
}

// TestANodeInDoubtIsNotMadeToWaitForALargeFleet: what a call that failed does late is looked
// for as soon as in a small one.
func TestANodeInDoubtIsNotMadeToWaitForALargeFleet(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		listed, doubted time.Duration // ago; 0: never
		term            time.Duration // 0: an hour
		inDoubt, want   bool
	}{
		"just listed":                    {listed: time.Second},
		"listed a while ago":             {listed: 2 * time.Minute},
		"in doubt":                       {listed: 2 * time.Minute, doubted: time.Minute, want: true},
		"in doubt, and just listed":      {listed: time.Second, doubted: time.Minute},
		"in doubt long ago":              {listed: 2 * time.Minute, doubted: time.Hour},
		"listed long ago":                {listed: time.Hour, want: true},
		"listed long ago, in doubt only": {listed: time.Hour, inDoubt: true},
		"listed a while ago, doubted so": {
			listed: 2 * time.Minute, doubted: time.Minute, inDoubt: true, want: true,
		},
		"the leader is new": {listed: 2 * time.Minute, term: 5 * time.Minute, want: true},
		"the leader is new, in doubt only": {
			listed: 2 * time.Minute, term: 5 * time.Minute, inDoubt: true,
		},
	} {
		e := &watched{
			listedAt: now.Add(-tt.listed), relist: 1000 * time.Second, relistSoon: time.Minute,
		}
		if tt.doubted > 0 {
			e.doubted = now.Add(-tt.doubted)
		}
		began := now.Add(-cmp.Or(tt.term, time.Hour))
		if got := e.stale(now, began, tt.inDoubt); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
