package reconciler

import (
	"slices"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// A move to a secondary lets the origin say first what there is to be
// downloaded, and drops no request when its time is over.
func TestAMoveDownloadsForItsTime(t *testing.T) {
	for name, tt := range map[string]struct {
		limits   moveLimits
		requests int
		took     time.Duration
	}{
		"five seconds in requests of two": {
			moveLimits{new(5 * time.Second), new(2 * time.Second)}, 3, 6 * time.Second,
		},
		"requests that do not wait": {
			moveLimits{new(5 * time.Second), new(time.Duration)}, 51, 5 * time.Second,
		},
		"no time": {moveLimits{new(time.Duration), new(time.Duration)}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, 3, func(b *bench, _ *watch) {
				b.create(1, 1, neon.Attached(1))
				b.awaitIdle()
				sh := first(b)
				b.fleet.set(func() { b.fleet.slow, b.fleet.heatmaps = true, nil })
				b.now.LimitWarming(sh.ID, tt.limits.total, tt.limits.request)
				began := time.Now()
				to := sh.Secondary[0]
				in, err := scheduler.New(b.log.State(), nil).Migrate(sh, to,
					scheduler.OverrideScheduler)
				if err != nil {
					t.Fatal(err)
				}
				b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
				if err := b.now.Await(b.t.Context(), b.log.State().Index, sh.ID); err != nil {
					t.Fatal(err)
				}
				took := time.Since(began)
				b.fleet.mu.Lock()
				defer b.fleet.mu.Unlock()
				if b.fleet.asked != tt.requests || b.fleet.cut != 0 {
					t.Errorf("%d requests, %d of them dropped; want %d", b.fleet.asked, b.fleet.cut,
						tt.requests)
				}
				if took < tt.took || took > tt.took+time.Second {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				if want := []neon.NodeID{sh.Attached}; !slices.Equal(b.fleet.heatmaps, want) {
					t.Errorf("asked %v for a heatmap, want %v", b.fleet.heatmaps, want)
				}
				if b.fleet.at[to][sh.ID].Mode != neon.AttachedSingle {
					t.Errorf("it is not on node %d", to)
				}
			})
		})
	}
}
