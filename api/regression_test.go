package api

import (
	"testing"
	"time"
)

// TestProbesWaitForNobody: a probe that asks whether the process lives is answered at
// once, also while no replica leads and every other request waits for a leader. A
// launcher would restart it otherwise.
func TestProbesWaitForNobody(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.setLeader(-1)
	for _, r := range w.replicas {
		r.notReady = true
		for path, want := range map[string]int{
			"/status": 200, "/ready": 503, "/live": 200, "/healthz": 503, "/metrics": 200,
		} {
			begun := time.Now()
			g := r.do("GET", path, "")
			if took := time.Since(begun); g.status != want || took > 3*time.Second {
				t.Errorf("%s: %d after %s", path, g.status, took)
			}
		}
	}
}
