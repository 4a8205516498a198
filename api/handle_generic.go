package api

import (
	"bytes"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"quorate/api/neon"
	"quorate/fsm"
)

func newScrape(o Options) http.Handler {
	o.Registry.MustRegister(&stateCollector{options: o, descs: stateDescs()})
	return promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{DisableCompression: true})
}

// textFormat is the content type of the metrics.
const textFormat = "text/plain; version=0.0.4"

// metricsText prints all series.
func (s *Server) metricsText(c *call) (answer, error) {
	return scraped(s.scrape, c.request), nil
}

// scraped is what a scrape of the metrics gets.
func scraped(scrape http.Handler, r *http.Request) answer {
	w := &recorder{header: http.Header{}}
	plain := r.Clone(r.Context())
	plain.Header = http.Header{} // there is one format, whatever is asked for
	scrape.ServeHTTP(w, plain)
	w.header.Set("Content-Type", textFormat)
	return answer{status: w.status, header: w.header, body: w.body.Bytes()}
}

// recorder holds what a foreign handler writes.
type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// status says that the process listens.
func (s *Server) status(*call) (answer, error) { return done(nil) }

// live says that this replica leads and has looked around.
func (s *Server) live(*call) (answer, error) {
	return nullWith(s.Leadership.IsLeader() && s.Readiness.Ready())
}

// readyStatus says that this replica can answer everything.
func (s *Server) readyStatus(*call) (answer, error) { return nullWith(s.Readiness.Ready()) }

func nullWith(ok bool) (answer, error) {
	if ok {
		return done(nil)
	}
	return answer{status: http.StatusServiceUnavailable, body: null}, nil
}

// leader names the replica that last took up its duties.
func (s *Server) leader(c *call) (answer, error) {
	l, err := s.Debug.Leader(c.ctx)
	if err != nil || l.Address == "" {
		return done(err)
	}
	return reply(neon.Leader{Address: l.Address, StartedAt: time.UnixMilli(l.StartedAt).UTC()}, nil)
}

// stepDown hands leadership over, if this replica has it, and tells what was seen.
func (s *Server) stepDown(c *call) (answer, error) {
	s.Logger.Info("Received step down request from peer")
	if s.Failpoints != nil {
		if err := s.Failpoints.Sleep(c.ctx, "sleep-on-step-down-handling"); err != nil {
			return answer{}, err
		}
	}
	return reply(s.Leadership.StepDown(c.ctx))
}

// Cluster is the answer of GET /debug/v1/cluster: the members as the replica that
// was asked sees them.
type Cluster struct {
	ID           string   `json:"cluster_id"`
	Server       string   `json:"server_id"` // of the replica that answers
	Leader       string   `json:"leader_id"` // empty when none is known
	Term         uint64   `json:"term"`
	CommitIndex  uint64   `json:"commit_index"`
	AppliedIndex uint64   `json:"applied_index"`
	Level        uint64   `json:"feature_level"` // that all members know
	Members      []Member `json:"members"`
}

// Member is one replica of a Cluster.
type Member struct {
	ID          string `json:"id"`
	RaftAddr    string `json:"raft_addr"`
	HTTPAddr    string `json:"http_addr"`
	Role        string `json:"role"` // leader, voter or learner
	LastContact string `json:"last_contact"`
	Applied     uint64 `json:"applied_index"`
	Lag         uint64 `json:"lag"`           // entries behind the leader
	Level       uint64 `json:"feature_level"` // that its version knows; 0: not known
}

func (s *Server) clusterStatus(*call) (answer, error) { return reply(s.Cluster(), nil) }

// stateCollector computes gauges from the replicated state when they are asked
// for.
type stateCollector struct {
	options Options
	descs   map[string]*prometheus.Desc
}

func stateDescs() map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc)
	add := func(name, help string, labels ...string) {
		descs[name] = prometheus.NewDesc(metricPrefix+name, help, labels, nil)
	}
	add("tenant_shards", "Shards of tenants that are not detached")
	add("pageserver_nodes", "Registered pageservers")
	add("https_pageserver_nodes", "Registered pageservers with a port for HTTPS")
	add("safekeeper_nodes", "Registered safekeepers")
	add("https_safekeeper_nodes", "Registered safekeepers with a port for HTTPS")
	add("schedule_az_violation", "Shards that are attached in another zone than they prefer")
	add("safekeeper_reconciles_queued", "Operations that a safekeeper owes", "sk_az", "sk_node_id",
		"sk_hostname")
	add("leadership_status", "1 for what this replica is", "status")
	add("node_shards", "Intended locations", "az", "node_id")
	add("node_attached_shards", "Intended attached locations", "az", "node_id")
	add("node_home_shards", "Intended locations of shards that prefer the zone of the node", "az",
		"node_id")
	return descs
}

// Describe is part of prometheus.Collector.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(name string, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, float64(v),
			labels...)
	}
	st := c.options.State()
	nodes, https := 0, 0
	for n := range st.Nodes() {
		nodes++
		if n.Addr.HTTPSPort != 0 {
			https++
		}
		counts, az, id := st.Counts(n.ID), n.AZ.String(), n.ID.String()
		gauge("node_shards", counts.Shards, az, id)
		gauge("node_attached_shards", counts.Attached, az, id)
		gauge("node_home_shards", counts.Home, az, id)
	}
	keepers, httpsKeepers := 0, 0
	for k := range st.Safekeepers() {
		keepers++
		if k.HTTPSPort != 0 {
			httpsKeepers++
		}
		owed := 0
		for range st.SafekeeperOps(k.ID, fsm.SafekeeperOp{}) {
			owed++
		}
		gauge("safekeeper_reconciles_queued", owed, k.AZ.String(), k.ID.String(), k.Host)
	}
	gauge("schedule_az_violation", misplaced(st))
	gauge("safekeeper_nodes", keepers)
	gauge("https_safekeeper_nodes", httpsKeepers)
	gauge("tenant_shards", placed(st))
	gauge("pageserver_nodes", nodes)
	gauge("https_pageserver_nodes", https)
	role := "stepped_down"
	switch {
	case c.options.Leadership.IsLeader():
		role = "leader"
	case st.Leader.Address == "":
		role = "candidate"
	}
	for _, r := range []string{"leader", "stepped_down", "candidate"} {
		is := 0
		if r == role {
			is = 1
		}
		gauge("leadership_status", is, r)
	}
}

// placed counts the shards of tenants that are not detached: those are records only.
func placed(st *fsm.State) int {
	count := st.ShardCount()
	for t := range st.TenantsFrom(neon.TenantID{}) {
		if t.Policy.Kind == neon.PlaceDetached {
			count -= len(t.Shards())
		}
	}
	return count
}

// misplaced counts the shards that are attached outside of the zone they prefer.
func misplaced(st *fsm.State) (count int) {
	zones := make(map[neon.NodeID]neon.AZ)
	for n := range st.Nodes() {
		zones[n.ID] = n.AZ
	}
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		if at, ok := zones[sh.Attached]; ok && sh.PreferredAZ != (neon.AZ{}) &&
			sh.PreferredAZ != at {
			count++
		}
	}
	return count
}
