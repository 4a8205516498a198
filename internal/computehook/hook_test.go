package computehook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

func notification(t *testing.T) neon.NotifyAttach {
	t.Helper()
	tenant, err := neon.ParseTenantID("1f359dd625e519a1a4e8d7509690f6fe")
	if err != nil {
		t.Fatal(err)
	}
	return neon.NotifyAttach{
		Tenant: tenant, PreferredAZ: neon.MakeAZ("az-a"), StripeSize: new(neon.StripeSize(2048)),
		Shards: neon.List[neon.NotifyShard]{{Node: 1, Number: 0}, {Node: 2, Number: 1}},
	}
}

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c := New(Options{BaseURL: srv.URL + "/hooks/", Token: func() string { return "secret" }})
	t.Cleanup(c.Close)
	return c
}

func TestNotifyAttachSendsTheContractsRequest(t *testing.T) {
	got := make(chan string, 1)
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " +
			r.Header.Get("Content-Type") + " " + string(b)
	})
	if o := c.NotifyAttach(t.Context(),
		notification(t)); o != (Outcome{Kind: Applied, Status: 200}) {
		t.Errorf("outcome %+v", o)
	}
	want := `PUT /hooks/notify-attach Bearer secret application/json ` +
		`{"tenant_id":"1f359dd625e519a1a4e8d7509690f6fe","preferred_az":"az-a","stripe_size":2048,"shards":[{"node_id":1,"shard_number":0},{"node_id":2,"shard_number":1}]}`
	if s := <-got; s != want {
		t.Errorf("sent\n%s\nwant\n%s", s, want)
	}
}

func TestOutcomeFollowsTheStatus(t *testing.T) {
	status := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "why")
	})
	for s, want := range map[int]Kind{
		200: Applied, 201: Applied, 204: Applied, 302: Unexpected, 400: Fatal, 401: Fatal,
		403: Fatal, 404: Unexpected,
		409: Unexpected, 423: Busy, 429: SlowDown, 500: Unexpected, 502: Retryable, 503: Retryable,
		504: Retryable,
	} {
		status = s
		o := c.NotifyAttach(t.Context(), notification(t))
		if o.Kind != want || o.Status != s || (o.Err == nil) != (want == Applied) {
			t.Errorf("status %d: outcome %v %d %v, want %v", s, o.Kind, o.Status, o.Err, want)
		}
		if want == Fatal && !strings.Contains(o.Err.Error(), "why") {
			t.Errorf("status %d: the error hides the reason: %v", s, o.Err)
		}
	}
}

func TestNoAnswerIsRetryable(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	url := srv.URL
	srv.Close()
	c := New(Options{BaseURL: url})
	if o := c.NotifyAttach(t.Context(), notification(t)); o.Kind != Retryable || o.Status != 0 ||
		o.Err == nil {
		t.Errorf("refused connection: %+v", o)
	}

	release := make(chan struct{})
	hung := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if o := hung.NotifyAttach(ctx, notification(t)); o.Kind != Retryable ||
		!errors.Is(o.Err, context.DeadlineExceeded) {
		t.Errorf("hung control plane: %+v", o)
	}
}

func TestBadBaseURLIsFatal(t *testing.T) {
	if o := New(Options{BaseURL: "http://%"}).NotifyAttach(t.Context(),
		notification(t)); o.Kind != Fatal {
		t.Errorf("outcome %+v", o)
	}
}

// The control plane may have died while it answered.
func TestSuccessThatBreaksOffIsRetryable(t *testing.T) {
	status := http.StatusOK
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "half")
	})
	if o := c.NotifyAttach(t.Context(), notification(t)); o.Kind != Retryable || o.Err == nil {
		t.Errorf("outcome %+v", o)
	}
	status = http.StatusLocked
	if o := c.NotifyAttach(t.Context(), notification(t)); o.Kind != Busy || o.Status != status {
		t.Errorf("a refusal that breaks off: %+v", o)
	}
}
