package api

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"quorate/api/auth"
)

// duty says which replica answers a route.
type duty uint8

const (
	// onLeader routes are answered by the leader. Other replicas forward them.
	onLeader duty = iota

	// onAny routes need the replicated state only. Every replica answers them, from a
	// read that holds everything that was acknowledged before the request came.
	onAny

	// here routes are about the replica that was asked.
	here
)

// route is one row of the table.
type route struct {
	method string
	path   string // trailing slash optional; ":name" is one segment, "*rest" all
	scope  auth.Scope
	duty   duty

	ready   bool   // wait until a new leader has looked around
	limited bool   // counts against the rate of its tenant
	label   string // of the path in metrics
	silent  string // why the route has no metrics; exactly one of label and silent is set

	body     int64         // most bytes of a body; 0: defaultBody
	deadline time.Duration // for the whole request; 0: defaultDeadline

	handle func(*call) (answer, error)

	// brief says that the request only reads, waits for nothing but agreement, and has no body.
	brief bool

	// ask is the question by which the leader is asked for the answer, see Server.Answer.
	// It is empty where the request itself has to be carried; nil: it always has to.
	ask func(*call) []byte
}

const (
	// defaultBody is the bound of request bodies, in bytes. A re-attach, a validate of
	// 128 shards and a whole tenant configuration are far smaller.
	defaultBody = 1 << 20

	// largeBody is the bound where a body lists shards.
	largeBody = 16 << 20

	// bufferedUpcalls bounds the sum of all bodies of upcalls that are held at one time,
	// and bufferedBodies that of all others. A client gets a part of it.
	bufferedUpcalls = 64 << 20
	bufferedBodies  = 192 << 20

	// defaultDeadline leaves room for 30 s of waiting for readiness and 30 s for a
	// reconcile.
	defaultDeadline = 75 * time.Second

	// remoteDeadline is for requests that keep a pageserver busy.
	remoteDeadline = 5 * time.Minute

	// travelDeadline is for the restoration of many objects of many shards.
	travelDeadline = time.Hour

	// splitDeadline ends the wait for a split, not the split.
	splitDeadline = 30 * time.Minute

	// catchUpDeadline ends the wait for a member that gets the whole state.
	catchUpDeadline = 10 * time.Minute

	// defaultLeaderTimeout is how long a request waits while no leader works at it. An
	// election after a host was lost takes up to 1.2 s; clients try again.
	defaultLeaderTimeout = 5 * time.Second
)

// readyTimeout is how long a request waits for the leader's first look around.
const readyTimeout = 30 * time.Second

// handlers are the handlers of all resources.
type handlers struct {
	probes      probeHandler
	scrape      scrapeHandler
	profiles    profileHandler
	upcalls     upcallHandler
	replica     replicaHandler
	members     memberHandler
	nodes       nodeHandler
	operations  operationHandler
	safekeepers safekeeperHandler
	tenants     tenantHandler
	health      healthHandler
	shards      shardHandler
	timelines   timelineHandler
	debug       debugHandler
}

// routes is the only list of routes. Rows are grouped by their handlers.
func routes(h handlers) []route {
	all := slices.Concat(
		probeRoutes(h.probes), scrapeRoutes(h.scrape), profileRoutes(h.profiles),
		upcallRoutes(h.upcalls), replicaRoutes(h.replica), memberRoutes(h.members),
		nodeRoutes(h.nodes), operationRoutes(h.operations), safekeeperRoutes(h.safekeepers),
		tenantRoutes(h.tenants), healthRoutes(h.health), shardRoutes(h.shards),
		timelineRoutes(h.timelines), timelineSafekeeperRoutes(h.timelines),
		debugRoutes(h.debug),
	)
	for i := range all {
		rt := &all[i]
		if rt.body == 0 {
			rt.body = defaultBody
		}
		if rt.deadline == 0 {
			rt.deadline = defaultDeadline
		}
	}
	return all
}

// methods are those that a route answers. Some probes and scrapers send HEAD, to see
// whether there would be an answer.
func (rt *route) methods() []string {
	if rt.method == http.MethodGet && rt.scope == auth.None &&
		!strings.HasPrefix(rt.path, "/profile/") {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{rt.method}
}

// isUpcall reports whether pageservers make the calls of a route.
func (rt *route) isUpcall() bool { return strings.HasPrefix(rt.path, "/upcall/") }

// openPaths need no token. They are compared with the path as it was sent.
var openPaths = map[string]bool{
	"/status": true, "/live": true, "/ready": true, "/healthz": true, "/metrics": true,
	"/profile/cpu": true, "/profile/heap": true,
}

func probeRoutes(h probeHandler) []route {
	return []route{
		{
			method: "GET", path: "/status", scope: auth.None, duty: here, label: "status",
			handle: h.status,
		},
		{
			method: "GET", path: "/live", scope: auth.None, duty: here, label: "live",
			handle: h.live,
		},
		{
			method: "GET", path: "/ready", scope: auth.None, duty: here, label: "ready",
			handle: h.ready,
		},
		{
			method: "GET", path: "/healthz", scope: auth.None, duty: here, label: "healthz",
			handle: h.health,
		},
	}
}

func scrapeRoutes(h scrapeHandler) []route {
	return []route{
		{
			method: "GET", path: "/metrics", scope: auth.None, duty: here, label: "metrics",
			handle: h.metrics,
		},
	}
}

func profileRoutes(h profileHandler) []route {
	return []route{
		{
			method: "GET", path: "/profile/cpu", scope: auth.None, duty: here, label: "profile_cpu",
			handle: h.cpu,
		},
		{
			method: "GET", path: "/profile/heap", scope: auth.None, duty: here,
			label:  "profile_heap",
			handle: h.heap,
		},
	}
}

func upcallRoutes(h upcallHandler) []route {
	return []route{
		{
			method: "POST", path: "/upcall/v1/re-attach", scope: auth.Generations,
			label: "upcall_v1_reattach", handle: h.reAttach,
		},
		{
			method: "POST", path: "/upcall/v1/validate", scope: auth.Generations, duty: onAny,
			label: "upcall_v1_validate", body: largeBody,
			handle: h.validate,
		},
		{
			method: "GET", path: "/upcall/v1/timeline_import_status", scope: auth.Generations,
			duty: onAny, label: "upcall_v1_timeline_import_status",
			handle: h.importStatus,
		},
		{
			method: "POST", path: "/upcall/v1/timeline_import_status", scope: auth.Generations,
			label:  "upcall_v1_timeline_import_status",
			handle: h.reportImport,
		},
	}
}

func replicaRoutes(h replicaHandler) []route {
	return []route{
		{
			method: "GET", path: "/control/v1/leader", scope: auth.Admin, duty: onAny,
			label: "control_v1_get_leader", handle: h.leader,
		},
		{
			method: "PUT", path: "/control/v1/step_down", scope: auth.Peer, duty: here,
			label: "control_v1_step_down", handle: h.stepDown,
		},
		{
			method: "PUT", path: "/debug/v1/failpoints", scope: auth.Any, duty: here,
			silent: "tests use it", handle: h.setFailpoints,
		},
		{
			method: "GET", path: "/debug/v1/cluster", scope: auth.Admin, duty: here,
			label: "debug_v1_cluster", handle: h.status,
		},
	}
}

func nodeRoutes(h nodeHandler) []route {
	return []route{
		{
			method: "POST", path: "/control/v1/node", scope: auth.Infra, label: "control_v1_node",
			handle: h.register,
		},
		{
			method: "GET", path: "/control/v1/node", scope: auth.Infra, duty: onAny,
			label: "control_v1_node", handle: h.list,
		},
		{
			method: "GET", path: "/control/v1/node/:node_id", scope: auth.Infra, duty: onAny,
			label: "control_v1_node_status", handle: h.describe,
		},
		{
			method: "GET", path: "/control/v1/node/:node_id/shards", scope: auth.Admin,
			label: "control_v1_node_describe", handle: h.shards,
		},
		{
			method: "PUT", path: "/control/v1/node/:node_id/config", scope: auth.Admin,
			label: "control_v1_node_config", handle: h.configure,
		},
	}
}

func operationRoutes(h operationHandler) []route {
	return []route{
		{
			method: "DELETE", path: "/control/v1/node/:node_id", scope: auth.Admin,
			label: "control_v1_node_delete", handle: h.deleteNow,
		},
		{
			method: "PUT", path: "/control/v1/node/:node_id/delete", scope: auth.Admin,
			label: "control_v1_start_node_delete", handle: h.delete,
		},
		{
			method: "DELETE", path: "/control/v1/node/:node_id/delete", scope: auth.Infra,
			label: "control_v1_cancel_node_delete", handle: h.cancelDelete,
		},
		{
			method: "PUT", path: "/control/v1/node/:node_id/drain", scope: auth.Infra,
			label: "control_v1_node_drain", handle: h.drain,
		},
		{
			method: "DELETE", path: "/control/v1/node/:node_id/drain", scope: auth.Infra,
			label: "control_v1_cancel_node_drain", handle: h.cancelDrain,
		},
		{
			method: "PUT", path: "/control/v1/node/:node_id/fill", scope: auth.Infra,
			label: "control_v1_node_fill", handle: h.fill,
		},
		{
			method: "DELETE", path: "/control/v1/node/:node_id/fill", scope: auth.Infra,
			label: "control_v1_cancel_node_fill", handle: h.cancelFill,
		},
		{
			method: "POST", path: "/debug/v1/node/:node_id/drop", scope: auth.Admin,
			label: "debug_v1_node_drop", handle: h.drop,
		},
		{
			method: "GET", path: "/debug/v1/tombstone", scope: auth.Admin, duty: onAny,
			label: "debug_v1_tombstone_list", handle: h.tombstones,
		},
		{
			method: "DELETE", path: "/debug/v1/tombstone/:node_id", scope: auth.Admin,
			label: "debug_v1_tombstone_delete", handle: h.forgetTombstone,
		},
		{
			method: "GET", path: "/debug/v1/operation", scope: auth.Admin,
			label: "debug_v1_operation", handle: h.list,
		},
	}
}

func safekeeperRoutes(h safekeeperHandler) []route {
	return []route{
		{
			method: "GET", path: "/control/v1/safekeeper", scope: auth.Infra, duty: onAny,
			label: "control_v1_safekeeper_list", handle: h.list,
		},
		{
			method: "GET", path: "/control/v1/safekeeper/:safekeeper_id", scope: auth.Infra,
			duty: onAny, label: "v1_safekeeper", handle: h.describe,
		},
		{
			method: "POST", path: "/control/v1/safekeeper/:safekeeper_id", scope: auth.Infra,
			label: "v1_safekeeper_post", handle: h.upsert,
		},
		{
			method: "POST", path: "/control/v1/safekeeper/:safekeeper_id/scheduling_policy",
			scope: auth.Admin, label: "v1_safekeeper_scheduling_policy",
			handle: h.setScheduling,
		},
		{
			method: "PUT", path: "/control/v1/safekeeper/:safekeeper_id/gone", scope: auth.Admin,
			label: "v1_safekeeper_gone", handle: h.settle,
		},
	}
}

func tenantRoutes(h tenantHandler) []route {
	return []route{
		{
			method: "GET", path: "/control/v1/tenant", scope: auth.Admin, ready: true,
			label: "control_v1_tenant_list", handle: h.list,
		},
		{
			method: "GET", path: "/control/v1/tenant/:tenant_id", scope: auth.Scrubber, ready: true,
			label: "control_v1_tenant_describe", handle: h.describe, brief: true,
			ask: h.ask,
		},
		{
			method: "PUT", path: "/control/v1/tenant/:tenant_id/policy", scope: auth.Admin,
			label: "control_v1_tenant_policy", handle: h.setPolicy,
		},
		{
			method: "PUT", path: "/control/v1/preferred_azs", scope: auth.Admin,
			label: "control_v1_preferred_azs", body: largeBody, handle: h.setPreferredAZs,
		},
		{
			method: "POST", path: "/v1/tenant", scope: auth.PageserverAPI, ready: true,
			label: "v1_tenant", handle: h.create,
		},
		{
			method: "DELETE", path: "/v1/tenant/:tenant_id", scope: auth.PageserverAPI, ready: true,
			limited: true, label: "v1_tenant", deadline: remoteDeadline, handle: h.delete,
		},
		{
			method: "PUT", path: "/v1/tenant/config", scope: auth.PageserverAPI, ready: true,
			label: "v1_tenant_config", handle: h.setConfig,
		},
		{
			method: "PATCH", path: "/v1/tenant/config", scope: auth.PageserverAPI, ready: true,
			label: "v1_tenant_config", handle: h.patchConfig,
		},
		{
			method: "GET", path: "/v1/tenant/:tenant_id/config", scope: auth.PageserverAPI,
			duty:  onAny,
			ready: true, limited: true, label: "v1_tenant_config", handle: h.config,
		},
		{
			method: "PUT", path: "/v1/tenant/:tenant_id/location_config", scope: auth.PageserverAPI,
			ready: true, label: "v1_tenant_location_config", handle: h.setLocation,
		},
		{
			method: "PUT", path: "/v1/tenant/:tenant_id/time_travel_remote_storage",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_time_travel_remote_storage", deadline: travelDeadline,
			handle: h.timeTravel,
		},
		{
			method: "GET", path: "/debug/v1/tenant/:tenant_id/locate", scope: auth.Admin,
			duty:  onAny,
			ready: true, label: "debug_v1_tenant_locate", handle: h.locate, brief: true,
		},
		{
			method: "POST", path: "/debug/v1/attach-hook", scope: auth.Admin,
			label: "debug_v1_attach_hook", handle: h.attachHook,
		},
		{
			method: "POST", path: "/debug/v1/tenant/:tenant_id/drop", scope: auth.PageserverAPI,
			limited: true, label: "debug_v1_tenant_drop", handle: h.drop,
		},
		{
			method: "POST", path: "/debug/v1/tenant/:tenant_id/import", scope: auth.PageserverAPI,
			limited: true, label: "debug_v1_tenant_import", deadline: remoteDeadline,
			handle: h.importRemote,
		},
	}
}

func healthRoutes(h healthHandler) []route {
	return []route{
		{
			method: "POST", path: "/control/v1/metadata_health/update", scope: auth.Scrubber,
			label: "control_v1_metadata_health_update", body: largeBody,
			handle: h.update,
		},
		{
			method: "GET", path: "/control/v1/metadata_health/unhealthy", scope: auth.Admin,
			duty: onAny, label: "control_v1_metadata_health_list_unhealthy",
			handle: h.unhealthy,
		},
		{
			method: "POST", path: "/control/v1/metadata_health/outdated", scope: auth.Admin,
			label: "control_v1_metadata_health_list_outdated", handle: h.outdated,
		},
	}
}

func shardRoutes(h shardHandler) []route {
	return []route{
		{
			method: "PUT", path: "/control/v1/tenant/:tenant_id/shard_split", scope: auth.Admin,
			ready: true, label: "control_v1_tenant_shard_split", deadline: splitDeadline,
			handle: h.split,
		},
		{
			method: "PUT", path: "/control/v1/tenant/:tenant_id/migrate", scope: auth.Admin,
			ready: true, label: "control_v1_tenant_migrate", handle: h.migrate,
		},
		{
			method: "PUT", path: "/control/v1/tenant/:tenant_id/cancel_reconcile",
			scope: auth.Admin,
			ready: true, label: "control_v1_tenant_cancel_reconcile", handle: h.cancelReconcile,
		},
		{
			method: "PUT", path: "/control/v1/tenant/:tenant_id/migrate_secondary",
			scope: auth.Admin,
			ready: true, label: "control_v1_tenant_migrate_secondary",
			handle: h.migrateSecondary,
		},
		{
			method: "POST", path: "/v1/tenant/:tenant_id/secondary/download", scope: auth.Any,
			ready: true, limited: true, label: "v1_tenant_secondary_download",
			deadline: remoteDeadline,
			handle:   h.downloadSecondaries,
		},
	}
}

// timelineRoutes has the rows about timelines. The last row takes every other GET about a tenant.
func timelineRoutes(h timelineHandler) []route {
	return []route{
		{
			method: "GET", path: "/control/v1/tenant/:tenant_id/timeline/:timeline_id",
			scope: auth.Scrubber, ready: true, label: "v1_tenant_timeline_describe",
			handle: h.describe,
		},
		{
			method: "POST", path: "/v1/tenant/:tenant_id/timeline", scope: auth.PageserverAPI,
			ready: true, limited: true, label: "v1_tenant_timeline", deadline: remoteDeadline,
			handle: h.create,
		},
		{
			method: "DELETE", path: "/v1/tenant/:tenant_id/timeline/:timeline_id",
			scope: auth.PageserverAPI, ready: true, limited: true, label: "v1_tenant_timeline",
			deadline: remoteDeadline, handle: h.delete,
		},
		{
			method: "PUT", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/archival_config",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_archival_config", deadline: remoteDeadline,
			handle: h.archive,
		},
		{
			method: "PUT", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/detach_ancestor",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_detach_ancestor", deadline: remoteDeadline,
			handle: h.detachAncestor,
		},
		{
			method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/block_gc",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_block_unblock_gc", deadline: remoteDeadline,
			handle: h.blockGC,
		},
		{
			method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/unblock_gc",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_block_unblock_gc", deadline: remoteDeadline,
			handle: h.unblockGC,
		},
		{
			method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/lsn_lease",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_lsn_lease", deadline: remoteDeadline,
			handle: h.leaseLSN,
		},
		{
			method: "POST",
			path:   "/v1/tenant/:tenant_id/timeline/:timeline_id/download_heatmap_layers",
			scope:  auth.PageserverAPI, ready: true, limited: true,
			label:  "v1_tenant_timeline_download_heatmap_layers",
			handle: h.downloadHeatmapLayers,
		},
		{
			method: "PUT", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/mark_invisible",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_mark_invisible_passthrough", deadline: remoteDeadline,
			handle: h.passthrough,
		},
		{
			method: "GET", path: "/v1/tenant/:tenant_id/*rest", scope: auth.PageserverAPI,
			ready:   true,
			limited: true, label: "v1_tenant_passthrough", deadline: remoteDeadline,
			handle: h.passthrough,
		},
	}
}

func timelineSafekeeperRoutes(h timelineHandler) []route {
	return []route{
		{
			method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate",
			scope: auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_safekeeper_migrate", deadline: remoteDeadline,
			handle: h.migrateSafekeepers,
		},
		{
			method: "POST",
			path:   "/v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate_abort",
			scope:  auth.PageserverAPI, ready: true, limited: true,
			label: "v1_tenant_timeline_safekeeper_migrate_abort", deadline: remoteDeadline,
			handle: h.abortSafekeepers,
		},
		{
			method: "GET", path: "/debug/v1/tenant/:tenant_id/timeline/:timeline_id/locate",
			scope: auth.Admin, ready: true, limited: true, label: "v1_tenant_timeline_locate",
			handle: h.locate,
		},
		{
			method: "POST", path: "/debug/v1/tenant/:tenant_id/timeline/:timeline_id/import",
			scope: auth.PageserverAPI, limited: true, label: "debug_v1_timeline_import",
			handle: h.importRecord,
		},
	}
}

func debugRoutes(h debugHandler) []route {
	return []route{
		{
			method: "GET", path: "/debug/v1/tenant", scope: auth.Admin, label: "debug_v1_tenant",
			deadline: remoteDeadline, handle: h.shards,
		},
		{
			method: "GET", path: "/debug/v1/scheduler", scope: auth.Admin,
			label:  "debug_v1_scheduler",
			handle: h.scheduler,
		},
		{
			method: "POST", path: "/debug/v1/consistency_check", scope: auth.Admin,
			label: "debug_v1_consistency_check", deadline: remoteDeadline,
			handle: h.checkConsistency,
		},
		{
			method: "POST", path: "/debug/v1/reconcile_all", scope: auth.Admin,
			silent: "test harnesses poll it", handle: h.reconcileAll,
		},
		{
			method: "POST", path: "/debug/v1/inspect", scope: auth.Admin, duty: onAny,
			label: "debug_v1_inspect", handle: h.inspect,
		},
		{
			method: "GET", path: "/debug/v1/explain/:tenant_shard_id", scope: auth.Admin,
			label: "debug_v1_explain", handle: h.explain,
		},
	}
}
