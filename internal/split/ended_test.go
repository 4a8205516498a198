package split

import (
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

// An instance that has stepped down for another one sees no more of the log. Who
// waits there for a split is told that it came to nothing, and not kept for ever.
func TestSplitIsNotAwaitedOnAReplicaThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{}) // and it is not driven
		time.AfterFunc(time.Minute, func() {
			f.log.FailReads(neon.Errorf(neon.ShuttingDown, "Shutting down"))
		})
		begun := time.Now()
		_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 2})
		if neon.CodeOf(err) != neon.Conflict {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); took < time.Minute || took > 2*time.Minute {
			t.Errorf("answered after %s", took)
		}
	})
}
