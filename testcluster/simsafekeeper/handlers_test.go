package simsafekeeper

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

var (
	ref   = neon.TimelineRef{Tenant: neon.TenantID{1}, Timeline: neon.TimelineID{2}}
	first = neon.Membership{Generation: 1, Members: members(1, 2, 3)}
)

// newFleet has four running safekeepers, which are asked with a token.
func newFleet(t *testing.T) *Fleet {
	t.Helper()
	f := NewFleet()
	t.Cleanup(f.Close)
	for id := neon.NodeID(1); id <= 4; id++ {
		n := f.Add(id, "secret",
			func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// ask sends a request with the token; status 0 means that no answer came.
func ask(
	t *testing.T, n *Node, method, path string, body any,
) (status int, text string) {
	t.Helper()
	return askAs(t, n, "secret", method, path, body)
}

func askAs(
	t *testing.T, n *Node, token, method, path string, body any,
) (status int, text string) {
	t.Helper()
	in, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addr()+path,
		bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, out.String()
}

// want asks and demands a status.
func want(t *testing.T, status int, n *Node, method, path string, body any) string {
	t.Helper()
	got, text := ask(t, n, method, path, body)
	if got != status {
		t.Fatalf("%s %s: status %d, %s; want %d", method, path, got, text, status)
	}
	return text
}

const createPath = "/v1/tenant/timeline"

func timelinePath(action string) string {
	return "/v1/tenant/" + ref.Tenant.String() + "/timeline/" + ref.Timeline.String() + action
}

func creation(conf neon.Membership) neon.SafekeeperTimelineCreate {
	return neon.SafekeeperTimelineCreate{
		Tenant: ref.Tenant, Timeline: ref.Timeline, Membership: conf, StartLsn: 16,
	}
}

// complains demands that the fleet has seen what an invariant forbids, or nothing.
func complains(t *testing.T, f *Fleet, about string) {
	t.Helper()
	err := f.Err()
	switch {
	case about == "" && err != nil:
		t.Error(err)
	case about != "" && (err == nil || !strings.Contains(err.Error(), about)):
		t.Errorf("error %v, want %s", err, about)
	}
}

func TestRequestsThatNoSafekeeperServesAreRefused(t *testing.T) {
	f := newFleet(t)
	n := f.Node(1)
	if got, _ := askAs(t, n, "wrong", "GET", "/v1/utilization", nil); got != 403 {
		t.Errorf("a wrong token: status %d", got)
	}
	for path, status := range map[string]int{
		"/v1/nothing": 404, "/v1/tenant/x": 400, timelinePath("/nothing"): 404,
		"/v1/tenant/" + ref.Tenant.String() + "/timeline/x": 400,
		"/v1/tenant/" + ref.Tenant.String():                 404, createPath: 400,
	} {
		want(t, status, n, "POST", path, "text")
	}
}

func TestCreateIsIdempotentAndOnlyForMembers(t *testing.T) {
	f := newFleet(t)
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	n := f.Node(1)
	want(t, 200, n, "POST", createPath, creation(first))
	want(t, 200, n, "POST", createPath, creation(first))
	want(t, 400, f.Node(4), "POST", createPath, creation(first))
	if conf, ok := n.Has(ref); !ok || conf.Generation != 1 || n.Count() != 1 {
		t.Errorf("has %v %v, %d timelines", conf, ok, n.Count())
	}
	if text := want(t, 200, n, "GET", "/v1/utilization", nil); !strings.Contains(text, "1") {
		t.Errorf("utilization %s", text)
	}
	complains(t, f, "")
}

func TestAnUncommittedConfigurationIsFound(t *testing.T) {
	f := newFleet(t)
	f.Commit(1, nil)
	want(t, 200, f.Node(1), "POST", createPath, creation(first))
	complains(t, f, "I27")

	f = newFleet(t)
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	other := neon.Membership{Generation: 2, Members: members(1, 2, 4)}
	want(t, 200, f.Node(1), "POST", createPath, creation(other))
	complains(t, f, "I27")
}

func TestTheLogMustNotChangeWhatItSaid(t *testing.T) {
	for about, conf := range map[string]neon.Membership{
		"I28": {Generation: 2, Members: members(1, 2, 4)},
		"I27": {Generation: 1, Members: members(1, 2, 3)},
	} {
		f := newFleet(t)
		f.Commit(1, []Committed{
			{Ref: ref, Conf: neon.Membership{Generation: 2, Members: members(1, 2, 3)}},
		})
		f.Commit(2, []Committed{{Ref: ref, Conf: conf}})
		complains(t, f, about)
	}
	f := newFleet(t)
	f.Commit(5, nil)
	f.Commit(4, []Committed{{Ref: ref, Conf: first}}) // it was hidden at entry 5
	complains(t, f, "I27")
}

func TestATombstoneOutlastsLateRequestsButNotARestart(t *testing.T) {
	f := newFleet(t)
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	n := f.Node(1)
	want(t, 200, n, "POST", createPath, creation(first))
	f.Commit(2, nil) // deleted
	want(t, 200, n, "DELETE", timelinePath(""), nil)
	want(t, 500, n, "POST", createPath, creation(first))
	n.Kill()
	if n.Running() {
		t.Error("it runs after a kill")
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if n.Start() == nil {
		t.Error("started twice")
	}
	want(t, 200, n, "POST", createPath, creation(first))
	want(t, 200, n, "DELETE", "/v1/tenant/"+ref.Tenant.String(), nil)
	want(t, 500, n, "POST", createPath, creation(first))
	complains(t, f, "")
}

func TestDeletingWhatIsNotDeletedIsFound(t *testing.T) {
	f := newFleet(t)
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	want(t, 200, f.Node(1), "DELETE", timelinePath(""), nil)
	complains(t, f, "I29")
}

func TestMembershipNeverGoesBack(t *testing.T) {
	f := newFleet(t)
	second := neon.Membership{Generation: 2, Members: members(1, 2, 3)}
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	f.Commit(2, []Committed{{Ref: ref, Conf: second}})
	n := f.Node(1)
	want(t, 404, n, "PUT", timelinePath("/membership"), second)
	want(t, 200, n, "POST", createPath, creation(first))
	want(t, 200, n, "PUT", timelinePath("/membership"), second)
	want(t, 409, n, "PUT", timelinePath("/membership"), first)
}

func TestExcludeIsOnlyForThoseOutside(t *testing.T) {
	f := newFleet(t)
	second := neon.Membership{Generation: 2, Members: members(2, 3, 4)}
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	f.Commit(2, []Committed{{Ref: ref, Conf: second}})
	want(t, 200, f.Node(1), "POST", createPath, creation(first))
	want(t, 200, f.Node(1), "PUT", timelinePath("/exclude"), second)
	if _, ok := f.Node(1).Has(ref); ok {
		t.Error("it has the timeline from which it was excluded")
	}
	complains(t, f, "")
	want(t, 403, f.Node(2), "PUT", timelinePath("/exclude"), second)
	complains(t, f, "I29")
}

func TestPullTakesTheLongestLogOfAllDonorsButOne(t *testing.T) {
	f := newFleet(t)
	second := neon.Membership{Generation: 2, Members: members(2, 3, 4)}
	f.Commit(1, []Committed{{Ref: ref, Conf: first}})
	f.Commit(2, []Committed{{Ref: ref, Conf: second}})
	pull := neon.PullTimelineRequest{
		Tenant: ref.Tenant, Timeline: ref.Timeline, Membership: &second,
	}
	for id := neon.NodeID(1); id <= 3; id++ {
		want(t, 200, f.Node(id), "POST", createPath, creation(first))
		pull.HTTPHosts = append(pull.HTTPHosts, "http://"+f.Node(id).Addr())
	}
	f.Append(ref, 1, 64, 2, 3)
	f.Node(2).Kill()
	f.Node(3).Kill()
	want(t, 500, f.Node(4), "POST", "/v1/pull_timeline", pull) // one of three answers
	if err := f.Node(3).Start(); err != nil {
		t.Fatal(err)
	}
	pull.HTTPHosts[2] = "http://" + f.Node(3).Addr()
	text := want(t, 200, f.Node(4), "POST", "/v1/pull_timeline", pull)
	if !strings.Contains(text, f.Node(3).Addr()) {
		t.Errorf("it was pulled from %s, the longest log is on 3", text)
	}
	want(t, 200, f.Node(4), "POST", "/v1/pull_timeline", pull) // it is there already
	if conf, ok := f.Node(4).Has(ref); !ok || conf.Generation != 2 {
		t.Errorf("has %v %v", conf, ok)
	}
	complains(t, f, "")
}

func TestALostReplyIsOfAChangeThatWasMade(t *testing.T) {
	f := newFleet(t)
	n := f.Node(1)
	n.LoseReplies(1)
	want(t, 0, n, "POST", createPath, creation(first))
	if _, ok := n.Has(ref); !ok {
		t.Error("the change was lost as well")
	}
	want(t, 200, n, "POST", createPath, creation(first))
}

func TestAKillEndsWhatIsDelayed(t *testing.T) {
	f := newFleet(t)
	n := f.Node(1)
	n.Delay(time.Hour)
	done := make(chan int)
	go func() {
		status, _ := ask(t, n, "POST", createPath, creation(first))
		done <- status
	}()
	want(t, 200, n, "GET", "/v1/utilization", nil) // reads are not delayed
	n.Kill()
	if status := <-done; status != 0 {
		t.Errorf("status %d of a request that a kill ended", status)
	}
	if n.Count() != 0 {
		t.Error("a delayed change was made after the kill")
	}
}
