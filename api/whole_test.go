package api

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// Answers say how long they are, whatever their size: proxies of test suites copy
// headers and send the body in one piece, which a chunked one does not survive.
func TestAnswersSayHowLongTheyAre(t *testing.T) {
	w := newWorld(t, setup{})
	for _, path := range []string{
		"/metrics", "/status", "/control/v1/tenant", "/control/v1/node/5", "/nothing",
	} {
		got := w.replicas[0].do("GET", path, "")
		if n := got.header.Get("Content-Length"); n != strconv.Itoa(len(got.body)) {
			t.Errorf("GET %s: %d bytes, but the header says %q", path, len(got.body), n)
		}
	}
	server := httptest.NewServer(NewCandidate())
	defer server.Close()
	get := func(path string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/openmetrics-text")
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	resp, text := get("/metrics")
	if resp.ContentLength < 2048 || resp.Header.Get("Content-Type") != textFormat {
		t.Errorf("a candidate's metrics: length %d, %s", resp.ContentLength,
			resp.Header.Get("Content-Type"))
	}
	for _, line := range []string{
		`storage_controller_leadership_status{status="candidate"} 1`,
		`storage_controller_reconcile_complete{status="ok"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("a candidate's metrics lack %s", line)
		}
	}
	if resp, _ := get("/profile/heap"); resp.StatusCode != 200 || resp.ContentLength == 0 {
		t.Errorf("a candidate's profile: %d, length %d", resp.StatusCode, resp.ContentLength)
	}
	if resp, text := get("/profile/heap?format=x"); resp.StatusCode != 400 {
		t.Errorf("a candidate's profile: %d %s", resp.StatusCode, text)
	}
}
