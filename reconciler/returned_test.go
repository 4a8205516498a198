package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
)

// A node that could not be reached, and was not restarted, comes back with all that it
// had. What has got another place meanwhile is taken away there, secondaries too, although
// the listing that told of them came before the node was used again.
func TestANodeThatWasUnreachableGivesUpWhatIsElsewhere(t *testing.T) {
	const active = "heartbeat-pre-node-state-configure"
	watching(t, 4, func(b *bench, w *watch) {
		b.depose()
		b.opts.RelistInDoubt = true // no listing later brings them to light
		b.opts.RehomeSecondary = 10 * time.Second
		b.lead()
		b.create(20, 1, neon.Attached(1))
		b.awaitIdle()
		away := b.busiest()
		b.fleet.set(func() { b.fleet.down[away] = true })
		elapse(b.opts.MaxOffline + b.opts.RehomeSecondary + 20*time.Second)
		if n := b.log.State().Counts(away).Shards; n != 0 {
			t.Fatalf("%d locations are still meant to be there", n)
		}
		w.hold(active)
		b.fleet.set(func() { b.fleet.down[away] = false })
		elapse(10 * time.Second)
		w.hold()
		elapse(time.Minute)
		b.check()
	})
}
