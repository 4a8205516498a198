package neon

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
)

// TenantID is the id of a tenant: 16 bytes, printed as 32 lower-case hex digits.
type TenantID [16]byte

// Less orders ids by their bytes.
func (t TenantID) Less(o TenantID) bool {
	a, b := binary.BigEndian.Uint64(t[:8]), binary.BigEndian.Uint64(o[:8])
	if a != b {
		return a < b
	}
	return binary.BigEndian.Uint64(t[8:]) < binary.BigEndian.Uint64(o[8:])
}

// TimelineID is the id of a timeline, which is a branch of a tenant: 16 bytes, printed
// as 32 lower-case hex digits.
type TimelineID [16]byte

// NodeID is the id of a pageserver or of a safekeeper. They are numbered separately.
// Zero means that there is none: no node may register with it.
type NodeID uint64

// MaxNodeID is the largest id that a node may register with. Clients keep ids as signed
// numbers.
const MaxNodeID NodeID = math.MaxInt64

// Check refuses an id that no node may have.
func (n NodeID) Check() error {
	switch {
	case n == 0:
		return Errorf(BadRequest, "node id 0 is reserved")
	case n > MaxNodeID:
		return Errorf(BadRequest, "node id %d is too large: at most %d can be used", n, MaxNodeID)
	}
	return nil
}

// ParseTenantID reads 32 hex digits of either case.
func ParseTenantID(s string) (TenantID, error) {
	b, err := parseHexID(s)
	if err != nil {
		return TenantID{}, fmt.Errorf("tenant id %q: %w", s, err)
	}
	return b, nil
}

// ParseTimelineID reads 32 hex digits of either case.
func ParseTimelineID(s string) (TimelineID, error) {
	b, err := parseHexID(s)
	if err != nil {
		return TimelineID{}, fmt.Errorf("timeline id %q: %w", s, err)
	}
	return b, nil
}

func parseHexID(s string) (id [16]byte, err error) {
	if len(s) != 32 {
		return id, fmt.Errorf("want 32 hex digits, have %d characters", len(s))
	}
	_, err = hex.Decode(id[:], []byte(s))
	return id, err
}

// String prints the 32 hex digits.
func (t TenantID) String() string { return hex.EncodeToString(t[:]) }

// String prints the 32 hex digits.
func (t TimelineID) String() string { return hex.EncodeToString(t[:]) }

// MarshalText prints the 32 hex digits.
func (t TenantID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, t[:]), nil }

// UnmarshalText reads the 32 hex digits.
func (t *TenantID) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTenantID(string(b))
	return err
}

// MarshalText prints the 32 hex digits.
func (t TimelineID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, t[:]), nil }

// UnmarshalText reads the 32 hex digits.
func (t *TimelineID) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTimelineID(string(b))
	return err
}

// ParseNodeID reads a decimal node id.
func ParseNodeID(s string) (NodeID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("node id %q: not a number", s)
	}
	return NodeID(n), nil
}

// String prints the id in decimal.
func (n NodeID) String() string { return strconv.FormatUint(uint64(n), 10) }
