package safekeeping

import (
	"fmt"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// A heartbeat that is not answered is tried at least probeTries times, and again
// until the next one is due. So a safekeeper that starts is noticed at once.
const (
	probeTries = 3
	probePause = 100 * time.Millisecond
)

// heartbeats probes all safekeepers in every interval, and at once when one is new.
func (t *term) heartbeats() {
	tick := time.NewTicker(t.Options.HeartbeatInterval)
	defer tick.Stop()
	for t.round(); ; {
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
			t.round()
		case <-t.probe:
			if t.anyUnprobed() {
				t.round()
			}
		}
	}
}

// anyUnprobed reports whether a safekeeper that is to be probed was not probed yet.
func (t *term) anyUnprobed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.Log.State().Safekeepers() {
		if _, known := t.answers[k.ID]; !known && k.Scheduling != neon.SafekeeperDecomissioned {
			return true
		}
	}
	return false
}

// round probes every safekeeper that is not decommissioned, and makes those active
// that are Activating and answer.
func (t *term) round() {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		probed   int
		offline  int
		answered []neon.NodeID
	)
	for k := range t.Log.State().Safekeepers() {
		if k.Scheduling == neon.SafekeeperDecomissioned {
			continue
		}
		probed++
		wg.Go(func() {
			alive := t.heartbeat(k)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !alive:
				offline++
			case k.Scheduling == neon.SafekeeperActivating && t.mayActivate(k.ID):
				answered = append(answered, k.ID)
			}
		})
	}
	wg.Wait()
	if t.ctx.Err() != nil || probed == 0 {
		return
	}
	t.Logger.Info(fmt.Sprintf("Heartbeat round complete for %d safekeepers, %d offline", probed,
		offline))
	for _, id := range answered {
		c := fsm.SetSafekeeperScheduling{
			Safekeeper: id, From: neon.SafekeeperActivating, To: neon.SafekeeperActive,
		}
		if _, err := t.Log.Propose(t.ctx, fsm.RequestID{}, c); err != nil && t.ctx.Err() == nil {
			t.Logger.Info("a safekeeper was not made active, the next round tries again",
				"safekeeper", id, "err", err)
		}
	}
}

// mayActivate reports whether a safekeeper has answered for a whole interval. A client
// that registers one must find it Activating for a while.
func (t *term) mayActivate(id neon.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.answers[id].first) >= t.Options.HeartbeatInterval
}

// heartbeat reports whether a safekeeper answers.
func (t *term) heartbeat(k *fsm.Safekeeper) bool {
	var err error
	began := time.Now()
	for n := 0; n < probeTries || time.Since(began) < t.Options.HeartbeatInterval-probePause; n++ {
		if n > 0 && wait.Sleep(t.ctx, probePause) != nil {
			return false
		}
		var u neon.SafekeeperUtilization
		if u, err = t.Calls.Utilization(t.ctx, k); err == nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			a := answer{first: t.answers[k.ID].first, last: time.Now(), timelines: u.Timelines}
			if a.first.IsZero() {
				a.first = a.last
			}
			t.answers[k.ID] = a
			return true
		}
	}
	if t.ctx.Err() == nil {
		t.Logger.Info("a safekeeper does not answer", "safekeeper", k.ID, "err", err)
		t.mu.Lock()
		defer t.mu.Unlock()
		if _, known := t.answers[k.ID]; !known {
			t.answers[k.ID] = answer{} // probed, and has not answered yet
		}
	}
	return false
}
