package metrics

import (
	"context"
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// wantLines fails the test for each line that a scrape of the registry lacks.
func wantLines(t *testing.T, reg *prometheus.Registry, lines ...string) {
	t.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).
		ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	text := rec.Body.String()
	for _, line := range lines {
		if !strings.Contains(text, "storage_controller_"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestEventsAreCountedUnderTheNamesThatDashboardsKnow(t *testing.T) {
	reg, log := prometheus.NewRegistry(), fsmtest.NewLog()
	log.AddNodes(t, 2, neon.MakeAZ("a"))
	log.Must(t, fsm.UpsertSafekeeper{ID: 3, AZ: neon.MakeAZ("a"), Host: "sk"})
	m := New(reg, log.State)
	tenant := neon.TenantID{1}
	shard := neon.ShardID{Tenant: tenant, Number: 1, Count: 2}
	m.Request("v1_tenant", "POST", 201, time.Second)
	m.Request("v1_tenant_config", "PATCH", 200, time.Second)
	m.RateLimited(time.Second)
	m.Forwarded("again")
	m.Spawned()
	m.Completed("cancel")
	m.Optimised(3)
	m.LongRunning(shard, 7)
	m.LongRunning(neon.Unsharded(tenant), 8)
	m.LongEnded(neon.Unsharded(tenant), 8)
	m.Pageserver(Call{Node: 1, Path: "status", Method: "GET", Took: time.Second})
	m.Passthrough(Call{Node: 2, Path: "timeline", Method: "GET", OK: true})
	m.Safekeeper(Call{Node: 3, Path: "pull", Method: "DELETE"})
	m.SafekeeperDone(&fsm.Safekeeper{ID: 3, AZ: neon.MakeAZ("a"), Host: "sk"})
	wantLines(t, reg,
		`http_request_status{method="post",path="v1_tenant",status="201"} 1`,
		`http_request_status{method="other",path="v1_tenant_config",status="200"} 1`,
		`http_request_latency_sum{method="post",path="v1_tenant"} 1`,
		`http_request_rate_limited_sum 1`,
		`http_request_forwarded{outcome="again"} 1`,
		`reconcile_spawn 1`,
		`reconcile_complete{status="cancel"} 1`,
		`reconcile_complete{status="ok_no_notify"} 0`,
		`schedule_optimization 3`,
		`reconcile_long_running{sequence="7",shard_number="1",tenant_id="`+tenant.String()+`"} 1`,
		`pageserver_request_error{method="get",pageserver_id="1",path="status"} 1`,
		`passthrough_request_latency_count{method="get",pageserver_id="2",path="timeline"} 1`,
		`safekeeper_request_error{method="delete",path="pull",safekeeper_id="3"} 1`,
		`safekeeper_reconciles_complete{sk_az="a",sk_hostname="sk",sk_node_id="3"} 1`,
		`drain_and_fill_long_waits 0`,
	)
	if n, err := reg.Gather(); err != nil || len(n) == 0 {
		t.Fatal(err)
	}
}

func TestCommandsAreCountedAsQueriesOfTheDatabase(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, fsmtest.NewLog().State)
	m.Command(fsm.RegisterNode{}, time.Second, nil)
	m.Command(fsm.SetIntents{}, time.Second, neon.Errorf(neon.Conflict, "stale"))
	m.Command(fsm.SetIntents{}, time.Second, context.DeadlineExceeded)
	m.Command(fsm.CreateTenant{}, time.Second, neon.Errorf(neon.Internal, "broken"))
	m.Command(fsm.CreateTenant{}, time.Second, neon.Errorf(neon.NotFound, "absent"))
	wantLines(t, reg,
		`database_query_latency_sum{operation="insert_node"} 1`,
		`database_query_error{error_type="cas",operation="set_intents"} 1`,
		`database_query_error{error_type="connection",operation="set_intents"} 1`,
		`database_query_error{error_type="query",operation="insert_tenant_shards"} 1`,
		`database_query_error{error_type="logical",operation="insert_tenant_shards"} 1`,
	)
}

func TestGaugesAreComputedFromTheNewestState(t *testing.T) {
	reg := prometheus.NewRegistry()
	log, leads := fsmtest.NewLog(), false
	RegisterState(reg, log.State, func() bool { return leads })
	wantLines(t, reg, `pageserver_nodes 0`, `leadership_status{status="candidate"} 1`)

	log.Must(t, fsm.SetLeader{Leader: fsm.Leader{Address: "http://other", Term: 1}})
	wantLines(t, reg, `leadership_status{status="stepped_down"} 1`)

	leads = true
	log.AddNodes(t, 2, neon.MakeAZ("a"))
	log.Must(t, fsm.RegisterNode{
		ID: 3, AZ: neon.MakeAZ("b"), Addr: fsm.NodeAddr{HTTPHost: "ps", HTTPSPort: 1},
	})
	log.Must(t, fsm.UpsertSafekeeper{ID: 9, AZ: neon.MakeAZ("a"), Host: "sk", HTTPSPort: 1})
	log.Must(t, fsm.CreateTenant{
		ID: neon.TenantID{1}, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{Attached: 3, PreferredAZ: neon.MakeAZ("a")}},
	})
	log.Must(t, fsm.CreateTenant{
		ID: neon.TenantID{2}, Policy: neon.Placement{Kind: neon.PlaceDetached},
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{}},
	})
	log.Must(t, fsm.CreateTenant{
		ID: neon.TenantID{3}, Policy: neon.Placement{Kind: neon.PlaceDetached},
		Scheduling: neon.ShardActive, Generation: math.MaxUint32, Shards: []fsm.NewShard{{}},
	})
	wantLines(t, reg, `exhausted_tenant_shards 1`,
		`leadership_status{status="leader"} 1`, `leadership_status{status="stepped_down"} 0`,
		`pageserver_nodes 3`, `https_pageserver_nodes 1`,
		`safekeeper_nodes 1`, `https_safekeeper_nodes 1`,
		`safekeeper_reconciles_queued{sk_az="a",sk_hostname="sk",sk_node_id="9"} 0`,
		`tenant_shards 1`, `schedule_az_violation 1`,
		`node_shards{az="b",node_id="3"} 1`, `node_attached_shards{az="b",node_id="3"} 1`,
		`node_home_shards{az="b",node_id="3"} 0`,
	)
}

func TestCandidatesHaveCountedNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	RegisterCandidate(reg)
	wantLines(t, reg, `leadership_status{status="candidate"} 1`,
		`leadership_status{status="leader"} 0`, `reconcile_spawn 0`)
}

// TestSeriesOfNodesEndWithThem has nodes come and go, some with calls under way when
// they go, with scrapes or without.
func TestSeriesOfNodesEndWithThem(t *testing.T) {
	for _, scraped := range []bool{true, false} {
		reg, log := prometheus.NewRegistry(), fsmtest.NewLog()
		m := New(reg, log.State)
		before := series(t, reg)
		one := 0 // series of one node
		for i := range 100 {
			id := neon.NodeID(i + 1)
			log.Must(t, fsm.RegisterNode{
				ID: id, AZ: neon.MakeAZ("a"),
				Addr: fsm.NodeAddr{HTTPHost: "ps", HTTPPort: uint16(i + 1)},
			})
			m.Pageserver(Call{Node: id, Path: "location_config", Method: "PUT"})
			m.Passthrough(Call{Node: id, Path: "v1_tenant", Method: "GET"})
			m.Safekeeper(Call{Node: id, Path: "pull_timeline", Method: "POST"})
			m.SafekeeperDone(&fsm.Safekeeper{ID: id})
			if i == 0 {
				one = collected(m.pageservers)
			}
			log.Must(t, fsm.DeleteNode{Node: id})
			m.Pageserver(Call{Node: id, Path: "location_config", Method: "PUT"})
			if scraped {
				series(t, reg)
			}
		}
		if n := held(m.pageservers, m.safekeeper.calls, m.safekeeper.operations); n > 3 {
			t.Errorf("scraped is %v: series of %d nodes are kept", scraped, n)
		}
		if after := series(t, reg); after != before || one == 0 {
			t.Errorf("scraped is %v: %d series before, %d after 100 nodes", scraped, before, after)
		}
	}
}

func TestSafekeepersKeepOneSeriesWhenTheyMove(t *testing.T) {
	log := fsmtest.NewLog()
	log.Must(t, fsm.UpsertSafekeeper{ID: 3, AZ: neon.MakeAZ("a"), Host: "sk"})
	reg := prometheus.NewRegistry()
	m := New(reg, log.State)
	for i := range 10 {
		m.SafekeeperDone(&fsm.Safekeeper{ID: 3, AZ: neon.MakeAZ("a"), Host: fmt.Sprint("sk", i/5)})
	}
	if n := collected(m.safekeeper.operations); n != 1 {
		t.Errorf("%d series", n)
	}
	wantLines(t, reg,
		`safekeeper_reconciles_complete{sk_az="a",sk_hostname="sk1",sk_node_id="3"} 5`)
}

// held counts the nodes that may have series.
func held(all ...*nodeSeries) (n int) {
	for _, s := range all {
		s.mu.Lock()
		n = max(n, len(s.seen))
		s.mu.Unlock()
	}
	return n
}

func collected(c prometheus.Collector) (n int) {
	out := make(chan prometheus.Metric, 1000)
	c.Collect(out)
	return len(out)
}

// series counts the lines of a scrape.
func series(t *testing.T, reg *prometheus.Registry) int {
	t.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).
		ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	n := 0
	for line := range strings.Lines(rec.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}
