package safekeeping

import (
	"fmt"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// A heartbeat that is not answered is tried at least probeTries times, and again
// until the next one is due: a safekeeper that starts is heard at once.
const (
	probeTries = 3
	probePause = 100 * time.Millisecond
)

// heartbeats asks all safekeepers again and again, and at once when one is new.
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
			if t.strangers() {
				t.round()
			}
		}
	}
}

// strangers tells whether a safekeeper that is to be asked never was.
func (t *term) strangers() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.Log.State().Safekeepers() {
		if _, known := t.seen[k.ID]; !known && k.Scheduling != neon.SafekeeperDecomissioned {
			return true
		}
	}
	return false
}

// round asks every safekeeper that is not decommissioned and makes those active
// that were only waiting to be heard.
func (t *term) round() {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		asked   int
		offline int
		arrived []neon.NodeID
	)
	for k := range t.Log.State().Safekeepers() {
		if k.Scheduling == neon.SafekeeperDecomissioned {
			continue
		}
		asked++
		wg.Go(func() {
			alive := t.ask(k)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !alive:
				offline++
			case k.Scheduling == neon.SafekeeperActivating && t.proven(k.ID):
				arrived = append(arrived, k.ID)
			}
		})
	}
	wg.Wait()
	if t.ctx.Err() != nil || asked == 0 {
		return
	}
	t.Logger.Info(fmt.Sprintf("Heartbeat round complete for %d safekeepers, %d offline", asked,
		offline))
	for _, id := range arrived {
		c := fsm.SetSafekeeperScheduling{
			Safekeeper: id, From: neon.SafekeeperActivating, To: neon.SafekeeperActive,
		}
		if _, err := t.Log.Propose(t.ctx, fsm.RequestID{}, c); err != nil && t.ctx.Err() == nil {
			t.Logger.Info("a safekeeper was not made active, the next round tries again",
				"safekeeper", id, "err", err)
		}
	}
}

// proven tells whether a safekeeper has answered for a whole interval, so that
// whoever registers one finds it as he left it for a while.
func (t *term) proven(id neon.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.seen[id].first) >= t.Options.HeartbeatInterval
}

// ask tells whether a safekeeper answers.
func (t *term) ask(k *fsm.Safekeeper) bool {
	var err error
	began := time.Now()
	for n := 0; n < probeTries || time.Since(began) < t.Options.HeartbeatInterval-probePause; n++ {
		if n > 0 && pause(t.ctx, probePause) != nil {
			return false
		}
		var u neon.SafekeeperUtilization
		if u, err = t.Calls.Utilization(t.ctx, k); err == nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			s := sign{first: t.seen[k.ID].first, at: time.Now(), timelines: u.Timelines}
			if s.first.IsZero() {
				s.first = s.at
			}
			t.seen[k.ID] = s
			return true
		}
	}
	if t.ctx.Err() == nil {
		t.Logger.Info("a safekeeper does not answer", "safekeeper", k.ID, "err", err)
		t.mu.Lock()
		defer t.mu.Unlock()
		if _, known := t.seen[k.ID]; !known {
			t.seen[k.ID] = sign{} // asked, and never heard of
		}
	}
	return false
}
