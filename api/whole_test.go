package api

import (
	"net/http/httptest"
	"strconv"
	"testing"
)

// Answers say how long they are, whatever their size: proxies of test suites copy
// headers and send the body in one piece, which a chunked one does not survive.
func TestAnswersSayHowLongTheyAre(t *testing.T) {
	w := newWorld(t, setup{})
	for _, path := range []string{"/metrics", "/status", "/control/v1/tenant", "/control/v1/node/5", "/nothing"} {
		got := w.replicas[0].do("GET", path, "")
		if n := got.header.Get("Content-Length"); n != strconv.Itoa(len(got.body)) {
			t.Errorf("GET %s: %d bytes, but the header says %q", path, len(got.body), n)
		}
	}
	server := httptest.NewServer(NewCandidate())
	defer server.Close()
	resp, err := server.Client().Get(server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ContentLength < 2048 {
		t.Errorf("a candidate's metrics: length %d", resp.ContentLength)
	}
}
