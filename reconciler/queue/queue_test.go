package queue

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

func shardN(n int) neon.ShardID {
	return neon.ShardID{Tenant: neon.TenantID{byte(n >> 8), byte(n)}}
}

var small = Limits{High: 2, Normal: 2, Slow: 1, PerNode: 1}

// record is what the workers of these tests remember of a shard.
type record struct{ long bool }

// No shard is ever worked on by two workers, and a wake-up during a pass leads to
// another pass.
func TestQueueRunsOneWorkerPerShardAndLosesNoWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, passes := map[neon.ShardID]int{}, map[neon.ShardID]int{}
		var q *Queue[record]
		q = New(small, func(k *Task[record]) {
			mu.Lock()
			running[k.ID]++
			if running[k.ID] > 1 {
				t.Errorf("two workers on %s", k.ID)
			}
			passes[k.ID]++
			mu.Unlock()
			time.Sleep(10 * time.Millisecond) // virtual
			mu.Lock()
			running[k.ID]--
			mu.Unlock()
			q.Finish(k)
		})
		for range 3 {
			for i := range 20 {
				q.Wake(Priority(i%2), shardN(i))
			}
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		q.Wake(Normal, shardN(99))
		time.Sleep(time.Minute)
		if n := q.Load().Size; n != 0 {
			t.Errorf("%d tasks are left", n)
		}
		q.Close()
		if passes[shardN(0)] < 2 || passes[shardN(99)] != 1 {
			t.Errorf("passes: %v", passes)
		}
	})
}

// What could not be done is not waited for, until it was woken: a caller that waits for all
// work to be done would go between the wake-up and the work.
func TestQueueCountsABlockedTaskFromItsWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q *Queue[record]
		passes := 0
		q = New(Limits{Normal: 1, PerNode: 1}, func(k *Task[record]) {
			if k.ID == shardN(2) {
				time.Sleep(time.Second)
				q.Finish(k)
				return
			}
			if passes++; passes == 1 {
				q.Note(k, Blocked, "no node")
				q.Retry(k, 0, time.Hour)
				return
			}
			time.Sleep(time.Second)
			q.Note(k, Clean, "")
			q.Finish(k)
		})
		counts := func(what string, want int) {
			synctest.Wait()
			l, active := q.Load(), q.Status(shardN(1)).Active
			if l.Size != want || l.Busy != want || l.Waits != 0 || active != (want > 0) {
				t.Errorf("%s: %+v, it is active: %v", what, l, active)
			}
		}
		q.Wake(Normal, shardN(1))
		counts("blocked", 0)
		q.Wake(Normal, shardN(2))
		q.Wake(Normal, shardN(1))
		counts("woken behind another", 2)
		time.Sleep(1500 * time.Millisecond)
		counts("being worked on", 1)
		time.Sleep(time.Second)
		counts("done", 0)
		q.Close()
	})
}

// What an API call waits for overtakes what waits in the normal pool.
func TestQueueHighOvertakesNormal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []neon.ShardID
		var mu sync.Mutex
		var q *Queue[record]
		q = New(Limits{High: 1, Normal: 1, PerNode: 1}, func(k *Task[record]) {
			time.Sleep(time.Second)
			mu.Lock()
			order = append(order, k.ID)
			mu.Unlock()
			q.Finish(k)
		})
		for i := range 50 {
			q.Wake(Normal, shardN(i))
		}
		q.Wake(High, shardN(49))
		time.Sleep(2 * time.Minute)
		q.Close()
		if at := slices.Index(order, shardN(49)); at < 0 || at > 1 {
			t.Errorf("the promoted shard came at place %d of %d", at, len(order))
		}
		if len(order) != 50 {
			t.Errorf("%d passes for 50 shards", len(order))
		}
	})
}

// A slow node holds only its own slots; what waits for them comes back by itself.
func TestQueueParksForASlotAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		done, inside := 0, 0
		var q *Queue[record]
		q = New(small, func(k *Task[record]) {
			if !q.Acquire(k, Changes, 0, 7) {
				return
			}
			mu.Lock()
			inside++
			if inside > 1 {
				t.Error("two calls at a node that allows one")
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			inside--
			done++
			mu.Unlock()
			q.Release(k, 7)
			q.Finish(k)
		})
		for i := range 10 {
			q.Wake(Normal, shardN(i))
		}
		time.Sleep(time.Minute)
		q.Close()
		if done != 10 {
			t.Errorf("%d of 10 came through", done)
		}
	})
}

// A back-off is not ended by what the pass itself committed, but by a newer
// decision and by a waiter.
func TestQueueBackOffEndsOnlyForNewDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var passes atomic.Int32
		var q *Queue[record]
		q = New(small, func(k *Task[record]) {
			passes.Add(1)
			q.Retry(k, 10, time.Hour)
		})
		id := shardN(1)
		q.Wake(Normal, id)
		synctest.Wait()
		q.RecordChanged(Normal, id, 10)
		synctest.Wait()
		if passes.Load() != 1 {
			t.Fatalf("%d passes after an old change", passes.Load())
		}
		q.RecordChanged(Normal, id, 11)
		synctest.Wait()
		if passes.Load() != 2 {
			t.Fatalf("%d passes after a newer decision", passes.Load())
		}
		q.Wake(High, id)
		synctest.Wait()
		if passes.Load() != 3 {
			t.Fatalf("%d passes after somebody waits", passes.Load())
		}
		time.Sleep(2 * time.Hour)
		if passes.Load() < 4 {
			t.Fatalf("%d passes after the back-off", passes.Load())
		}
		q.Close()
	})
}

// TestQueueKeepsWakeUpsOfARunningPass: a decision that is made while a pass runs,
// and a wake-up, must not be forgotten when the pass ends in a back-off; what the
// pass itself committed does not count.
func TestQueueKeepsWakeUpsOfARunningPass(t *testing.T) {
	for _, tt := range []struct {
		name   string
		during func(q *Queue[record], id neon.ShardID)
		passes int32
	}{
		{"what it committed itself", func(q *Queue[record], id neon.ShardID) { q.RecordChanged(Normal, id, 10) }, 1},
		{"a newer decision", func(q *Queue[record], id neon.ShardID) { q.RecordChanged(Normal, id, 11) }, 2},
		{"somebody waits", func(q *Queue[record], id neon.ShardID) { q.Wake(High, id) }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var passes atomic.Int32
				var q *Queue[record]
				q = New(small, func(k *Task[record]) {
					if passes.Add(1) == 1 {
						tt.during(q, k.ID)
						q.Retry(k, 10, time.Hour)
						return
					}
					q.Retry(k, 11, time.Hour)
				})
				q.Wake(Normal, shardN(1))
				synctest.Wait()
				if n := passes.Load(); n != tt.passes {
					t.Errorf("%d passes, want %d", n, tt.passes)
				}
				q.Close()
			})
		})
	}
}

// TestASlotThatIsNotNeededIsPassedOn: a shard that comes back from waiting for a
// slot may have nothing to do on that node any more. The next one must get it, or
// it waits for a call to a node that is not called.
func TestASlotThatIsNotNeededIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		passes := map[neon.ShardID]int{}
		done := map[neon.ShardID]bool{}
		limits := small
		limits.Normal = 1
		var q *Queue[record]
		q = New(limits, func(k *Task[record]) {
			mu.Lock()
			passes[k.ID]++
			again := passes[k.ID] > 1 && k.ID != shardN(1) // decided otherwise meanwhile
			done[k.ID] = again
			mu.Unlock()
			if again {
				switch k.ID {
				case shardN(2):
					q.Finish(k)
				case shardN(3):
					if k.Memory.long { // it has made its long step
						q.Finish(k)
						return
					}
					k.Memory.long = true
					q.Long(k)
				case shardN(4):
					q.Retry(k, 0, time.Hour)
				default:
					if q.Acquire(k, Changes, 0, 8) {
						q.Release(k, 8)
						q.Finish(k)
					}
				}
				return
			}
			if !q.Acquire(k, Changes, 0, 7) {
				return
			}
			if k.ID == shardN(1) {
				for i := 2; i <= 6; i++ {
					q.Wake(High, shardN(i))
				}
				time.Sleep(time.Second)
			}
			q.Release(k, 7)
			q.Finish(k)
		})
		q.Wake(Normal, shardN(1))
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := 2; i <= 6; i++ {
			if !done[shardN(i)] {
				t.Errorf("shard %d still waits for a node that nobody calls", i)
			}
		}
		q.mu.Lock()
		if len(q.slots) != 0 {
			t.Errorf("slots are lost: %v", q.slots)
		}
		q.mu.Unlock()
		q.Close()
	})
}
