package neon

import (
	"fmt"
	"net/netip"
	"slices"
)

// NodeRegister is the body of POST /control/v1/node, and the `register` part of a
// re-attach. It says how to reach a pageserver.
type NodeRegister struct {
	ID         NodeID      `json:"node_id"`
	PgAddr     string      `json:"listen_pg_addr"`
	PgPort     uint16      `json:"listen_pg_port"`
	GRPCAddr   *string     `json:"listen_grpc_addr"`
	GRPCPort   *uint16     `json:"listen_grpc_port"`
	HTTPAddr   string      `json:"listen_http_addr"`
	HTTPPort   uint16      `json:"listen_http_port"`
	HTTPSPort  *uint16     `json:"listen_https_port"`
	AZ         AZ          `json:"availability_zone_id"`
	NodeIPAddr *netip.Addr `json:"node_ip_addr"`
}

// UnmarshalJSON insists on the addresses, the zone and the id.
func (r *NodeRegister) UnmarshalJSON(b []byte) error {
	type plain NodeRegister
	return object(b, (*plain)(r), "node_id", "listen_pg_addr", "listen_pg_port",
		"listen_http_addr", "listen_http_port", "availability_zone_id")
}

// NodeConfigure is the body of PUT /control/v1/node/:node_id/config. Nil leaves a setting
// as it is.
type NodeConfigure struct {
	ID           NodeID            `json:"node_id"`
	Availability *NodeAvailability `json:"availability"`
	Scheduling   *NodeScheduling   `json:"scheduling"`
}

// UnmarshalJSON insists on the id.
func (r *NodeConfigure) UnmarshalJSON(b []byte) error {
	type plain NodeConfigure
	return object(b, (*plain)(r), "node_id")
}

// NodeDescribe is one pageserver in the answers of GET /control/v1/node and of
// GET /control/v1/node/:node_id.
type NodeDescribe struct {
	ID           NodeID           `json:"id"`
	Availability NodeAvailability `json:"availability"`
	Scheduling   NodeScheduling   `json:"scheduling"`
	AZ           string           `json:"availability_zone_id"`
	HTTPAddr     string           `json:"listen_http_addr"`
	HTTPPort     uint16           `json:"listen_http_port"`
	HTTPSPort    *uint16          `json:"listen_https_port"`
	PgAddr       string           `json:"listen_pg_addr"`
	PgPort       uint16           `json:"listen_pg_port"`
	GRPCAddr     *string          `json:"listen_grpc_addr"`
	GRPCPort     *uint16          `json:"listen_grpc_port"`
}

// NodeShards is the answer of GET /control/v1/node/:node_id/shards.
type NodeShards struct {
	ID     NodeID          `json:"node_id"`
	Shards List[NodeShard] `json:"shards"`
}

// NodeShard is one shard with a location on the node. A field is nil when the node has
// no observed location, or no intended one.
type NodeShard struct {
	Shard             ShardID `json:"tenant_shard_id"`
	ObservedSecondary *bool   `json:"is_observed_secondary"`
	IntendedSecondary *bool   `json:"is_intended_secondary"`
}

// UnmarshalText reads one of the three verdicts.
func (a *NodeAvailability) UnmarshalText(b []byte) error {
	return variant(a, b, NodeActive, NodeWarmingUp, NodeOffline)
}

// UnmarshalText reads one of the six policies.
func (s *NodeScheduling) UnmarshalText(b []byte) error {
	return variant(s, b, SchedulingActive, SchedulingFilling, SchedulingPause,
		SchedulingPauseForRestart, SchedulingDraining, SchedulingDeleting)
}

// UnmarshalText reads one of the four policies.
func (s *ShardScheduling) UnmarshalText(b []byte) error {
	return variant(s, b, ShardActive, ShardEssential, ShardPause, ShardStop)
}

// UnmarshalText reads one of the five modes.
func (m *LocationMode) UnmarshalText(b []byte) error {
	return variant(m, b, AttachedSingle, AttachedMulti, AttachedStale, Secondary, Detached)
}

// variant sets into to the one of all that the text names.
func variant[T ~string](into *T, text []byte, all ...T) error {
	if v := T(text); slices.Contains(all, v) {
		*into = v
		return nil
	}
	return fmt.Errorf("unknown variant `%s`, expected one of %v", clip(text), all)
}
