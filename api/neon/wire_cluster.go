package neon

// Cluster is the answer of GET /debug/v1/cluster. It has the members of the Raft cluster
// as the replica that was asked sees them. Neon's own controller has no such route.
type Cluster struct {
	ID           string          `json:"cluster_id"`
	Server       string          `json:"server_id"` // of the replica that answers
	Leader       string          `json:"leader_id"` // empty when none is known
	Term         uint64          `json:"term"`
	CommitIndex  uint64          `json:"commit_index"`
	AppliedIndex uint64          `json:"applied_index"`
	Level        uint64          `json:"feature_level"` // known to all members
	Members      []ClusterMember `json:"members"`
}

// ClusterMember is one replica of a Cluster.
type ClusterMember struct {
	ID          string `json:"id"`
	RaftAddr    string `json:"raft_addr"`
	HTTPAddr    string `json:"http_addr"`
	Role        string `json:"role"` // leader, voter or learner
	LastContact string `json:"last_contact"`
	Applied     uint64 `json:"applied_index"`
	Lag         uint64 `json:"lag"`           // entries behind the leader
	Level       uint64 `json:"feature_level"` // that its version knows; 0: not known
	// Equality is equal, diverged, or unknown: its state beside that of the replica asked.
	Equality string `json:"equality"`
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
}
