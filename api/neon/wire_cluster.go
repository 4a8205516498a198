package neon

import "time"

// Cluster is the answer of GET /control/v1/cluster/members. It has the members of the
// Raft cluster as the replica that was asked sees them. Neon's own controller has no such
// route.
type Cluster struct {
	ID           string `json:"cluster_id"`
	Server       string `json:"server_id"` // of the replica that answers
	Leader       string `json:"leader_id"` // empty when none is known
	Term         uint64 `json:"term"`
	CommitIndex  uint64 `json:"commit_index"`
	AppliedIndex uint64 `json:"applied_index"`
	Level        uint64 `json:"feature_level"` // known to all members

	// Current: a leader has confirmed that no change of the members is missing.
	Current bool            `json:"current"`
	Members []ClusterMember `json:"members"`

	// Waiting are servers that were started with --join and have said so to the replica
	// that answers. What they say has not been verified.
	Waiting []ClusterApplicant `json:"waiting,omitempty"`
}

// ClusterApplicant is a server that waits until it is added to a Cluster.
type ClusterApplicant struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
	HTTPAddr string `json:"http_addr"`
}

// Roles of members.
const (
	RoleLeader  = "leader"
	RoleVoter   = "voter"
	RoleLearner = "learner" // has the state, and no vote
)

// What is known of the state of a member, compared with that of the replica that answers.
const (
	MemberEqual    = "equal"
	MemberDiverged = "diverged" // out of service
	MemberUnknown  = "unknown"
)

// What is known of the disk of a member.
const (
	DiskHealthy   = "healthy"
	DiskUnhealthy = "unhealthy"
	DiskUnknown   = "unknown"
)

// ClusterMember is one replica of a Cluster.
type ClusterMember struct {
	ID          string `json:"id"`
	RaftAddr    string `json:"raft_addr"`
	HTTPAddr    string `json:"http_addr"`
	Role        string `json:"role"`
	Connected   bool   `json:"connected"`
	LastContact string `json:"last_contact"` // how long ago, or never
	Applied     uint64 `json:"applied_index"`
	Lag         uint64 `json:"lag"` // entries behind the leader
	Equality    string `json:"equality"`
	Divergence  string `json:"divergence,omitempty"` // why it is diverged
	Disk        string `json:"disk"`
	DiskReason  string `json:"disk_reason,omitempty"` // why it is unhealthy
	Level       uint64 `json:"feature_level"`         // that its version knows; 0: not known
	Version     string `json:"version"`
	Uptime      string `json:"uptime"` // of its process; empty: not known
}

// MemberAdd is the body of POST /control/v1/cluster/members, and, with the member that
// replaces another one, of POST /control/v1/cluster/members/:member_id/replace.
type MemberAdd struct {
	ID string `json:"id"`
	// RaftAddr is its host:port for the other members. It may be empty for a member and for
	// a server in Cluster.Waiting.
	RaftAddr string `json:"raft_addr,omitempty"`
	// Standby: it gets no vote. A replacement has a vote if the replaced one had.
	Standby bool `json:"standby,omitempty"`
}

// UnmarshalJSON insists on the id.
func (r *MemberAdd) UnmarshalJSON(b []byte) error {
	type plain MemberAdd
	return object(b, (*plain)(r), "id")
}

// MemberAdded is the answer to a MemberAdd.
type MemberAdded struct {
	ID       string   `json:"id"`
	RaftAddr string   `json:"raft_addr"`
	Role     string   `json:"role"`
	Start    []string `json:"start"`          // flags about the cluster that it is started with
	Note     string   `json:"note,omitempty"` // what to know about the members as they are now
}

// LeaderTransfer is the body of POST /control/v1/cluster/transfer. An empty id means the
// most up to date voter.
type LeaderTransfer struct {
	To string `json:"to,omitempty"`
}

// UnmarshalJSON insists on nothing.
func (r *LeaderTransfer) UnmarshalJSON(b []byte) error {
	type plain LeaderTransfer
	return object(b, (*plain)(r))
}

// NodeOperation is one operation under way on a pageserver, in the answer of
// GET /debug/v1/operation.
type NodeOperation struct {
	Node     NodeID `json:"node_id"`
	Kind     string `json:"operation"` // drain, fill or delete
	Force    bool   `json:"force"`
	Total    int    `json:"attached_at_start"` // attached shards when it was begun
	Attached int    `json:"attached"`          // attached shards now
	Shards   int    `json:"shards"`            // locations of either kind now

	// Waits are shards that cannot get on now, and Stays those that will not get where
	// the operation wants them, for which it waits no longer. Both are absent when there
	// are none, and name at most 16 shards, those with the lowest ids.
	Waits *HinderedShards `json:"waits_for,omitempty"`
	Stays *HinderedShards `json:"stays,omitempty"`
}

// EndedNodeOperation is how the last operation of its kind on a pageserver has ended, in the
// answer of GET /debug/v1/operation?ended=true. The pageserver need not exist any more.
type EndedNodeOperation struct {
	Node  NodeID `json:"node_id"`
	Kind  string `json:"operation"` // drain, fill or delete
	Force bool   `json:"force"`

	// Result is completed, cancelled, interrupted (by a restart of the pageserver) or
	// gave_up (a deletion that would leave something behind).
	Result string `json:"result"`

	BegunAt *time.Time `json:"begun_at"` // null: not known
	EndedAt *time.Time `json:"ended_at"`

	Total    int `json:"attached_at_start"` // attached shards when it was begun
	Attached int `json:"attached"`          // attached shards when it ended
	Shards   int `json:"shards"`            // locations of either kind then

	// Left are the shards that are not where the operation wanted them, or that have lost
	// their place with their pageserver; absent when there are none.
	Left *HinderedShards `json:"left,omitempty"`
}

// HinderedShards are shards that are not where an operation wants them.
type HinderedShards struct {
	Count  int                 `json:"count"`
	Shards List[HinderedShard] `json:"shards"` // some of them
}

// HinderedShard is one of them, with the reason for people.
type HinderedShard struct {
	Shard ShardID `json:"tenant_shard_id"`
	Why   string  `json:"why"`
}
