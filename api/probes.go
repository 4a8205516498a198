package api

import (
	"net/http"
)

// probeHandler answers the probes of this replica's health. It waits for nothing.
type probeHandler struct {
	isLeader func() bool // whether this replica leads, as far as it knows
	isReady  func() bool // whether it is ready, as Readiness says
}

// status answers as long as the process listens.
func (h probeHandler) status(*call) (answer, error) { return done(nil) }

// live reports whether this replica leads and has looked around.
func (h probeHandler) live(*call) (answer, error) {
	return nullWith(h.isLeader() && h.isReady())
}

// ready reports whether this replica can answer everything.
func (h probeHandler) ready(*call) (answer, error) { return nullWith(h.isReady()) }

func nullWith(ok bool) (answer, error) {
	if ok {
		return done(nil)
	}
	return answer{status: http.StatusServiceUnavailable, body: null}, nil
}
