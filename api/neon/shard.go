package neon

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
)

// ShardNumber is the position of a shard in its tenant, from 0.
type ShardNumber uint8

// ShardCount is the number of shards of a tenant. Zero means one shard of a tenant that
// was never sharded. Its id prints without a suffix, and differs from that of count 1.
type ShardCount uint8

// Shards returns how many shards the count stands for: at least one.
func (c ShardCount) Shards() int { return max(1, int(c)) }

// StripeSize is the number of 8 KiB pages in one stripe.
type StripeSize uint32

// MaxStripeSize is the largest stripe size. Existing controllers keep no larger one.
const MaxStripeSize StripeSize = math.MaxInt32

// Check refuses a stripe size that no tenant may have.
func (n StripeSize) Check() error {
	switch {
	case n == 0:
		return Errorf(BadRequest, "stripe_size must not be zero")
	case n > MaxStripeSize:
		return Errorf(BadRequest, "stripe_size %d is too large: at most %d can be used", n,
			MaxStripeSize)
	}
	return nil
}

// DefaultStripeSize is 16 MiB in pages, which is also the default of pageservers.
const DefaultStripeSize StripeSize = 2048

// LegacyStripeSize is 256 MiB in pages, which old tenants still have.
const LegacyStripeSize StripeSize = 32768

// ShardID is the id of one shard of a tenant. Pageservers call it TenantShardId.
type ShardID struct {
	Tenant TenantID
	Number ShardNumber
	Count  ShardCount
}

// Unsharded returns the id of the only shard of an unsharded tenant. The same id stands
// for a whole tenant where the id of a shard is expected.
func Unsharded(t TenantID) ShardID { return ShardID{Tenant: t} }

// IsUnsharded reports whether the id prints without a suffix.
func (s ShardID) IsUnsharded() bool { return s.Count == 0 }

// Compare orders by tenant, then number, then count, as the pageservers do.
func (s ShardID) Compare(o ShardID) int {
	if c := bytes.Compare(s.Tenant[:], o.Tenant[:]); c != 0 {
		return c
	}
	if c := cmp.Compare(s.Number, o.Number); c != 0 {
		return c
	}
	return cmp.Compare(s.Count, o.Count)
}

// Less reports whether s sorts before o. Searches spend most of their time here.
func (s ShardID) Less(o ShardID) bool {
	if s.Tenant != o.Tenant {
		return s.Tenant.Less(o.Tenant)
	}
	if s.Number != o.Number {
		return s.Number < o.Number
	}
	return s.Count < o.Count
}

// ParseShardID reads `<tenant>` or `<tenant>-NNCC`, in hex. Like the pageservers, it
// does not verify that the 33rd character is a dash.
func ParseShardID(s string) (ShardID, error) {
	switch len(s) {
	case 32:
		t, err := ParseTenantID(s)
		return ShardID{Tenant: t}, err
	case 37:
		t, err := ParseTenantID(s[:32])
		if err != nil {
			return ShardID{}, err
		}
		var b [2]byte
		if _, err := hex.Decode(b[:], []byte(s[33:])); err != nil {
			return ShardID{}, fmt.Errorf("tenant shard id %q: %w", s, err)
		}
		return ShardID{Tenant: t, Number: ShardNumber(b[0]), Count: ShardCount(b[1])}, nil
	}
	return ShardID{}, fmt.Errorf("tenant shard id %q: want 32 or 37 characters, have %d", s, len(s))
}

// String prints `<tenant>` for an unsharded id, and else `<tenant>-NNCC`.
func (s ShardID) String() string {
	b, _ := s.MarshalText()
	return string(b)
}

// MarshalText is String as bytes.
func (s ShardID) MarshalText() ([]byte, error) {
	b := make([]byte, 0, 37)
	b = hex.AppendEncode(b, s.Tenant[:])
	if s.Count != 0 {
		b = append(b, '-')
		b = hex.AppendEncode(b, []byte{byte(s.Number), byte(s.Count)})
	}
	return b, nil
}

// UnmarshalText is ParseShardID.
func (s *ShardID) UnmarshalText(b []byte) (err error) {
	*s, err = ParseShardID(string(b))
	return err
}

// Children lists, by number, the shards that a shard becomes when its tenant is split
// to count shards.
func (s ShardID) Children(count ShardCount) []ShardID {
	var ids []ShardID
	for n := int(s.Number); n < count.Shards(); n += s.Count.Shards() {
		ids = append(ids, ShardID{Tenant: s.Tenant, Number: ShardNumber(n), Count: count})
	}
	return ids
}

// CanSplit reports whether pageservers can split a tenant of from shards into one of to
// shards. Every shard becomes the same number of shards: a power of two above one.
func CanSplit(from, to ShardCount) bool {
	if to.Shards() <= from.Shards() || to.Shards()%from.Shards() != 0 {
		return false
	}
	return bits.OnesCount(uint(to.Shards()/from.Shards())) == 1
}

// ShardIDs lists the ids of a tenant with the given count, by number.
func ShardIDs(t TenantID, count ShardCount) []ShardID {
	ids := make([]ShardID, count.Shards())
	for i := range ids {
		ids[i] = ShardID{Tenant: t, Number: ShardNumber(i), Count: count}
	}
	return ids
}
