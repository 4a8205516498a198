package api

import (
	"net/http"

	"quorate/api/neon"
)

// probeHandler answers the probes of this replica's health. It waits for nothing.
type probeHandler struct {
	isLeader func() bool // whether this replica leads, as far as it knows
	isReady  func() bool // whether it is ready, as Readiness says

	retired      func() bool   // whether another instance has taken its place
	outOfService func() string // why it must not be asked anything, as Readiness says
}

// status answers as long as the process listens.
func (h probeHandler) status(*call) (answer, error) { return done(nil) }

// live reports whether this process does what it is there for. A supervisor restarts it
// when it is not live for long, so it is live whenever a restart would help nothing: as a
// follower, without a majority, with a disk that hangs. A leader that has not looked
// around yet is not, nor is an instance whose place another one has taken.
func (h probeHandler) live(*call) (answer, error) {
	switch {
	case h.retired():
		return nullWith(false)
	case h.isLeader():
		return nullWith(h.isReady() || h.outOfService() != "")
	}
	return done(nil)
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

// healthReport is the body of /healthz.
type healthReport struct {
	Status string `json:"status"` // ok or unavailable
	Role   string `json:"role"`   // leader, follower, or retired: another instance leads
	Reason string `json:"reason,omitempty"`
}

// health is for load balancers and operators: it is OK when requests should be sent
// here, and says why not. With role=leader it is OK on the leader only.
func (h probeHandler) health(c *call) (answer, error) {
	r := healthReport{Status: "ok", Role: "follower", Reason: h.outOfService()}
	switch {
	case h.retired():
		r.Role = "retired"
	case h.isLeader():
		r.Role = "leader"
	}
	wanted := c.request.URL.Query().Get("role")
	switch {
	case wanted != "" && wanted != "leader" && wanted != "follower":
		return answer{}, neon.Errorf(neon.BadRequest, "role must be leader or follower")
	case r.Reason != "":
	case !h.isReady() && r.Role == "leader":
		r.Reason = "this leader has not looked at all pageservers yet"
	case !h.isReady():
		r.Reason = "this replica has not caught up with the leader yet"
	case wanted != "" && wanted != r.Role:
		r.Reason = "this replica is not a " + wanted
	}
	if r.Reason == "" {
		return reply(r, nil)
	}
	r.Status = "unavailable"
	return replyWith(http.StatusServiceUnavailable, r, nil)
}
