package queue

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

// Long steps that need slots of two nodes, of which others have some, do not hand the slots that
// they were given in a circle: all of them wait until one has both.
func TestLongStepsDoNotPassSlotsInACircle(t *testing.T) {
	const tasks, nodes = 60, 5
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var pairs [tasks][2]neon.NodeID
			var takes [tasks]time.Duration
			for i := range tasks {
				p := rng.Perm(nodes)
				pairs[i] = [2]neon.NodeID{neon.NodeID(p[0] + 1), neon.NodeID(p[1] + 1)}
				takes[i] = time.Duration(1+rng.IntN(2)) * time.Second
			}
			var turns, done atomic.Int64
			var q *Queue[record]
			q = New(Limits{Normal: tasks, Slow: 4, PerNode: 2}, func(k *Task[record]) {
				i := k.ID.Tenant[1]
				switch {
				case !k.Memory.long:
					k.Memory.long = true
					q.Long(k)
					return
				case !k.long: // it has made its long step
					q.Finish(k)
					return
				}
				if turns.Add(1) < 100*tasks && !q.Acquire(k, Steps, 0, pairs[i][0], pairs[i][1]) {
					return
				}
				time.Sleep(takes[i])
				q.Release(k, pairs[i][0], pairs[i][1])
				done.Add(1)
				q.Finish(k)
			})
			for i := range tasks {
				q.Wake(Normal, onNode(1, i))
			}
			time.Sleep(time.Hour)
			q.Close()
			if turns.Load() > 10*tasks || done.Load() != tasks {
				t.Errorf("seed %d: %d long steps took %d turns", seed, done.Load(), turns.Load())
			}
		})
	}
}
