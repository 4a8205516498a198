package api

import (
	"testing"

	"quorate/api/neon"
)

// An old follower forwards three requests of one task, all with one x-request-id.
func TestRequestsFromAnOlderMemberAreNew(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(1)
	r := w.replicas[0]
	config := func(s string) {
		g := r.do("PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"`+s+`"}`,
			"X-Request-Id", "trace", "X-Quorate-Hop", "1")
		g.want(t, 200, "null")
	}
	config("Pause")
	config("Active")
	config("Pause")
	if n, _ := r.State().Node(1); n.Scheduling != neon.SchedulingPause {
		t.Errorf("answered as done; the node is %s", n.Scheduling)
	}
}

func TestAKeyOutlivesConnection(t *testing.T) {
	w := newWorld(t, setup{replicas: 3})
	w.addNodes(1)
	config := func(s, k string) {
		w.replicas[1].do("PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"`+s+`"}`,
			"X-Request-Id", "trace", "Connection", "Idempotency-Key").want(t, 200, "null")
	}
	config("Pause", "a")
	config("Active", "b")
	config("Pause", "c")
	if n, _ := w.replicas[0].State().Node(1); n.Scheduling != neon.SchedulingPause {
		t.Errorf("answered as done; the node is %s", n.Scheduling)
	}
}
