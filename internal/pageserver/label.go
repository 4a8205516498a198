package pageserver

import "strings"

// passedRoutes are the routes of pageservers about one tenant that a client may ask for
// through a controller. They are without ids, with their segments joined by `_`, as the
// metrics know them. Clients choose paths, so that others have one label together.
var passedRoutes = labels(
	"",
	"config", "location_config", "scan_remote_storage", "secondary_status", "synthetic_size",
	"timeline", "timeline_and_offloaded",
	"timeline_archival_config", "timeline_block_gc", "timeline_checkpoint", "timeline_compact",
	"timeline_detach_ancestor", "timeline_do_gc", "timeline_download_heatmap_layers",
	"timeline_download_remote_layers", "timeline_get_lsn_by_timestamp",
	"timeline_get_timestamp_of_lsn", "timeline_getpage", "timeline_import_pgdata",
	"timeline_keyspace", "timeline_layer", "timeline_lsn_lease", "timeline_mark_invisible",
	"timeline_page_trace", "timeline_perf_info", "timeline_preserve_initdb_archive",
	"timeline_touchpage", "timeline_unblock_gc",
)

const (
	passedPrefix = "v1_tenant"

	// passedOther is the label of paths that are no route.
	passedOther = passedPrefix + "_other"

	// passedLayer is the route of a layer. Its last segment is the name of a file.
	passedLayer = passedPrefix + "_timeline_layer"
)

func labels(routes ...string) map[string]bool {
	all := make(map[string]bool, len(routes))
	for _, r := range routes {
		all[strings.TrimSuffix(passedPrefix+"_"+r, "_")] = true
	}
	return all
}

// passthroughLabel is the route of a path.
func passthroughLabel(path string) string {
	path, _, _ = strings.Cut(path, "?")
	var kept []string
	for s := range strings.SplitSeq(path, "/") {
		if s != "" && !isIDSegment(s) {
			kept = append(kept, s)
		}
	}
	label := strings.Join(kept, "_")
	if passedRoutes[label] {
		return label
	}
	if n := len(kept) - 1; n > 0 && strings.Join(kept[:n], "_") == passedLayer {
		return passedLayer
	}
	return passedOther
}

// isIDSegment reports whether a segment is 32 hexadecimal digits, with or without the
// suffix of a shard.
func isIDSegment(s string) bool {
	if len(s) != 32 && (len(s) != 37 || s[32] != '-') {
		return false
	}
	for i := range len(s) {
		c := s[i]
		digit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if i != 32 && !digit {
			return false
		}
	}
	return true
}
