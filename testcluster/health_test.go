package testcluster_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/testcluster"
)

// probed is what a controller says on a path.
type probed struct {
	status int
	body   string
	retry  string // Retry-After
	took   time.Duration
}

func (f *faulty) probe(i int, path string) probed {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet,
		strings.TrimSuffix(f.URL(i), "/")+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	begun := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return probed{resp.StatusCode, string(body), resp.Header.Get("Retry-After"), time.Since(begun)}
}

// soon waits until something holds.
func (f *faulty) soon(limit time.Duration, what string, holds func() bool) {
	f.Helper()
	for begun := time.Now(); !holds(); {
		if time.Since(begun) > limit {
			f.Fatalf("not after %s: %s", limit, what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// is reports whether all probes of a controller have these statuses.
func (f *faulty) is(i, live, ready int) bool {
	return f.probe(i, "/status").status == http.StatusOK && f.probe(i, "/live").status == live &&
		f.probe(i, "/ready").status == ready && f.probe(i, "/healthz").status == ready
}

// TestProbesOfProcessesWithoutAMajority kills two of three. The third one is not ready
// within seconds, says who is missing and what to do, refuses reads and writes within
// seconds, and a supervisor that asks whether it is live leaves it alone.
func TestProbesOfProcessesWithoutAMajority(t *testing.T) {
	f := startFaulty(t, testcluster.Builder{Controllers: 3})
	for i := range 3 {
		f.soon(10*time.Second, "all are ready", func() bool { return f.is(i, 200, 200) })
	}
	leader, others := f.leader()
	last := others[0]
	f.must("kill the leader", f.Kill(leader))
	f.must("kill a follower", f.Kill(others[1]))
	f.soon(10*time.Second, "it is not ready", func() bool { return f.is(last, 200, 503) })
	names := []string{"No leader for ", "; missing: ", "rescue"}
	for _, i := range []int{leader, others[1]} {
		names = append(names, "c"+string(rune('1'+i))+" at ")
	}
	says := func(what, body string) {
		t.Helper()
		for _, name := range names {
			if !strings.Contains(body, name) {
				t.Errorf("%s does not say %q: %s", what, name, body)
			}
		}
	}
	says("/ready", f.probe(last, "/ready").body)
	p := f.probe(last, "/healthz")
	var report struct{ Status, Role, Reason string }
	if err := json.Unmarshal([]byte(p.body), &report); err != nil || report.Status != "unavailable" ||
		report.Role != "follower" {
		t.Errorf("/healthz: %s, %v", p.body, err)
	}
	says("/healthz", report.Reason)
	for _, path := range []string{"/control/v1/node", "/control/v1/tenant", "/debug/v1/tenant"} {
		p := f.probe(last, path)
		if p.status != 503 || p.retry == "" || p.took > 10*time.Second {
			t.Errorf("%s: %d after %s, Retry-After %q", path, p.status, p.took, p.retry)
		}
		says(path, p.body)
	}

	f.must("restart", f.Restart(f.ctx, leader))
	for _, i := range []int{last, leader} {
		f.soon(30*time.Second, "ready again", func() bool { return f.is(i, 200, 200) })
	}
	f.write(f.Client(), 1)
}

// TestAControllerWithAFullDiskIsNotReady, and is again once there is space.
func TestAControllerWithAFullDiskIsNotReady(t *testing.T) {
	f := startFaulty(t, testcluster.Builder{Controllers: 3})
	_, others := f.leader()
	full := others[0]
	f.must("fill", f.FillDisk(full))
	f.write(f.Client(), 1)
	f.soon(30*time.Second, "not ready", func() bool { return f.is(full, 200, 503) })
	if p := f.probe(full, "/ready"); !strings.Contains(p.body, "disk") {
		t.Errorf("it does not say why: %s", p.body)
	}
	f.must("heal", f.HealDisk(full))
	f.soon(30*time.Second, "ready again", func() bool { return f.is(full, 200, 200) })
}
