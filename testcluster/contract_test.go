package testcluster_test

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/internal/contract"
	"quorate/testcluster"
)

// series is what is exposed under one name.
type series struct {
	kind    string
	labels  []string            // of the first line, sorted, without le
	values  map[string][]string // of each label
	buckets []string            // finite ones, of the first line's labels
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"`)
)

// exposed reads the text format.
func exposed(t *testing.T, text string) map[string]*series {
	t.Helper()
	all := map[string]*series{}
	var current string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := typeLine.FindStringSubmatch(line); m != nil {
			current = m[1]
			all[current] = &series{kind: m[2], values: map[string][]string{}}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || current == "" || !strings.HasPrefix(m[1], current) {
			if !strings.HasPrefix(line, "# HELP ") {
				t.Errorf("what is %q?", line)
			}
			continue
		}
		s := all[current]
		var names []string
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if pair[1] == "le" {
				if pair[2] != "+Inf" && !slices.Contains(s.buckets, pair[2]) {
					s.buckets = append(s.buckets, pair[2])
				}
				continue
			}
			names = append(names, pair[1])
			s.values[pair[1]] = append(s.values[pair[1]], pair[2])
		}
		slices.Sort(names)
		s.labels = names
	}
	return all
}

func scrape(t *testing.T, url string) map[string]*series {
	t.Helper()
	resp, err := http.Get(strings.TrimSuffix(url, "/") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return exposed(t, string(text))
}

// TestContractMetrics looks at what a controller exposes before and after work of
// the usual kinds.
func TestContractMetrics(t *testing.T) {
	c := testcluster.Run(t, testcluster.Builder{Pageservers: 2, Safekeepers: 3})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := scrape(t, c.URL(0))
	work(ctx, t, c)
	var after map[string]*series
	for ctx.Err() == nil { // heartbeats and the like take a moment
		after = scrape(t, c.URL(0))
		if !slices.ContainsFunc(contract.Rows(contract.Metric), func(
			r contract.Row,
		) bool {
			return r.Cell("shown") != "rare" && after[r.Name] == nil
		}) {
			break
		}
		<-time.After(20 * time.Millisecond)
		if time.Until(deadline(ctx)) < 30*time.Second {
			break
		}
	}
	for _, row := range contract.Rows(contract.Metric) {
		if row.Cell("shown") == "rare" {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			s := after[row.Name]
			if s == nil || row.Cell("shown") == "start" && before[row.Name] == nil {
				t.Fatalf("it is shown before work: %v, after: %v", before[row.Name] != nil,
					s != nil)
			}
			if s.kind != row.Cell("type") || strings.Join(s.labels, " ") != row.Cell("labels") {
				t.Errorf("it is a %s with labels %v, want a %s with %s", s.kind, s.labels,
					row.Cell("type"), row.Cell("labels"))
			}
			if strings.Join(s.buckets, " ") != row.Cell("buckets") {
				t.Errorf("its buckets are %v, want %s", s.buckets, row.Cell("buckets"))
			}
			for _, value := range row.Words("series") {
				if !slices.Contains(before[row.Name].values[row.Cell("labels")], value) {
					t.Errorf("there is no series %s at the start", value)
				}
			}
			row.Tick(t)
		})
	}
}

func deadline(ctx context.Context) time.Time { d, _ := ctx.Deadline(); return d }

// work has pageservers and safekeepers called, with and without success.
func work(ctx context.Context, t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	cl := c.Client()
	defer cl.Close()
	tenant, timeline := neon.TenantID{1}, neon.TimelineID{2}
	version := neon.PgVersion(16)
	_, err := cl.Tenants().Create(ctx, neon.TenantCreateRequest{Tenant: neon.Unsharded(tenant)})
	if err == nil {
		err = c.WaitQuiescent(ctx)
	}
	if err == nil {
		c.Safekeepers().Node(3).Kill()
		_, err = cl.Timelines().Create(ctx, tenant, neon.TimelineCreateRequest{
			Timeline: timeline, Bootstrap: &neon.TimelineBootstrap{PgVersion: &version},
		})
	}
	if err == nil {
		err = c.Safekeepers().Node(3).Start() // which then gets what it missed
	}
	if err == nil {
		_, err = cl.Timelines().Get(ctx, tenant, timeline)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = cl.Timelines().Get(ctx, tenant, neon.TimelineID{3}) // which does not exist
}
