package neon

// SafekeeperGeneration numbers the membership configurations of one timeline. The first
// one is 1. Zero means that there is none.
type SafekeeperGeneration uint32

// TimelineRef is the full name of a timeline: timeline ids are unique only in a tenant.
type TimelineRef struct {
	Tenant   TenantID
	Timeline TimelineID
}

// String prints `<tenant>/<timeline>`.
func (r TimelineRef) String() string { return r.Tenant.String() + "/" + r.Timeline.String() }

// SafekeeperScheduling says how a safekeeper is used. The last one is spelled as the
// existing controller spells it.
type SafekeeperScheduling string

// The policies of a safekeeper.
const (
	SafekeeperActive        SafekeeperScheduling = "Active"        // takes new timelines
	SafekeeperActivating    SafekeeperScheduling = "Activating"    // Active after a heartbeat
	SafekeeperPause         SafekeeperScheduling = "Pause"         // takes no new timelines
	SafekeeperDecomissioned SafekeeperScheduling = "Decomissioned" // is not called any more
)

// Valid reports whether the policy is one of the four.
func (s SafekeeperScheduling) Valid() bool {
	switch s {
	case SafekeeperActive, SafekeeperActivating, SafekeeperPause, SafekeeperDecomissioned:
		return true
	}
	return false
}

// UnmarshalText reads one of the four policies.
func (s *SafekeeperScheduling) UnmarshalText(b []byte) error {
	return variant(s, b, SafekeeperActive, SafekeeperActivating, SafekeeperPause,
		SafekeeperDecomissioned)
}

// SafekeeperUpsert is the body of POST /control/v1/safekeeper/:id, which registers a
// safekeeper or changes what is known of it. Active has no effect.
type SafekeeperUpsert struct {
	ID        int64   `json:"id"`
	Region    string  `json:"region_id"`
	Version   int64   `json:"version"`
	Host      string  `json:"host"`
	Port      uint16  `json:"port"`
	HTTPPort  uint16  `json:"http_port"`
	HTTPSPort *uint16 `json:"https_port"`
	AZ        string  `json:"availability_zone_id"`
	Active    *bool   `json:"active,omitempty"`
}

// UnmarshalJSON insists on all but the port for HTTPS.
func (r *SafekeeperUpsert) UnmarshalJSON(b []byte) error {
	type plain SafekeeperUpsert
	return object(b, (*plain)(r), "id", "region_id", "version", "host", "port", "http_port",
		"availability_zone_id")
}

// SafekeeperDescribe is one safekeeper in the answers of GET /control/v1/safekeeper and
// of GET /control/v1/safekeeper/:id.
type SafekeeperDescribe struct {
	ID         NodeID               `json:"id"`
	Region     string               `json:"region_id"`
	Version    int64                `json:"version"`
	Host       string               `json:"host"`
	Port       uint16               `json:"port"`
	HTTPPort   uint16               `json:"http_port"`
	HTTPSPort  *uint16              `json:"https_port"`
	AZ         string               `json:"availability_zone_id"`
	Scheduling SafekeeperScheduling `json:"scheduling_policy"`

	// Gone: it was declared gone for good. Absent otherwise; Neon's own controller has it not.
	Gone bool `json:"gone,omitempty"`
}

// SafekeeperPolicyRequest is the body of POST …/safekeeper/:id/scheduling_policy.
type SafekeeperPolicyRequest struct {
	Scheduling SafekeeperScheduling `json:"scheduling_policy"`
}

// UnmarshalJSON insists on the policy.
func (r *SafekeeperPolicyRequest) UnmarshalJSON(b []byte) error {
	type plain SafekeeperPolicyRequest
	return object(b, (*plain)(r), "scheduling_policy")
}

// SafekeeperMember is one safekeeper in a configuration, with the address at which
// computes reach it.
type SafekeeperMember struct {
	ID     NodeID `json:"id"`
	Host   string `json:"host"`
	PgPort uint16 `json:"pg_port"`
}

// Membership is the configuration of a timeline on safekeepers. NewMembers is nil unless
// the configuration is joint. A joint one needs a quorum of both sides.
type Membership struct {
	Generation SafekeeperGeneration    `json:"generation"`
	Members    List[SafekeeperMember]  `json:"members"`
	NewMembers *List[SafekeeperMember] `json:"new_members"`
}

// Contains reports whether a safekeeper is on either side of the configuration.
func (m Membership) Contains(id NodeID) bool {
	for _, k := range m.Members {
		if k.ID == id {
			return true
		}
	}
	if m.NewMembers != nil {
		for _, k := range *m.NewMembers {
			if k.ID == id {
				return true
			}
		}
	}
	return false
}

// SafekeeperTimelineCreate is the body of a safekeeper's POST /v1/tenant/timeline.
// A nil field is left to the safekeeper.
type SafekeeperTimelineCreate struct {
	Tenant     TenantID   `json:"tenant_id"`
	Timeline   TimelineID `json:"timeline_id"`
	Membership Membership `json:"mconf"`
	PgVersion  uint32     `json:"pg_version"` // major version times 10,000
	SystemID   *uint64    `json:"system_id"`
	SegSize    *uint32    `json:"wal_seg_size"`
	StartLsn   Lsn        `json:"start_lsn"`
	CommitLsn  *Lsn       `json:"commit_lsn"`
}

// PullTimelineRequest is the body of a safekeeper's POST /v1/pull_timeline, which copies
// a timeline from the best of the hosts.
type PullTimelineRequest struct {
	Tenant     TenantID     `json:"tenant_id"`
	Timeline   TimelineID   `json:"timeline_id"`
	HTTPHosts  List[string] `json:"http_hosts"` // base URLs
	Membership *Membership  `json:"mconf"`
}

// PullTimelineResponse is the answer of a safekeeper's POST /v1/pull_timeline. Host is
// nil when the timeline was there already.
type PullTimelineResponse struct {
	Host *string `json:"safekeeper_host"`
}

// MembershipSwitched is the answer of a safekeeper to a new configuration. It has the
// previous configuration, the current one, and the end of the log.
type MembershipSwitched struct {
	Previous    Membership `json:"previous_conf"`
	Current     Membership `json:"current_conf"`
	LastLogTerm uint64     `json:"last_log_term"`
	FlushLsn    Lsn        `json:"flush_lsn"`
}

// SafekeeperUtilization is the answer of a safekeeper's GET /v1/utilization.
type SafekeeperUtilization struct {
	Timelines uint64 `json:"timeline_count"`
}

// TimelineLocate is the answer of GET …/timeline/:timeline_id/locate. NewSet is nil
// unless the timeline is moving to other safekeepers.
type TimelineLocate struct {
	Generation SafekeeperGeneration `json:"generation"`
	Set        List[NodeID]         `json:"sk_set"`
	NewSet     *List[NodeID]        `json:"new_sk_set"`
}

// TimelineImportRequest is the body of POST /debug/v1/…/timeline/:timeline_id/import.
// Force is required and has no effect.
type TimelineImportRequest struct {
	Tenant   TenantID     `json:"tenant_id"`
	Timeline TimelineID   `json:"timeline_id"`
	StartLsn Lsn          `json:"start_lsn"`
	Set      List[NodeID] `json:"sk_set"`
	Force    bool         `json:"force_upsert"`
}

// UnmarshalJSON insists on all fields.
func (r *TimelineImportRequest) UnmarshalJSON(b []byte) error {
	type plain TimelineImportRequest
	return object(b, (*plain)(r), "tenant_id", "timeline_id", "start_lsn", "sk_set", "force_upsert")
}

// SafekeeperMigrateRequest is the body of POST …/safekeeper_migrate.
type SafekeeperMigrateRequest struct {
	NewSet List[NodeID] `json:"new_sk_set"`
}

// UnmarshalJSON insists on the set.
func (r *SafekeeperMigrateRequest) UnmarshalJSON(b []byte) error {
	type plain SafekeeperMigrateRequest
	return object(b, (*plain)(r), "new_sk_set")
}

// NotifySafekeepers is the body of PUT <control plane>/notify-safekeepers. It lists the
// members of the configuration of a timeline: of both sides, when it is joint.
type NotifySafekeepers struct {
	Tenant      TenantID               `json:"tenant_id"`
	Timeline    TimelineID             `json:"timeline_id"`
	Generation  SafekeeperGeneration   `json:"generation"`
	Safekeepers List[NotifySafekeeper] `json:"safekeepers"`
}

// NotifySafekeeper is one safekeeper of a NotifySafekeepers.
type NotifySafekeeper struct {
	ID       NodeID  `json:"id"`
	Hostname *string `json:"hostname"`
}
