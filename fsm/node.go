package fsm

import "quorate/api/neon"

// NodeAddr is where a pageserver is reached. Ports are 0 when there is none.
type NodeAddr struct {
	HTTPHost  string `cbor:"1,keyasint"`
	HTTPPort  uint16 `cbor:"2,keyasint"`
	HTTPSPort uint16 `cbor:"3,keyasint,omitempty"`
	PGHost    string `cbor:"4,keyasint"`
	PGPort    uint16 `cbor:"5,keyasint"`
	GRPCHost  string `cbor:"6,keyasint,omitempty"`
	GRPCPort  uint16 `cbor:"7,keyasint,omitempty"`
}

// Node is the replicated record of one pageserver.
type Node struct {
	ID   neon.NodeID `cbor:"1,keyasint"`
	Addr NodeAddr    `cbor:"2,keyasint"`
	AZ   neon.AZ     `cbor:"3,keyasint"`

	Scheduling neon.NodeScheduling `cbor:"4,keyasint"`

	// Availability is the last committed verdict. Heartbeats and utilisation are
	// the leader's own memory and never stand here.
	Availability neon.NodeAvailability `cbor:"5,keyasint"`

	// Tombstone marks a deleted node: its id may neither register nor re-attach.
	Tombstone bool `cbor:"6,keyasint,omitempty"`

	// Incarnation counts the re-attaches, that is the process starts we know of.
	Incarnation uint64 `cbor:"7,keyasint"`

	// Operation is the long operation under way; its Kind is OperationNone when
	// there is none.
	Operation Operation `cbor:"9,keyasint,omitzero"`

	// Sequence is the log index of the last change to this record.
	Sequence uint64 `cbor:"8,keyasint"`
}

// Available tells whether calls to the node may be expected to succeed.
func (n *Node) Available() bool { return n.Availability == neon.NodeActive && !n.Tombstone }

// Schedulable tells whether new locations may be placed on the node.
func (n *Node) Schedulable() bool {
	return n.Available() &&
		(n.Scheduling == neon.SchedulingActive || n.Scheduling == neon.SchedulingFilling)
}

// NodeCounts are how many intended locations a node has, kept up to date by
// every command so that placing a shard never walks the others.
type NodeCounts struct {
	Shards   int // attached and secondary
	Attached int
	Home     int // locations of either kind whose shard prefers the node's zone
}
