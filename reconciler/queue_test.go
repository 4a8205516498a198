package reconciler

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

func smallOptions() Options {
	return Options{HighWorkers: 2, NormalWorkers: 2, SlowWorkers: 1, PerNode: 1}.withDefaults()
}

// No shard is ever worked on by two workers, and a wake-up during a pass leads to
// another pass.
func TestQueueRunsOneWorkerPerShardAndLosesNoWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, passes := map[neon.ShardID]int{}, map[neon.ShardID]int{}
		var q *queue
		q = newQueue(smallOptions(), func(k *task) {
			mu.Lock()
			running[k.id]++
			if running[k.id] > 1 {
				t.Errorf("two workers on %s", k.id)
			}
			passes[k.id]++
			mu.Unlock()
			time.Sleep(10 * time.Millisecond) // virtual
			mu.Lock()
			running[k.id]--
			mu.Unlock()
			q.finish(k)
		})
		for range 3 {
			for i := range 20 {
				q.wake(Priority(i%2), shardN(i))
			}
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		q.wake(Normal, shardN(99))
		time.Sleep(time.Minute)
		if n := q.size(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
		q.close()
		if passes[shardN(0)] < 2 || passes[shardN(99)] != 1 {
			t.Errorf("passes: %v", passes)
		}
	})
}

// What could not be done is not waited for, until it was woken: whoever waits for all
// work to be done would go between the wake-up and the work.
func TestQueueCountsABlockedTaskFromItsWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q *queue
		passes := 0
		q = newQueue(Options{NormalWorkers: 1}.withDefaults(), func(k *task) {
			if k.id == shardN(2) {
				time.Sleep(time.Second)
				q.finish(k)
				return
			}
			if passes++; passes == 1 {
				q.note(k, blocked, "no node")
				q.retry(k, time.Hour)
				return
			}
			time.Sleep(time.Second)
			q.note(k, clean, "")
			q.finish(k)
		})
		counts := func(what string, want int) {
			synctest.Wait()
			busy, waits := q.load()
			if active, _, _ := q.lookup(shardN(1)); q.size() != want || busy != want ||
				waits != 0 || active != (want > 0) {
				t.Errorf("%s: %d count, %d busy, %d wait, it is active: %v", what, q.size(), busy,
					waits, active)
			}
		}
		q.wake(Normal, shardN(1))
		counts("blocked", 0)
		q.wake(Normal, shardN(2))
		q.wake(Normal, shardN(1))
		counts("woken behind another", 2)
		time.Sleep(1500 * time.Millisecond)
		counts("being worked on", 1)
		time.Sleep(time.Second)
		counts("done", 0)
		q.close()
	})
}

// What an API call waits for overtakes what waits in the normal pool.
func TestQueueHighOvertakesNormal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []neon.ShardID
		var mu sync.Mutex
		var q *queue
		q = newQueue(Options{HighWorkers: 1, NormalWorkers: 1}.withDefaults(), func(k *task) {
			time.Sleep(time.Second)
			mu.Lock()
			order = append(order, k.id)
			mu.Unlock()
			q.finish(k)
		})
		for i := range 50 {
			q.wake(Normal, shardN(i))
		}
		q.wake(High, shardN(49))
		time.Sleep(2 * time.Minute)
		q.close()
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
		var q *queue
		q = newQueue(smallOptions(), func(k *task) {
			if !q.acquire(7, k) {
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
			q.release(7)
			q.finish(k)
		})
		for i := range 10 {
			q.wake(Normal, shardN(i))
		}
		time.Sleep(time.Minute)
		q.close()
		if done != 10 {
			t.Errorf("%d of 10 came through", done)
		}
	})
}

// A back-off is not ended by what the pass itself committed, but by a newer
// decision and by whoever waits.
func TestQueueBackOffEndsOnlyForNewDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var passes atomic.Int32
		var q *queue
		q = newQueue(smallOptions(), func(k *task) {
			passes.Add(1)
			k.basis = 10
			q.retry(k, time.Hour)
		})
		id := shardN(1)
		q.wake(Normal, id)
		synctest.Wait()
		q.touched(id, 10)
		synctest.Wait()
		if passes.Load() != 1 {
			t.Fatalf("%d passes after an old change", passes.Load())
		}
		q.touched(id, 11)
		synctest.Wait()
		if passes.Load() != 2 {
			t.Fatalf("%d passes after a newer decision", passes.Load())
		}
		q.wake(High, id)
		synctest.Wait()
		if passes.Load() != 3 {
			t.Fatalf("%d passes after somebody waits", passes.Load())
		}
		time.Sleep(2 * time.Hour)
		if passes.Load() < 4 {
			t.Fatalf("%d passes after the back-off", passes.Load())
		}
		q.close()
	})
}
