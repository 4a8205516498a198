package metrics

import (
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/neon"
	"quorate/fsm"
)

// logMetrics are the series that dashboards know as those of the database: the
// replicated log has its place.
type logMetrics struct {
	errors  *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

func newLogMetrics(reg prometheus.Registerer) logMetrics {
	m := logMetrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "database_query_error",
			Help: "Commands that failed or were refused, by kind of error",
		}, []string{"error_type", "operation"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "database_query_latency",
			Help: "Seconds until a command was applied", Buckets: latencyBuckets,
		}, []string{"operation"}),
	}
	reg.MustRegister(m.errors, m.latency)
	return m
}

// operations are the names that dashboards know for commands; the others are named
// after their type.
var operations = map[string]string{
	"RegisterNode": "insert_node", "SetNodeScheduling": "update_node", "DeleteNode": "delete_node",
	"IssueGenerations": "increment_generation",
	"CreateTenant":     "insert_tenant_shards", "UpdateTenant": "update_tenant_shard",
	"FinishDeleteTenant": "delete_tenant", "SetLeader": "update_leader",
	"SetPreferredAZs": "set_preferred_azs", "SetMetadataHealth": "update_metadata_health",
	"CreateTimeline":  "insert_timeline",
	"BeginMembership": "update_timeline_membership", "EndMembership": "update_timeline_membership",
	"PullTimeline":        "insert_timeline_reconcile",
	"FinishSafekeeperOps": "remove_timeline_reconcile", "BeginImport": "insert_timeline_import",
	"UpdateImport": "update_timeline_import",
	"FinishImport": "delete_timeline_import", "BeginSplit": "begin_shard_split",
	"CommitSplit": "complete_shard_split", "AbortSplit": "abort_shard_split",
	"FinishAbortedSplit": "thaw_split", "AttachUnmanaged": "attach_by_hand",
}

// operation is `snake_case` of the name of a command, or what it is known as.
func operation(c fsm.Command) string {
	name := reflect.TypeOf(c).Name()
	if known, ok := operations[name]; ok {
		return known
	}
	var out strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(rune(name[i-1])) {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

// Command counts a command that was applied, refused or lost.
func (m *Recorder) Command(c fsm.Command, took time.Duration, err error) {
	op := operation(c)
	m.log.latency.WithLabelValues(op).Observe(took.Seconds())
	if err == nil {
		return
	}
	kind := "logical"
	switch neon.Classify(err) {
	case neon.Conflict:
		kind = "cas"
	case neon.NotLeader, neon.OutcomeUnknown, neon.Unavailable, neon.ShuttingDown, neon.Timeout,
		neon.Cancelled:
		kind = "connection"
	case neon.Internal:
		kind = "query"
	}
	m.log.errors.WithLabelValues(kind, op).Inc()
}

// declare registers the series that dashboards ask for and nothing here changes:
// they are about deployments that the existing controller runs in.
func declare(reg prometheus.Registerer) {
	watcher := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "config_watcher_complete", Help: "Always 0: there is no watcher",
	}, []string{"status"})
	for _, status := range outcomes {
		watcher.WithLabelValues(status)
	}
	reg.MustRegister(watcher,
		prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "drain_and_fill_long_waits", Help: "Always 0",
		}),
		prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "storage_scrub_status", Help: "Scrubs by outcome; none run here",
		},
			[]string{"tenant_id", "shard_number", "timeline_id", "outcome"}))
	for _, name := range []string{
		"ps_node_pool_rotation_pending", "num_pageservers_desired", "num_safekeeper_desired",
	} {
		reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{
			Name: prefix + name, Help: "Always 0: deployments are not watched",
		}))
	}
}
