package testcluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// TestSeriesEnd drives a controller with paths that clients make up, and with nodes that
// come and go. Neither may leave series.
func TestSeriesEnd(t *testing.T) {
	const nodes, paths = 100, 1000
	ctx := within(t, time.Minute)
	c := testcluster.Run(t, testcluster.Builder{HeartbeatInterval: 100 * time.Millisecond})
	create(t, ctx, c, 1, 0, 0)
	atRest(t, ctx, c)
	ask := func(path string) string { return textAt(t, ctx, c.URL(0)+path) }
	tenant := "v1/tenant/" + tenantID(0).String()
	// Each of these makes series that stay.
	ask(tenant + "/no-such-path")
	ask(tenant + "/timeline")
	before := countSeries(ask("metrics"))

	for i := range paths {
		ask(fmt.Sprintf("%s/timeline/%032x/layer/0%d", tenant, i, i))
		ask(fmt.Sprintf("%s/path%d", tenant, i))
	}
	// The routes of a layer and of all that is unknown, for one pageserver.
	if n := countSeries(ask("metrics")); n > before+2*seriesOfPath {
		t.Errorf("%d series before, %d after %d paths", before, n, paths)
	}

	client := c.Client()
	for i := range nodes {
		err := client.Nodes().Register(ctx, neon.NodeRegister{
			ID: neon.NodeID(1000 + i), PgAddr: "127.0.0.1", PgPort: 1, HTTPAddr: "127.0.0.1",
			HTTPPort: uint16(1 + i), AZ: neon.MakeAZ("elsewhere"),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := func() int { return strings.Count(ask("metrics"), `pageserver_id="10`) }
	for named() < nodes*seriesOfPath {
		if err := wait.Sleep(ctx, 20*time.Millisecond); err != nil {
			t.Fatalf("%d series about nodes that do not answer", named())
		}
	}
	for i := range nodes {
		if err := client.Nodes().Drop(ctx, neon.NodeID(1000+i)); err != nil {
			t.Fatal(err)
		}
	}
	for named() > 0 { // a heartbeat may have been under way
		if err := wait.Sleep(ctx, 20*time.Millisecond); err != nil {
			t.Fatalf("%d series about nodes that were deleted", named())
		}
	}
	if n := strings.Count(ask("metrics"), `node_id="10`); n > 0 {
		t.Errorf("%d series about nodes that were deleted", n)
	}
}

// seriesOfPath is how many series one path makes, of one node: a histogram and a counter.
const seriesOfPath = 9

func countSeries(text string) (n int) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}

func textAt(t *testing.T, ctx context.Context, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
