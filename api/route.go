package api

import (
	"time"
)

// scopeNone and scopeAny are the two rights that no token names: no token at all,
// and any valid token.
const (
	scopeNone Scope = ""
	scopeAny  Scope = "*"
)

// duty says which replica answers a route.
type duty uint8

const (
	// onLeader routes are answered by the leader; others carry them there.
	onLeader duty = iota

	// onAny routes need replicated state only. Every replica answers them, from a
	// read that holds all that was acknowledged before the request came.
	onAny

	// here routes are about the very replica that was asked.
	here
)

// route is one row of the table.
type route struct {
	method string
	path   string // trailing slash optional; ":name" is one segment, "*rest" all
	scope  Scope
	duty   duty

	ready   bool   // wait until the leader has looked around after taking over
	limited bool   // counts against the rate of its tenant
	label   string // of the path in metrics
	silent  string // why the route has no metrics; exactly one of label and silent is set

	body     int64         // most bytes of a body; 0: defaultBody
	deadline time.Duration // for the whole request; 0: defaultDeadline
	patience time.Duration // for finding a leader; 0: defaultPatience

	handle func(*Server, *call) (answer, error)
}

const (
	// defaultBody is the bound of request bodies: a re-attach, a validate of 128
	// shards and a whole tenant configuration are far below.
	defaultBody = 1 << 20

	// largeBody is the bound where a body lists shards.
	largeBody = 16 << 20

	// bufferedBodies bounds all bodies held at one time.
	bufferedBodies = 256 << 20

	// defaultDeadline leaves room for 30 s of waiting for readiness and 30 s for a
	// reconcile.
	defaultDeadline = 75 * time.Second

	// remoteDeadline is for requests that a pageserver may take its time for.
	remoteDeadline = 5 * time.Minute

	// travelDeadline is for putting many objects of many shards back.
	travelDeadline = time.Hour

	// splitDeadline only ends the waiting: a split that was begun goes on.
	splitDeadline = 30 * time.Minute

	// defaultPatience is how long a replica looks for a leader, longer than any
	// wait of 30 s on the leader it was already following.
	defaultPatience = 40 * time.Second

	// upcallPatience is shorter: pageservers ask again by themselves.
	upcallPatience = 30 * time.Second

	// bodyTime is how long a client may take to send a body.
	bodyTime = 30 * time.Second
)

// readyPatience is how long a request waits for the leader's first look around.
const readyPatience = 30 * time.Second

// routes is the only list of routes. Rows are grouped by the first segment.
func routes() []route {
	var all []route
	for _, group := range [][]route{
		genericRoutes, upcallRoutes, nodeRoutes, safekeeperRoutes, tenantRoutes, virtualRoutes,
		debugRoutes,
	} {
		for _, rt := range group {
			if rt.body == 0 {
				rt.body = defaultBody
			}
			if rt.deadline == 0 {
				rt.deadline = defaultDeadline
			}
			if rt.patience == 0 {
				rt.patience = defaultPatience
			}
			all = append(all, rt)
		}
	}
	return all
}

// openPaths need no token. They are compared with the path as it was sent.
var openPaths = map[string]bool{
	"/status": true, "/live": true, "/ready": true, "/metrics": true, "/profile/cpu": true,
	"/profile/heap": true,
}

var genericRoutes = []route{
	{
		method: "GET", path: "/metrics", scope: scopeNone, duty: here, label: "metrics",
		handle: (*Server).metricsText,
	},
	{
		method: "GET", path: "/status", scope: scopeNone, duty: here, label: "status",
		handle: (*Server).status,
	},
	{
		method: "GET", path: "/live", scope: scopeNone, duty: here, label: "live",
		handle: (*Server).live,
	},
	{
		method: "GET", path: "/ready", scope: scopeNone, duty: here, label: "ready",
		handle: (*Server).readyStatus,
	},
	{
		method: "GET", path: "/profile/cpu", scope: scopeNone, duty: here, label: "profile_cpu",
		handle: (*Server).profileCPU,
	},
	{
		method: "GET", path: "/profile/heap", scope: scopeNone, duty: here, label: "profile_heap",
		handle: (*Server).profileHeap,
	},
}

var upcallRoutes = []route{
	{
		method: "POST", path: "/upcall/v1/re-attach", scope: ScopeGenerations,
		label: "upcall_v1_reattach", patience: upcallPatience, handle: (*Server).reAttach,
	},
	{
		method: "POST", path: "/upcall/v1/validate", scope: ScopeGenerations, duty: onAny,
		label: "upcall_v1_validate", patience: upcallPatience, body: largeBody,
		handle: (*Server).validate,
	},
	{
		method: "GET", path: "/upcall/v1/timeline_import_status", scope: ScopeGenerations,
		duty: onAny, label: "upcall_v1_timeline_import_status", patience: upcallPatience,
		handle: (*Server).importStatus,
	},
	{
		method: "POST", path: "/upcall/v1/timeline_import_status", scope: ScopeGenerations,
		label: "upcall_v1_timeline_import_status", patience: upcallPatience,
		handle: (*Server).importReport,
	},
}

var nodeRoutes = []route{
	{
		method: "POST", path: "/control/v1/node", scope: ScopeInfra, label: "control_v1_node",
		handle: (*Server).nodeRegister,
	},
	{
		method: "GET", path: "/control/v1/node", scope: ScopeInfra, duty: onAny,
		label: "control_v1_node", handle: (*Server).nodeList,
	},
	{
		method: "GET", path: "/control/v1/node/:node_id", scope: ScopeInfra, duty: onAny,
		label: "control_v1_node_status", handle: (*Server).nodeStatus,
	},
	{
		method: "GET", path: "/control/v1/node/:node_id/shards", scope: ScopeAdmin,
		label: "control_v1_node_describe", handle: (*Server).nodeShards,
	},
	{
		method: "PUT", path: "/control/v1/node/:node_id/config", scope: ScopeAdmin,
		label: "control_v1_node_config", handle: (*Server).nodeConfigure,
	},
	{
		method: "DELETE", path: "/control/v1/node/:node_id", scope: ScopeAdmin,
		label: "control_v1_node_delete", handle: (*Server).nodeDeleteNow,
	},
	{
		method: "PUT", path: "/control/v1/node/:node_id/delete", scope: ScopeAdmin,
		label: "control_v1_start_node_delete", handle: (*Server).nodeDelete,
	},
	{
		method: "DELETE", path: "/control/v1/node/:node_id/delete", scope: ScopeInfra,
		label: "control_v1_cancel_node_delete", handle: (*Server).nodeCancelDelete,
	},
	{
		method: "PUT", path: "/control/v1/node/:node_id/drain", scope: ScopeInfra,
		label: "control_v1_node_drain", handle: (*Server).nodeDrain,
	},
	{
		method: "DELETE", path: "/control/v1/node/:node_id/drain", scope: ScopeInfra,
		label: "control_v1_cancel_node_drain", handle: (*Server).nodeCancelDrain,
	},
	{
		method: "PUT", path: "/control/v1/node/:node_id/fill", scope: ScopeInfra,
		label: "control_v1_node_fill", handle: (*Server).nodeFill,
	},
	{
		method: "DELETE", path: "/control/v1/node/:node_id/fill", scope: ScopeInfra,
		label: "control_v1_cancel_node_fill", handle: (*Server).nodeCancelFill,
	},
	{
		method: "GET", path: "/control/v1/leader", scope: ScopeAdmin, duty: onAny,
		label: "control_v1_get_leader", handle: (*Server).leader,
	},
	{
		method: "PUT", path: "/control/v1/step_down", scope: ScopePeer, duty: here,
		label: "control_v1_step_down", handle: (*Server).stepDown,
	},
}

var tenantRoutes = []route{
	{
		method: "GET", path: "/control/v1/tenant", scope: ScopeAdmin, ready: true,
		label: "control_v1_tenant_list", handle: (*Server).tenantList,
	},
	{
		method: "GET", path: "/control/v1/tenant/:tenant_id", scope: ScopeScrubber, ready: true,
		label: "control_v1_tenant_describe", handle: (*Server).tenantDescribe,
	},
	{
		method: "GET", path: "/control/v1/tenant/:tenant_id/timeline/:timeline_id",
		scope: ScopeScrubber, ready: true, label: "v1_tenant_timeline_describe",
		handle: (*Server).timelineDescribe,
	},
	{
		method: "PUT", path: "/control/v1/tenant/:tenant_id/policy", scope: ScopeAdmin,
		label: "control_v1_tenant_policy", handle: (*Server).tenantPolicy,
	},
	{
		method: "PUT", path: "/control/v1/tenant/:tenant_id/shard_split", scope: ScopeAdmin,
		ready: true, label: "control_v1_tenant_shard_split", deadline: splitDeadline,
		handle: (*Server).tenantSplit,
	},
	{
		method: "PUT", path: "/control/v1/tenant/:tenant_id/migrate", scope: ScopeAdmin,
		ready: true, label: "control_v1_tenant_migrate", handle: (*Server).shardMigrate,
	},
	{
		method: "PUT", path: "/control/v1/tenant/:tenant_id/cancel_reconcile", scope: ScopeAdmin,
		ready: true, label: "control_v1_tenant_cancel_reconcile", handle: (*Server).shardCancel,
	},
	{
		method: "PUT", path: "/control/v1/preferred_azs", scope: ScopeAdmin,
		label: "control_v1_preferred_azs", body: largeBody, handle: (*Server).preferredAZs,
	},
	{
		method: "POST", path: "/control/v1/metadata_health/update", scope: ScopeScrubber,
		label: "control_v1_metadata_health_update", body: largeBody,
		handle: (*Server).metadataHealthUpdate,
	},
	{
		method: "GET", path: "/control/v1/metadata_health/unhealthy", scope: ScopeAdmin,
		duty: onAny, label: "control_v1_metadata_health_list_unhealthy",
		handle: (*Server).metadataUnhealthy,
	},
	{
		method: "POST", path: "/control/v1/metadata_health/outdated", scope: ScopeAdmin,
		label: "control_v1_metadata_health_list_outdated", handle: (*Server).metadataOutdated,
	},
	{
		method: "PUT", path: "/control/v1/tenant/:tenant_id/migrate_secondary", scope: ScopeAdmin,
		ready: true, label: "control_v1_tenant_migrate_secondary",
		handle: (*Server).shardMigrateSecondary,
	},
}

// virtualRoutes are those that a client of one pageserver would use. The last row
// takes every other GET about a tenant.
var virtualRoutes = []route{
	{
		method: "POST", path: "/v1/tenant", scope: ScopePageserverAPI, ready: true,
		label: "v1_tenant", handle: (*Server).tenantCreate,
	},
	{
		method: "DELETE", path: "/v1/tenant/:tenant_id", scope: ScopePageserverAPI, ready: true,
		limited: true, label: "v1_tenant", deadline: remoteDeadline, handle: (*Server).tenantDelete,
	},
	{
		method: "PUT", path: "/v1/tenant/config", scope: ScopePageserverAPI, ready: true,
		label: "v1_tenant_config", handle: (*Server).tenantConfigSet,
	},
	{
		method: "PATCH", path: "/v1/tenant/config", scope: ScopePageserverAPI, ready: true,
		label: "v1_tenant_config", handle: (*Server).tenantConfigPatch,
	},
	{
		method: "GET", path: "/v1/tenant/:tenant_id/config", scope: ScopePageserverAPI, duty: onAny,
		ready: true, limited: true, label: "v1_tenant_config", handle: (*Server).tenantConfig,
	},
	{
		method: "PUT", path: "/v1/tenant/:tenant_id/location_config", scope: ScopePageserverAPI,
		ready: true, label: "v1_tenant_location_config", handle: (*Server).tenantLocationConfig,
	},
	{
		method: "POST", path: "/v1/tenant/:tenant_id/timeline", scope: ScopePageserverAPI,
		ready: true, limited: true, label: "v1_tenant_timeline", deadline: remoteDeadline,
		handle: (*Server).timelineCreate,
	},
	{
		method: "DELETE", path: "/v1/tenant/:tenant_id/timeline/:timeline_id",
		scope: ScopePageserverAPI, ready: true, limited: true, label: "v1_tenant_timeline",
		deadline: remoteDeadline, handle: (*Server).timelineDelete,
	},
	{
		method: "PUT", path: "/v1/tenant/:tenant_id/time_travel_remote_storage",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_time_travel_remote_storage", deadline: travelDeadline,
		handle: (*Server).tenantTimeTravel,
	},
	{
		method: "POST", path: "/v1/tenant/:tenant_id/secondary/download", scope: scopeAny,
		ready: true, limited: true, label: "v1_tenant_secondary_download", deadline: remoteDeadline,
		handle: (*Server).tenantSecondaryDownload,
	},
	{
		method: "PUT", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/archival_config",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_archival_config", deadline: remoteDeadline,
		handle: (*Server).timelineArchival,
	},
	{
		method: "PUT", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/detach_ancestor",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_detach_ancestor", deadline: remoteDeadline,
		handle: (*Server).timelineDetachAncestor,
	},
	{
		method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/block_gc",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_block_unblock_gc", deadline: remoteDeadline,
		handle: (*Server).timelineBlockGC,
	},
	{
		method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/unblock_gc",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_block_unblock_gc", deadline: remoteDeadline,
		handle: (*Server).timelineUnblockGC,
	},
	{
		method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/lsn_lease",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_lsn_lease", deadline: remoteDeadline,
		handle: (*Server).timelineLease,
	},
	{
		method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/download_heatmap_layers",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label:  "v1_tenant_timeline_download_heatmap_layers",
		handle: (*Server).timelineHeatmapLayers,
	},
	{
		method: "PUT", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/mark_invisible",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_mark_invisible_passthrough", deadline: remoteDeadline,
		handle: (*Server).passthrough,
	},
	{
		method: "GET", path: "/v1/tenant/:tenant_id/*rest", scope: ScopePageserverAPI, ready: true,
		limited: true, label: "v1_tenant_passthrough", deadline: remoteDeadline,
		handle: (*Server).passthrough,
	},
}

var debugRoutes = []route{
	{
		method: "GET", path: "/debug/v1/tenant", scope: ScopeAdmin, label: "debug_v1_tenant",
		deadline: remoteDeadline, handle: (*Server).tenantDump,
	},
	{
		method: "GET", path: "/debug/v1/tenant/:tenant_id/locate", scope: ScopeAdmin, duty: onAny,
		ready: true, label: "debug_v1_tenant_locate", handle: (*Server).tenantLocate,
	},
	{
		method: "POST", path: "/debug/v1/attach-hook", scope: ScopeAdmin,
		label: "debug_v1_attach_hook", handle: (*Server).attachHook,
	},
	{
		method: "POST", path: "/debug/v1/tenant/:tenant_id/drop", scope: ScopePageserverAPI,
		limited: true, label: "debug_v1_tenant_drop", handle: (*Server).tenantDrop,
	},
	{
		method: "POST", path: "/debug/v1/tenant/:tenant_id/import", scope: ScopePageserverAPI,
		limited: true, label: "debug_v1_tenant_import", deadline: remoteDeadline,
		handle: (*Server).tenantImport,
	},
	{
		method: "POST", path: "/debug/v1/node/:node_id/drop", scope: ScopeAdmin,
		label: "debug_v1_node_drop", handle: (*Server).nodeDrop,
	},
	{
		method: "GET", path: "/debug/v1/tombstone", scope: ScopeAdmin, duty: onAny,
		label: "debug_v1_tombstone_list", handle: (*Server).tombstones,
	},
	{
		method: "DELETE", path: "/debug/v1/tombstone/:node_id", scope: ScopeAdmin,
		label: "debug_v1_tombstone_delete", handle: (*Server).tombstoneDelete,
	},
	{
		method: "GET", path: "/debug/v1/operation", scope: ScopeAdmin, duty: onAny,
		label: "debug_v1_operation", handle: (*Server).operations,
	},
	{
		method: "GET", path: "/debug/v1/scheduler", scope: ScopeAdmin, label: "debug_v1_scheduler",
		handle: (*Server).schedulerDump,
	},
	{
		method: "POST", path: "/debug/v1/consistency_check", scope: ScopeAdmin,
		label: "debug_v1_consistency_check", deadline: remoteDeadline,
		handle: (*Server).consistencyCheck,
	},
	{
		method: "POST", path: "/debug/v1/reconcile_all", scope: ScopeAdmin,
		silent: "test harnesses poll it", handle: (*Server).reconcileAll,
	},
	{
		method: "POST", path: "/debug/v1/inspect", scope: ScopeAdmin, duty: onAny,
		label: "debug_v1_inspect", handle: (*Server).inspect,
	},
	{
		method: "PUT", path: "/debug/v1/failpoints", scope: scopeAny, duty: here,
		silent: "tests use it", handle: (*Server).failpoints,
	},
	{
		method: "GET", path: "/debug/v1/cluster", scope: ScopeAdmin, duty: here,
		label: "debug_v1_cluster", handle: (*Server).clusterStatus,
	},
	{
		method: "GET", path: "/debug/v1/explain/:tenant_shard_id", scope: ScopeAdmin,
		label: "debug_v1_explain", handle: (*Server).explain,
	},
}
