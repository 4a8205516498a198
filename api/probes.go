package api

import (
	"net/http"
)

// probeHandler answers those who ask whether this replica is well. It waits for
// nothing.
type probeHandler struct {
	isLeader func() bool // whether this replica leads, as far as it knows
	isReady  func() bool // whether it is ready, as Readiness says
}

// status says that the process listens.
func (h probeHandler) status(*call) (answer, error) { return done(nil) }

// live says that this replica leads and has isReady around.
func (h probeHandler) live(*call) (answer, error) {
	return nullWith(h.isLeader() && h.isReady())
}

// ready says that this replica can answer everything.
func (h probeHandler) ready(*call) (answer, error) { return nullWith(h.isReady()) }

func nullWith(ok bool) (answer, error) {
	if ok {
		return done(nil)
	}
	return answer{status: http.StatusServiceUnavailable, body: null}, nil
}
