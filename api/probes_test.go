package api

import (
	"strings"
	"testing"
)

// This is the table of docs/operating.md: what each probe says of a replica.
func TestProbes(t *testing.T) {
	const why = "the disk here: full"
	for _, c := range []struct {
		name                                   string
		leads, starting, out, retired          bool
		status, live, ready, healthz, asLeader int
		reason                                 string
	}{
		{"a leader", true, false, false, false, 200, 200, 200, 200, 200, ""},
		{"a leader that looks around", true, true, false, false, 200, 503, 503, 503, 503, "pageservers"},
		{"a leader whose disk is full", true, false, true, false, 200, 200, 503, 503, 503, why},
		{"a follower", false, false, false, false, 200, 200, 200, 200, 503, ""},
		{"a follower that starts", false, true, false, false, 200, 200, 503, 503, 503, "caught up"},
		{"a replica that is out of service", false, false, true, false, 200, 200, 503, 503, 503, why},
		{"an instance that has retired", false, false, false, true, 200, 503, 200, 200, 503, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, setup{replicas: 2})
			r := w.replicas[0]
			if !c.leads {
				w.setLeader(1)
			}
			r.notReady, r.retired = c.starting, c.retired
			if c.out {
				r.outOfService = why
			}
			for path, want := range map[string]int{
				"/status": c.status, "/live": c.live, "/ready": c.ready, "/healthz": c.healthz,
				"/healthz?role=leader": c.asLeader, "/healthz?role=x": 400,
			} {
				for _, method := range []string{"GET", "HEAD"} {
					g := r.do(method, path, "")
					if g.status != want {
						t.Errorf("%s %s: %d %s, want %d", method, path, g.status, g.body, want)
					}
				}
				g := r.do("GET", path, "")
				if path == "/healthz" && !strings.Contains(g.body, c.reason) ||
					path == "/ready" && c.out && !strings.Contains(g.body, why) {
					t.Errorf("%s does not say why: %s", path, g.body)
				}
			}
		})
	}
}
