package neon

import (
	"fmt"
	"unique"
)

// The fixed binary forms of ids, as the replicated log and snapshots keep them.

const shardIDSize = 18

// AppendBinary appends the 18 bytes tenant, number, count.
func (s ShardID) AppendBinary(b []byte) ([]byte, error) {
	return append(append(b, s.Tenant[:]...), byte(s.Number), byte(s.Count)), nil
}

// MarshalBinary is AppendBinary to an empty slice.
func (s ShardID) MarshalBinary() ([]byte, error) {
	return s.AppendBinary(make([]byte, 0, shardIDSize))
}

// UnmarshalBinary is the inverse of MarshalBinary.
func (s *ShardID) UnmarshalBinary(b []byte) error {
	if len(b) != shardIDSize {
		return fmt.Errorf("tenant shard id: want %d bytes, have %d", shardIDSize, len(b))
	}
	copy(s.Tenant[:], b)
	s.Number, s.Count = ShardNumber(b[16]), ShardCount(b[17])
	return nil
}

// MarshalBinary returns the canonical JSON text. It is empty for the zero value.
func (c TenantConfig) MarshalBinary() ([]byte, error) {
	if c.IsZero() {
		return nil, nil
	}
	return []byte(c.JSON()), nil
}

// UnmarshalBinary interns a text that MarshalBinary returned. It does not parse it,
// because logs and snapshots contain only texts that were canonical when written.
func (c *TenantConfig) UnmarshalBinary(b []byte) error {
	*c = TenantConfig{}
	if len(b) > 0 {
		c.h = unique.Make(string(b))
	}
	return nil
}
