package neon

import (
	"encoding/json"
	"errors"
	"fmt"
)

// TimelineCreateRequest is the body of POST …/timeline. Exactly one of Branch, Import and
// Bootstrap is set. On the wire, its fields are beside the new id, and nothing names the
// variant: `ancestor_timeline_id` makes it a branch, `import_pgdata` an import, and
// anything else a bootstrap.
type TimelineCreateRequest struct {
	Timeline  TimelineID
	Branch    *TimelineBranch
	Import    *TimelineImport
	Bootstrap *TimelineBootstrap
}

// TimelineBranch makes a timeline from an ancestor, at StartLsn or at its end.
type TimelineBranch struct {
	Ancestor  TimelineID `json:"ancestor_timeline_id"`
	StartLsn  *Lsn       `json:"ancestor_start_lsn"`
	PgVersion *PgVersion `json:"pg_version"`
	ReadOnly  bool       `json:"read_only,omitempty"`
}

// TimelineImport makes a timeline from a data directory in object storage. The location
// is kept as it came, because only the pageserver reads it.
type TimelineImport struct {
	Location       json.RawMessage `json:"location"`
	IdempotencyKey string          `json:"idempotency_key"`
}

// UnmarshalJSON insists on both fields, and on a location of a kind that pageservers
// know. From any other they would make an empty timeline.
func (i *TimelineImport) UnmarshalJSON(b []byte) error {
	type plain TimelineImport
	if err := object(b, (*plain)(i), "location", "idempotency_key"); err != nil {
		return err
	}
	var at struct {
		LocalFs *json.RawMessage `json:"LocalFs"`
		AwsS3   *json.RawMessage `json:"AwsS3"`
	}
	if err := onlyObject(i.Location, &at); err != nil {
		return fmt.Errorf("location: %w", err)
	}
	var v struct {
		Path   string `json:"path"`
		Region string `json:"region"`
		Bucket string `json:"bucket"`
		Key    string `json:"key"`
	}
	switch {
	case at.LocalFs != nil && at.AwsS3 == nil:
		return object(*at.LocalFs, &v, "path")
	case at.AwsS3 != nil && at.LocalFs == nil:
		return object(*at.AwsS3, &v, "region", "bucket", "key")
	}
	return errors.New("location: expected one of `LocalFs`, `AwsS3`")
}

// TimelineBootstrap makes an empty timeline, either with a new initdb or with one that
// another shard has uploaded.
type TimelineBootstrap struct {
	ExistingInitdb *TimelineID `json:"existing_initdb_timeline_id"`
	PgVersion      *PgVersion  `json:"pg_version"`
}

// PgVersion is a major version of Postgres, 14 to 17.
type PgVersion uint32

// UnmarshalJSON reads a version that pageservers support.
func (v *PgVersion) UnmarshalJSON(b []byte) error {
	n, err := wireUint(b, 32)
	if err != nil || n < 14 || n > 17 {
		return fmt.Errorf("pg_version: expected 14 to 17, have %s", clip(b))
	}
	*v = PgVersion(n)
	return nil
}

// MarshalJSON prints the wire form of the variant that is set.
func (r TimelineCreateRequest) MarshalJSON() ([]byte, error) {
	var v any
	switch {
	case r.Branch != nil:
		v = struct {
			Timeline TimelineID `json:"new_timeline_id"`
			*TimelineBranch
		}{r.Timeline, r.Branch}
	case r.Import != nil:
		v = struct {
			Timeline TimelineID      `json:"new_timeline_id"`
			Import   *TimelineImport `json:"import_pgdata"`
		}{r.Timeline, r.Import}
	default:
		v = struct {
			Timeline TimelineID `json:"new_timeline_id"`
			*TimelineBootstrap
		}{r.Timeline, r.Bootstrap}
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads the wire form. A malformed value under the key of a variant is an
// error. It must not become an empty timeline.
func (r *TimelineCreateRequest) UnmarshalJSON(b []byte) error {
	*r = TimelineCreateRequest{}
	var keys struct {
		Timeline TimelineID       `json:"new_timeline_id"`
		Ancestor *json.RawMessage `json:"ancestor_timeline_id"`
		Import   *json.RawMessage `json:"import_pgdata"`
	}
	if err := object(b, &keys, "new_timeline_id"); err != nil {
		return err
	}
	r.Timeline = keys.Timeline
	switch {
	case keys.Ancestor != nil:
		r.Branch = new(TimelineBranch)
		return object(b, r.Branch, "ancestor_timeline_id")
	case keys.Import != nil:
		r.Import = new(TimelineImport)
		return json.Unmarshal(*keys.Import, r.Import)
	}
	r.Bootstrap = new(TimelineBootstrap)
	return object(b, r.Bootstrap)
}

// TimelineInfo is the description of a timeline by a pageserver. Only what the
// controller needs is decoded. It prints exactly as the pageserver sent it.
type TimelineInfo struct {
	Timeline           TimelineID
	Ancestor           *TimelineID
	AncestorLsn        *Lsn
	LastRecordLsn      Lsn
	PgVersion          PgVersion
	ImageConsistentLsn *Lsn
	raw                json.RawMessage
}

// UnmarshalJSON decodes the known fields and keeps the text.
func (t *TimelineInfo) UnmarshalJSON(b []byte) error {
	var v struct {
		Timeline           TimelineID  `json:"timeline_id"`
		Ancestor           *TimelineID `json:"ancestor_timeline_id"`
		AncestorLsn        *Lsn        `json:"ancestor_lsn"`
		LastRecordLsn      Lsn         `json:"last_record_lsn"`
		PgVersion          PgVersion   `json:"pg_version"`
		ImageConsistentLsn *Lsn        `json:"image_consistent_lsn"`
	}
	if err := object(b, &v, "timeline_id", "last_record_lsn", "pg_version"); err != nil {
		return err
	}
	*t = TimelineInfo{
		Timeline: v.Timeline, Ancestor: v.Ancestor, AncestorLsn: v.AncestorLsn,
		LastRecordLsn: v.LastRecordLsn, PgVersion: v.PgVersion,
		ImageConsistentLsn: v.ImageConsistentLsn,
		raw:                append(json.RawMessage(nil), b...),
	}
	return nil
}

// MarshalJSON returns the text that was decoded. It is an error without one.
func (t TimelineInfo) MarshalJSON() ([]byte, error) {
	if t.raw == nil {
		return nil, fmt.Errorf("timeline info: nothing was decoded into it")
	}
	return t.raw, nil
}

// SafekeeperSet has the safekeepers of a timeline.
type SafekeeperSet struct {
	Tenant      TenantID             `json:"tenant_id"`
	Timeline    TimelineID           `json:"timeline_id"`
	Generation  uint32               `json:"generation"`
	Safekeepers List[SafekeeperHost] `json:"safekeepers"`
}

// SafekeeperHost is one safekeeper of a timeline.
type SafekeeperHost struct {
	ID       NodeID `json:"id"`
	Hostname string `json:"hostname"`
}

// TimelineCreateResponse is the controller's answer of POST …/timeline. It is the
// description by the pageserver of shard zero with one more field, `safekeepers`. That is
// null when the controller did not place the timeline on safekeepers.
type TimelineCreateResponse struct {
	Info        TimelineInfo
	Safekeepers *SafekeeperSet
}

// MarshalJSON prints the description and the safekeepers as one object.
func (r TimelineCreateResponse) MarshalJSON() ([]byte, error) {
	set, err := json.Marshal(r.Safekeepers)
	if err != nil {
		return nil, err
	}
	b := []byte{'{'}
	err = eachField(r.Info.raw, func(key string, raw []byte) error {
		if key == "safekeepers" {
			return nil
		}
		quoted, err := json.Marshal(key)
		b = append(append(append(append(b, quoted...), ':'), raw...), ',')
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("timeline info: %w", err)
	}
	return append(append(append(b, `"safekeepers":`...), set...), '}'), nil
}

// UnmarshalJSON reads what MarshalJSON prints.
func (r *TimelineCreateResponse) UnmarshalJSON(b []byte) error {
	var v struct {
		Safekeepers *SafekeeperSet `json:"safekeepers"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	r.Safekeepers = v.Safekeepers
	return r.Info.UnmarshalJSON(b)
}
