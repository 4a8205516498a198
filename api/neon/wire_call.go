package neon

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ShardCall is a request to a pageserver about one shard. It is spelled as existing
// controllers send it, so that pageservers of every version take it.
type ShardCall struct {
	Label   string // of the path in metrics
	Method  string // of HTTP
	Path    string // below /v1/tenant/<shard>/, with the query
	Body    any    // nil: the JSON null
	Timeout time.Duration

	// UnderWay is the status with which a pageserver says that it is at the same already;
	// 0: none. Besides, 503 says so of every call.
	UnderWay int
}

// Time limits of shard calls. The long ones copy data or wait for uploads. Pageservers
// set no limits themselves.
const (
	quickCall = 30 * time.Second
	longCall  = 5 * time.Minute
)

// ArchivalState says whether a timeline is kept for its data only.
type ArchivalState string

// The states of archival.
const (
	Archived   ArchivalState = "Archived"
	Unarchived ArchivalState = "Unarchived"
)

// ArchivalRequest is the body of PUT …/archival_config.
type ArchivalRequest struct {
	State ArchivalState `json:"state"`
}

// UnmarshalJSON insists on one of the two states.
func (r *ArchivalRequest) UnmarshalJSON(b []byte) error {
	type plain ArchivalRequest
	if err := object(b, (*plain)(r), "state"); err != nil {
		return err
	}
	if r.State != Archived && r.State != Unarchived {
		return Errorf(BadRequest, "unknown variant `%s`, expected `Archived` or `Unarchived`",
			r.State)
	}
	return nil
}

// ArchivalConfig is the call that archives a timeline or brings it back. It waits for an
// upload.
func ArchivalConfig(id TimelineID, req ArchivalRequest) ShardCall {
	return ShardCall{
		Label: "timeline_archival_config", Method: http.MethodPut,
		Path: below(id, "archival_config"), Body: req, Timeout: longCall,
		UnderWay: http.StatusConflict,
	}
}

// DetachBehavior says what becomes of the ancestors and siblings of a timeline that
// leaves its ancestor. Empty leaves this to the pageserver.
type DetachBehavior string

// ParseDetachBehavior reads the long names, and `v1` and `v2`. Errors are BadRequest.
func ParseDetachBehavior(s string) (DetachBehavior, error) {
	switch s {
	case "no_ancestor_and_reparent", "v1":
		return "no_ancestor_and_reparent", nil
	case "multi_level_and_no_reparent", "v2":
		return "multi_level_and_no_reparent", nil
	}
	return "", Errorf(BadRequest,
		"cannot parse query param detach_behavior: cannot parse detach behavior")
}

// DetachAncestor is the call that makes a timeline independent of its ancestor.
func DetachAncestor(id TimelineID, behavior DetachBehavior) ShardCall {
	path := below(id, "detach_ancestor")
	if behavior != "" {
		path += "?detach_behavior=" + string(behavior)
	}
	return ShardCall{
		Label: "timeline_detach_ancestor", Method: http.MethodPut, Path: path, Timeout: longCall,
	}
}

// AncestorDetached is the answer of PUT …/detach_ancestor. It lists the timelines that
// have a new ancestor, in no order.
type AncestorDetached struct {
	Reparented List[TimelineID] `json:"reparented_timelines"`
}

// GCVerb says whether to block garbage collection for a timeline or to allow it again.
type GCVerb string

// The verbs of garbage collection.
const (
	BlockGC   GCVerb = "block_gc"
	UnblockGC GCVerb = "unblock_gc"
)

// ChangeGC is the call that blocks garbage collection or allows it again.
func ChangeGC(id TimelineID, verb GCVerb) ShardCall {
	return ShardCall{
		Label: "timeline_block_unblock_gc", Method: http.MethodPost, Path: below(id, string(verb)),
		Timeout: quickCall,
	}
}

// LeaseRequest is the body of POST …/lsn_lease.
type LeaseRequest struct {
	Lsn Lsn `json:"lsn"`
}

// UnmarshalJSON insists on the position.
func (r *LeaseRequest) UnmarshalJSON(b []byte) error {
	type plain LeaseRequest
	return object(b, (*plain)(r), "lsn")
}

// LeaseLSN is the call that keeps a position readable for a while.
func LeaseLSN(id TimelineID, req LeaseRequest) ShardCall {
	return ShardCall{
		Label: "timeline_lease_lsn", Method: http.MethodPost, Path: below(id, "lsn_lease"),
		Body: req, Timeout: quickCall,
	}
}

// HeatmapDownload says how a location is to fetch the layers of its heatmap.
type HeatmapDownload struct {
	Concurrency *uint64 // layers at a time; nil leaves it to the pageserver
	Recurse     bool    // also those of the ancestors
}

// DownloadHeatmapLayers is the call that starts fetching the layers of the heatmap.
func DownloadHeatmapLayers(id TimelineID, d HeatmapDownload) ShardCall {
	path := below(id, "download_heatmap_layers") + "?recurse=" + strconv.FormatBool(d.Recurse)
	if d.Concurrency != nil {
		path += "&concurrency=" + strconv.FormatUint(*d.Concurrency, 10)
	}
	return ShardCall{
		Label: "download_heatmap_layers", Method: http.MethodPost, Path: path, Timeout: quickCall,
	}
}

// DescribeTimeline is the call that describes a timeline, and says up to which LSN its
// images are complete.
func DescribeTimeline(id TimelineID) ShardCall {
	return ShardCall{
		Label: "tenant_timeline_describe", Method: http.MethodGet,
		Path: "timeline/" + id.String() + "?include-image-consistent-lsn=true", Timeout: quickCall,
	}
}

// TimelineDescription is the answer of GET /control/v1/tenant/…/timeline/…. It has the
// descriptions by all shards, and the lowest LSN up to which images are complete.
type TimelineDescription struct {
	Shards             List[TimelineInfo] `json:"shards"`
	ImageConsistentLsn *Lsn               `json:"image_consistent_lsn,omitempty"`
}

// DownloadSecondary is the call that warms up a secondary location. It waits for that for
// at most the given time; nil leaves the wait to the pageserver.
func DownloadSecondary(wait *time.Duration) ShardCall {
	c := ShardCall{
		Label: "tenant_secondary_download", Method: http.MethodPost, Path: "secondary/download",
		Timeout: longCall,
	}
	if wait != nil {
		c.Path += "?wait_ms=" + strconv.FormatInt(wait.Milliseconds(), 10)
		c.Timeout = *wait + quickCall
	}
	return c
}

// TimeTravel says to which moment in the past the remote data of a tenant is put back.
// Data that was changed after DoneIfAfter was put back already, and stays as it is. The
// texts are RFC 3339, as the client spelled them.
type TimeTravel struct{ To, DoneIfAfter string }

// TravelRemoteStorage is the call that puts the remote data of one shard back.
func TravelRemoteStorage(t TimeTravel) ShardCall {
	q := url.Values{"travel_to": {t.To}, "done_if_after": {t.DoneIfAfter}}
	return ShardCall{
		Label: "tenant_time_travel_remote_storage", Method: http.MethodPut,
		Path: "time_travel_remote_storage?" + q.Encode(), Timeout: longCall,
	}
}

// TimeTravelRequest is the body of PUT …/time_travel_remote_storage. It lists every
// number of shards that the tenant ever had. Unknown fields are refused.
type TimeTravelRequest struct {
	Counts List[ShardCount] `json:"shard_counts"`
}

// UnmarshalJSON takes no other field.
func (r *TimeTravelRequest) UnmarshalJSON(b []byte) error {
	type plain TimeTravelRequest
	return onlyObject(b, (*plain)(r), "shard_counts")
}

// ScanRemoteStorage is the call that lists which shards of a tenant are in remote
// storage.
func ScanRemoteStorage() ShardCall {
	return ShardCall{
		Label: "tenant_scan_remote_storage", Method: http.MethodGet, Path: "scan_remote_storage",
		Timeout: longCall,
	}
}

// RemoteScan is the answer of GET …/scan_remote_storage.
type RemoteScan struct {
	Shards []RemoteShard `json:"shards"`
}

// RemoteShard is one shard in remote storage. The stripe size is nil when the tenant was
// never split.
type RemoteShard struct {
	Shard      ShardID     `json:"tenant_shard_id"`
	Generation *Generation `json:"generation"`
	StripeSize *StripeSize `json:"stripe_size"`
}

func below(id TimelineID, action string) string { return "timeline/" + id.String() + "/" + action }
