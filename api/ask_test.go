package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What a follower asks the leader for is the same to the last byte as what the leader
// answers itself, and as what a request brings back that was carried to it.
func TestAskingTheLeaderIsLikeCarryingTheRequest(t *testing.T) {
	for _, asks := range []bool{true, false} {
		var s spy
		w := newWorld(t, setup{replicas: 3, wrap: s.wrap})
		if !asks {
			for _, r := range w.replicas {
				r.server.ask = nil
			}
		}
		w.addNodes(3)
		leader, follower := w.replicas[0], w.replicas[1]
		w.setLeader(0)
		id := tenantID(t, "1f359dd625e519a1a4e8d7509690f6fc")
		body := fmt.Sprintf(`{"new_tenant_id":"%s","shard_parameters":{"count":4,`+
			`"stripe_size":2048}}`, id)
		if got := leader.do("POST", "/v1/tenant", body); got.status != http.StatusCreated {
			t.Fatal(got)
		}
		absent := tenantID(t, "2f359dd625e519a1a4e8d7509690f6fc")
		for _, path := range []string{
			id.String(), absent.String(), id.String() + "/", id.String() + "-0004", "x", "%20",
			id.String() + "?limit=1",
		} {
			carried := len(s.all())
			want := leader.do("GET", "/control/v1/tenant/"+path, "", "X-Request-Id", "same")
			got := follower.do("GET", "/control/v1/tenant/"+path, "", "X-Request-Id", "same")
			got.want(t, want.status, want.body)
			want.header.Del("Date")
			got.header.Del("Date")
			if fmt.Sprint(got.header) != fmt.Sprint(want.header) {
				t.Errorf("%s: headers %v, want %v", path, got.header, want.header)
			}
			isTenant := strings.HasPrefix(path, id.String()) && !strings.Contains(path, "-") ||
				path == absent.String()
			n := len(s.all()) - carried
			if asks && isTenant && n != 0 || !(asks && isTenant) && n != 1 {
				t.Errorf("%s: asks %v, carried %d times", path, asks, n)
			}
		}
	}
}

// A leader that cannot answer now is brought the request itself, which waits.
func TestALeaderThatDoesNotServeYetGivesNoAnswer(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	w.setLeader(0)
	leader := w.replicas[0].server
	id := tenantID(t, "1f359dd625e519a1a4e8d7509690f6fc")
	question := append([]byte{askDescribe}, id[:]...)
	if len(leader.Answer(nil, question)) == 0 {
		t.Error("no answer of a leader that serves")
	}
	for _, bad := range [][]byte{nil, {askDescribe}, question[:10], {99, 1}, append(question, 1)} {
		if b := leader.Answer([]byte("x"), bad); string(b) != "x" {
			t.Errorf("%x: %q", bad, b)
		}
	}
	if b := w.replicas[1].server.Answer(nil, question); len(b) > 0 {
		t.Errorf("a follower answered %q", b)
	}
	w.replicas[0].mu.Lock()
	w.replicas[0].notReady = true
	w.replicas[0].mu.Unlock()
	if b := leader.Answer(nil, question); len(b) > 0 {
		t.Errorf("answered %q", b)
	}
}

// A leader that is deposed while it answers has seen the shards in no term.
func TestALeaderThatIsDeposedMeanwhileGivesNoAnswer(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.setLeader(0)
	led := 0
	leader := w.replicas[0].server
	leader.isLeader = func() bool { led++; return led == 1 }
	id := tenantID(t, "1f359dd625e519a1a4e8d7509690f6fc")
	if b := leader.Answer([]byte("x"), append([]byte{askDescribe}, id[:]...)); string(b) != "x" {
		t.Errorf("answered %q", b)
	}
}
