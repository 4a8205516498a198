package queue

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

// callers is a queue whose tasks each make one call to a node.
type callers struct {
	mu     sync.Mutex
	node   func(neon.ShardID) neon.NodeID
	takes  func(neon.NodeID) time.Duration
	inside map[neon.NodeID]int
	most   map[neon.NodeID]int
	done   map[neon.NodeID]int
	queue  *Queue[record]
}

func newCallers(l Limits, takes func(neon.NodeID) time.Duration) *callers {
	c := &callers{
		node:  func(id neon.ShardID) neon.NodeID { return neon.NodeID(id.Tenant[0]) },
		takes: takes, inside: map[neon.NodeID]int{}, most: map[neon.NodeID]int{},
		done: map[neon.NodeID]int{},
	}
	c.queue = New(l, c.work)
	return c
}

func (c *callers) work(k *Task[record]) {
	c.mu.Lock()
	n := c.node(k.ID)
	c.mu.Unlock()
	if !c.queue.Acquire(k, Changes, 0, n) {
		return
	}
	c.count(n, +1)
	time.Sleep(c.takes(n)) // virtual
	c.count(n, -1)
	c.queue.Release(k, n)
	c.queue.Finish(k)
}

func (c *callers) count(n neon.NodeID, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside[n] += by
	c.most[n] = max(c.most[n], c.inside[n])
	if by < 0 {
		c.done[n]++
	}
}

func (c *callers) finished(n neon.NodeID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done[n]
}

// onNode is one of the shards of a node.
func onNode(n neon.NodeID, i int) neon.ShardID {
	return neon.ShardID{Tenant: neon.TenantID{byte(n), byte(i)}}
}

// However many nodes do not answer, others wait a second for their workers, once.
func TestCallsThatLastHoldNoWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(Limits{Normal: 4, PerNode: 2}, func(n neon.NodeID) time.Duration {
			if n < 9 {
				return time.Hour
			}
			return time.Millisecond
		})
		for i := range 20 {
			for n := range neon.NodeID(8) {
				c.queue.Wake(Normal, onNode(n+1, i))
			}
		}
		for i := range 20 {
			c.queue.Wake(Normal, onNode(9, i))
		}
		time.Sleep(4*lasting + time.Second)
		if n := c.finished(9); n != 20 {
			t.Errorf("%d of 20 calls to the node that answers were made", n)
		}
		time.Sleep(12 * time.Hour)
		c.queue.Close()
		for n := range neon.NodeID(8) {
			if c.most[n+1] > 2 || c.finished(n+1) != 20 {
				t.Errorf("node %d: %d calls, at most %d at a time", n+1, c.finished(n+1),
					c.most[n+1])
			}
		}
		if c.queue.running != [pools]int{} || len(c.queue.slots) != 0 {
			t.Errorf("workers %v, slots %v are left", c.queue.running, c.queue.slots)
		}
	})
}

func TestSlotsShrinkWithoutAnswersAndGrowWithThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(Limits{Normal: 100, PerNode: 8},
			func(neon.NodeID) time.Duration { return time.Second })
		inside := func(want int, what string) {
			t.Helper()
			for i := range 10 {
				c.queue.Wake(Normal, onNode(1, i))
			}
			time.Sleep(time.Minute)
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.most[1] != want {
				t.Errorf("%s: %d calls at a time, want %d", what, c.most[1], want)
			}
			c.most[1] = 0
		}
		k := &Task[record]{}
		inside(8, "at first")
		c.queue.Unanswered(k, 1)
		inside(4, "after one call without an answer")
		for range 20 {
			c.queue.Unanswered(k, 1)
		}
		inside(1, "after many")
		for range 20 {
			c.queue.Answered(&Task[record]{kind: Looks}, 1)
		}
		inside(1, "after answers of another kind")
		c.queue.Answered(k, 1)
		inside(2, "after an answer")
		for range 20 {
			c.queue.Answered(k, 1)
		}
		inside(8, "after many")
		c.queue.Close()
	})
}

// A node that hangs on changes is looked at nevertheless.
func TestAChangeThatHangsHoldsUpNoLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looked atomic.Bool
		var q *Queue[record]
		q = New(Limits{Normal: 4, PerNode: 1}, func(k *Task[record]) {
			kind, takes := Changes, time.Hour
			if k.ID == onNode(1, 1) {
				kind, takes = Looks, time.Millisecond
			}
			if !q.Acquire(k, kind, 0, 1) {
				return
			}
			time.Sleep(takes)
			looked.Store(looked.Load() || kind == Looks)
			q.Release(k, 1)
			q.Finish(k)
		})
		q.Wake(Normal, onNode(1, 0))
		time.Sleep(time.Millisecond)
		q.Wake(Normal, onNode(1, 1))
		time.Sleep(time.Second)
		if !looked.Load() {
			t.Error("it waits for the change")
		}
		time.Sleep(time.Hour)
		q.Close()
		if len(q.slots) != 0 {
			t.Errorf("slots are left: %v", q.slots)
		}
	})
}

// A shard that waits for a slot of a node that does not answer may have to be served
// by another one meanwhile.
func TestANewerDecisionEndsTheWaitForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(Limits{Normal: 4, Failover: 4, PerNode: 1},
			func(n neon.NodeID) time.Duration { return time.Duration(2-n) * time.Hour })
		c.queue.Wake(Normal, onNode(1, 0))
		time.Sleep(time.Millisecond)
		c.queue.Wake(Normal, onNode(1, 1))
		time.Sleep(time.Second)
		c.mu.Lock()
		c.node = func(neon.ShardID) neon.NodeID { return 2 }
		c.mu.Unlock()
		c.queue.RecordChanged(Failover, onNode(1, 1), 0)
		time.Sleep(time.Second)
		if c.finished(2) != 0 {
			t.Error("it was not decided anew")
		}
		c.queue.RecordChanged(Failover, onNode(1, 1), 1)
		time.Sleep(time.Second)
		if c.finished(2) != 1 {
			t.Error("it still waits")
		}
		time.Sleep(2 * time.Hour)
		c.queue.Close()
		if len(c.queue.slots) != 0 {
			t.Errorf("slots are lost: %v", c.queue.slots)
		}
	})
}

// The decision may also come between the look of a task and its wait.
func TestADecisionBeforeTheWaitForASlotEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const held, id = 1, 2
		var q *Queue[record]
		turns, decided := 0, uint64(0)
		q = New(Limits{Normal: 4, PerNode: 1}, func(k *Task[record]) {
			if k.ID == onNode(1, held) {
				q.Acquire(k, Changes, 0, 1)
				time.Sleep(time.Hour)
				q.Release(k, 1)
				q.Finish(k)
				return
			}
			turns++
			looked := decided
			if turns == 1 {
				decided = 7
				q.RecordChanged(Normal, k.ID, decided)
			}
			if looked == 0 && !q.Acquire(k, Changes, looked, 1) {
				return
			}
			q.Finish(k) // it needs no slot any more
		})
		q.Wake(Normal, onNode(1, held))
		time.Sleep(time.Millisecond)
		q.Wake(Normal, onNode(1, id))
		time.Sleep(time.Second)
		synctest.Wait()
		if turns != 2 {
			t.Errorf("it was looked at %d times", turns)
		}
		time.Sleep(2 * time.Hour)
		q.Close()
		if len(q.slots) != 0 {
			t.Errorf("slots are lost: %v", q.slots)
		}
	})
}

// What has to be looked at again and again because of new decisions keeps its place.
func TestTasksThatWaitForASlotAreListedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(Limits{Normal: 4, PerNode: 1},
			func(neon.NodeID) time.Duration { return time.Hour })
		c.queue.Wake(Normal, onNode(1, 0))
		time.Sleep(time.Millisecond)
		c.queue.Wake(Normal, onNode(1, 1))
		for i := range 1000 {
			time.Sleep(time.Millisecond)
			c.queue.RecordChanged(Normal, onNode(1, 1), uint64(i+1))
		}
		time.Sleep(time.Millisecond)
		c.queue.mu.Lock()
		if n := c.queue.slots[place{node: 1}].waiting.len(); n > few+2 {
			t.Errorf("one task is listed %d times", n)
		}
		c.queue.mu.Unlock()
		time.Sleep(3 * time.Hour)
		if n := c.finished(1); n != 2 {
			t.Errorf("%d of 2 calls were made", n)
		}
		c.queue.Close()
	})
}

// Long steps have slots of their own, on all nodes that they need, and take none of them
// before they have all.
func TestLongStepsTakeTheSlotsOfAllTheirNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		inside, done := map[neon.NodeID]int{}, 0
		var q *Queue[record]
		q = New(Limits{Normal: 9, Slow: 9, PerNode: 1}, func(k *Task[record]) {
			if !k.Memory.long {
				k.Memory.long = true
				q.Long(k)
				return
			}
			a := neon.NodeID(k.ID.Tenant[0])
			b := a%3 + 1
			if !q.Acquire(k, Steps, 0, a, b) {
				return
			}
			count := func(by int) {
				mu.Lock()
				defer mu.Unlock()
				for _, n := range []neon.NodeID{a, b} {
					if inside[n] += by; inside[n] > 1 {
						t.Errorf("two long steps at node %d", n)
					}
				}
			}
			count(+1)
			time.Sleep(time.Second)
			count(-1)
			mu.Lock()
			done++
			mu.Unlock()
			q.Release(k, a, b)
			k.Memory.long = true
			q.Finish(k)
		})
		work := q.work
		q.work = func(k *Task[record]) {
			if k.Memory.long && !k.long { // it has made its long step
				q.Finish(k)
				return
			}
			work(k)
		}
		for i := range 10 {
			for n := range neon.NodeID(3) {
				q.Wake(Normal, onNode(n+1, i))
			}
		}
		time.Sleep(time.Hour)
		q.Close()
		if done != 30 || len(q.slots) != 0 {
			t.Errorf("%d of 30 long steps were made, slots are left: %v", done, q.slots)
		}
	})
}

// A node that did not answer, and does again, need never be looked at for that.
func TestANodeThatAnswersTakesPartInMovesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(Limits{Normal: 100, PerNode: 64},
			func(neon.NodeID) time.Duration { return time.Second })
		c.queue.Throttle(1)
		k := &Task[record]{}
		for range 200 { // changes and questions are answered; nobody has to look
			k.kind = Changes
			c.queue.Answered(k, 1)
			k.kind = Steps
			c.queue.Answered(k, 1)
		}
		if got := c.queue.Slots(1); got != 64 {
			t.Errorf("it has %d slots for moves", got)
		}
		c.queue.Close()
	})
}
