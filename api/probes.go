package api

import (
	"net/http"
)

// probeHandler answers the probes of this replica's health. It waits for nothing.
type probeHandler struct {
	isLeader func() bool // whether this replica leads, as far as it knows
	isReady  func() bool // whether it is ready, as Readiness says

	outOfService func() string // why it must not be asked anything, as Readiness says
}

// status answers as long as the process listens.
func (h probeHandler) status(*call) (answer, error) { return done(nil) }

// live reports whether this replica leads and has looked around.
func (h probeHandler) live(*call) (answer, error) {
	return nullWith(h.isLeader() && h.isReady())
}

// ready reports whether this replica can answer everything. It says why a replica was
// taken out of service: only an operator may know what to do about that.
func (h probeHandler) ready(*call) (answer, error) {
	if why := h.outOfService(); why != "" {
		return answer{
			status: http.StatusServiceUnavailable,
			body:   errorBody("This replica is out of service: " + why),
		}, nil
	}
	return nullWith(h.isReady())
}

func nullWith(ok bool) (answer, error) {
	if ok {
		return done(nil)
	}
	return answer{status: http.StatusServiceUnavailable, body: null}, nil
}
