package reconciler

import (
	"fmt"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/reconciler/plan"
)

// alarm rings once when the reconcile of a shard takes long.
type alarm struct {
	mu       sync.Mutex
	timer    *time.Timer
	rang     bool
	over     bool
	shard    neon.ShardID
	sequence uint64
}

// begun counts the beginning of a reconcile, unless it has begun before: the first
// step that does something. The time that it takes counts anew once compute was told,
// which may have taken any time. To warm a destination while the shard is served
// elsewhere may take its time.
func (t *term) begun(k *task, sc *plan.Scene, step plan.Step) {
	switch step.Kind {
	case plan.Done, plan.Blocked, plan.Notify:
		return
	case plan.Warm:
		if step.Node != sc.Shard.Attached {
			return
		}
	}
	if !k.acted {
		k.acted = true
		t.Metrics.Spawned()
	}
	if k.alarm != nil {
		return
	}
	a := &alarm{shard: k.id, sequence: sc.Shard.Sequence}
	a.timer = time.AfterFunc(t.Options.LongReconcile, func() { t.ring(a) })
	k.alarm = a
}

func (t *term) ring(a *alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || t.ctx.Err() != nil {
		return
	}
	a.rang = true
	t.mu.Lock()
	t.long[a] = struct{}{}
	t.mu.Unlock()
	t.Metrics.LongRunning(a.shard, a.sequence)
	t.Logger.Warn(fmt.Sprintf("Reconcile passed the long running threshold of %s",
		t.Options.LongReconcile), "shard", a.shard)
}

// calm is the end of a reconcile, long or not.
func (t *term) calm(k *task) {
	if k.alarm != nil {
		t.silence(k.alarm)
		k.alarm = nil
	}
}

func (t *term) silence(a *alarm) {
	a.timer.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rang && !a.over {
		t.mu.Lock()
		delete(t.long, a)
		t.mu.Unlock()
		t.Metrics.LongEnded(a.shard, a.sequence)
	}
	a.over = true
}

// calmAll ends what the term leaves unfinished.
func (t *term) calmAll() {
	t.mu.Lock()
	left := make([]*alarm, 0, len(t.long))
	for a := range t.long {
		left = append(left, a)
	}
	t.mu.Unlock()
	for _, a := range left {
		t.silence(a)
	}
}
