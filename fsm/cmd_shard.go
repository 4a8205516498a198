package fsm

import (
	"slices"

	"quorate/api/neon"
)

// Intent is a decision on where one shard should be. It was based on the shard
// record with this Sequence and is refused when that moved.
type Intent struct {
	Shard         neon.ShardID  `cbor:"1,keyasint"`
	Sequence      uint64        `cbor:"2,keyasint"`
	Attached      neon.NodeID   `cbor:"3,keyasint,omitempty"`
	Secondary     []neon.NodeID `cbor:"4,keyasint,omitempty"`
	PreferredNode neon.NodeID   `cbor:"5,keyasint,omitempty"`

	// Issue asks for a generation for Attached in the same entry: right when the
	// old location cannot be asked for anything any more.
	Issue bool `cbor:"6,keyasint,omitempty"`

	// Basis is what else the decision was based on. nil: it is of an earlier version.
	Basis *Basis `cbor:"7,keyasint,omitempty"`

	// Insisted says that an operator has asked for it, whatever the policies of the node and
	// of the tenant are.
	Insisted bool `cbor:"8,keyasint,omitempty"`

	// At is the Unix time in milliseconds of what an operator has asked for.
	At int64 `cbor:"9,keyasint,omitempty"`
}

// SetIntents moves the intents of many shards, each on its own condition: the
// shard and the Basis are unchanged since the decision, its tenant is neither being
// deleted nor split, the nodes exist, and the intent fits the tenant's policy. A node that
// the shard is newly attached on, or to move to, takes shards, unless an operator
// insists. Items whose condition does not hold are listed in Result.Refused.
type SetIntents struct {
	Intents []Intent `cbor:"1,keyasint"`
}

// Level is the second with what the first version does not know.
func (c SetIntents) Level() uint64 { return levelOf(c.Intents) }

func (c SetIntents) apply(t *txn) (r Result) {
	for _, in := range c.Intents {
		s, ok := t.Shard(in.Shard)
		tenant, _ := t.Tenant(in.Shard.Tenant)
		issue := in.Issue && in.Attached != 0
		if !ok || s.Sequence != in.Sequence || tenant.Deleting || t.Splitting(tenant.ID) ||
			!t.fits(tenant.Policy, in) || issue && (s.Exhausted() || !numbered(t, &tenant)) ||
			!holds(t, in.Basis, &s) || !welcome(t, &s, &in) {
			r.Refused = append(r.Refused, in.Shard)
			continue
		}
		t.setIntent(s, in)
		if issue {
			s, _ = t.Shard(in.Shard)
			r.Grants = append(r.Grants, t.issue(s, in.Attached))
		}
	}
	t.touched.Grants = append(t.touched.Grants, r.Grants...)
	return r
}

// Issue asks for the next generation of a shard for the node it should be
// attached on. Generation is the number the decision was based on.
type Issue struct {
	Shard      neon.ShardID    `cbor:"1,keyasint"`
	Node       neon.NodeID     `cbor:"2,keyasint"`
	Generation neon.Generation `cbor:"3,keyasint"`

	// Basis is what else the decision was based on. nil: it is of an earlier version.
	Basis *Basis `cbor:"4,keyasint,omitempty"`
}

// IssueGenerations numbers attachments. An item is refused when the shard is no
// longer intended on the node, its generation or anything else of the Basis moved, or its
// tenant is being split or stopped; the others are granted.
type IssueGenerations struct {
	Items []Issue `cbor:"1,keyasint"`
}

// Level is the second with what the first version does not know.
func (c IssueGenerations) Level() uint64 {
	return based(slices.ContainsFunc(c.Items, func(it Issue) bool { return it.Basis != nil }))
}

func (c IssueGenerations) apply(t *txn) (r Result) {
	for _, it := range c.Items {
		s, ok := t.Shard(it.Shard)
		tenant, _ := t.Tenant(it.Shard.Tenant)
		if !ok || it.Node == 0 || s.Attached != it.Node || s.Generation != it.Generation ||
			!t.isLive(it.Node) || t.Splitting(it.Shard.Tenant) || s.Exhausted() ||
			!numbered(t, &tenant) || !holds(t, it.Basis, &s) {
			r.Refused = append(r.Refused, it.Shard)
			continue
		}
		r.Grants = append(r.Grants, t.issue(s, it.Node))
	}
	t.touched.Grants = append(t.touched.Grants, r.Grants...)
	return r
}

// Ack says that compute acknowledged Node as the place of Shard.
type Ack struct {
	Shard neon.ShardID `cbor:"1,keyasint"`
	Node  neon.NodeID  `cbor:"2,keyasint"`
}

// AckNotifications records that compute acknowledged notifications. One for a node
// that does not hold the newest generation any more is ignored.
type AckNotifications struct {
	Acks []Ack `cbor:"1,keyasint"`
}

func (c AckNotifications) apply(t *txn) Result {
	for _, a := range c.Acks {
		s, ok := t.Shard(a.Shard)
		if ok && a.Node != 0 && s.GenNode == a.Node && !s.ComputeAcknowledged {
			s.ComputeAcknowledged, s.AcknowledgedNode = true, a.Node
			t.setShard(s)
		}
	}
	return Result{}
}
