package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"quorate/fsm"
)

// RegisterState registers the gauges that are computed from the replicated state at
// each scrape. State is the newest local state, and isLeader reports whether
// this replica leads.
func RegisterState(reg prometheus.Registerer, state func() *fsm.State, isLeader func() bool) {
	reg.MustRegister(&stateCollector{state: state, isLeader: isLeader, descs: stateDescs()})
}

// roles are what a replica can be.
var roles = []string{"leader", "stepped_down", "candidate"}

// RegisterCandidate registers the series of an instance that waits for its turn: it
// has no state, and has counted nothing.
func RegisterCandidate(reg prometheus.Registerer) {
	New(reg, fsm.NewStore().State)
	status := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: prefix + "leadership_status", Help: "1 for what this replica is",
	}, []string{"status"})
	for _, role := range roles {
		status.WithLabelValues(role).Set(0)
	}
	status.WithLabelValues("candidate").Set(1)
	reg.MustRegister(status)
}

type stateCollector struct {
	state    func() *fsm.State
	isLeader func() bool
	descs    map[string]*prometheus.Desc
}

func stateDescs() map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc)
	add := func(name, help string, labels ...string) {
		descs[name] = prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	add("tenant_shards", "Shards of tenants that are not detached")
	add("pageserver_nodes", "Registered pageservers")
	add("https_pageserver_nodes", "Registered pageservers with a port for HTTPS")
	add("safekeeper_nodes", "Registered safekeepers")
	add("https_safekeeper_nodes", "Registered safekeepers with a port for HTTPS")
	add("schedule_az_violation", "Shards that are attached in another zone than they prefer")
	add("exhausted_tenant_shards",
		"Shards that can never be attached again: all their generations are used up")
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
	st := c.state()
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
		gauge("safekeeper_reconciles_queued", st.Owed(k.ID), k.AZ.String(), k.ID.String(), k.Host)
	}
	totals := st.Totals()
	gauge("schedule_az_violation", totals.Elsewhere)
	gauge("exhausted_tenant_shards", totals.Exhausted)
	gauge("safekeeper_nodes", keepers)
	gauge("https_safekeeper_nodes", httpsKeepers)
	gauge("tenant_shards", totals.Placed)
	gauge("pageserver_nodes", nodes)
	gauge("https_pageserver_nodes", https)
	role := "stepped_down"
	switch {
	case c.isLeader():
		role = "leader"
	case st.Leader.Address == "":
		role = "candidate"
	}
	for _, r := range roles {
		is := 0
		if r == role {
			is = 1
		}
		gauge("leadership_status", is, r)
	}
}
