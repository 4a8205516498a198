package neon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// ShardImport is how far the import of a timeline is on one shard. The zero value
// is an import that has just begun.
type ShardImport struct {
	State ShardImportState `cbor:"1,keyasint,omitempty"`
	// Progress is only set with ShardImporting. Zero: none was reported.
	Progress ImportProgress `cbor:"2,keyasint,omitempty"`
	Error    string         `cbor:"3,keyasint,omitempty"` // only with ShardImportFailed
}

// ShardImportState is the state of an import on one shard.
type ShardImportState uint8

// The states of an import on one shard. The last two are terminal.
const (
	ShardImporting ShardImportState = iota
	ShardImportDone
	ShardImportFailed
)

// ImportProgress says how many jobs of its plan a pageserver has completed.
type ImportProgress struct {
	Jobs      uint64 `json:"jobs" cbor:"1,keyasint"`
	Completed uint64 `json:"completed" cbor:"2,keyasint"`
	PlanHash  uint64 `json:"import_plan_hash" cbor:"3,keyasint"`
	JobSize   uint64 `json:"job_soft_size_limit" cbor:"4,keyasint"` // bytes
}

// UnmarshalJSON insists on all fields.
func (p *ImportProgress) UnmarshalJSON(b []byte) error {
	type plain ImportProgress
	return object(b, (*plain)(p), "jobs", "completed", "import_plan_hash", "job_soft_size_limit")
}

// Terminal reports whether the import has ended on the shard.
func (s ShardImport) Terminal() bool { return s.State != ShardImporting }

// MarshalJSON prints {"InProgress":null}, {"InProgress":{"V1":{…}}}, "Done" or
// {"Error":"…"}.
func (s ShardImport) MarshalJSON() ([]byte, error) {
	type versions struct {
		V1 ImportProgress `json:"V1"`
	}
	switch {
	case s.State == ShardImportDone:
		return []byte(`"Done"`), nil
	case s.State == ShardImportFailed:
		return json.Marshal(struct {
			Error string `json:"Error"`
		}{s.Error})
	case s.Progress == ImportProgress{}:
		return []byte(`{"InProgress":null}`), nil
	}
	return json.Marshal(struct {
		InProgress versions `json:"InProgress"`
	}{versions{s.Progress}})
}

// UnmarshalJSON reads what MarshalJSON prints.
func (s *ShardImport) UnmarshalJSON(b []byte) error {
	*s = ShardImport{}
	if b[0] == '"' {
		if string(b) != `"Done"` {
			return fmt.Errorf("unknown variant %s, expected one of `InProgress`, `Done`, `Error`",
				clip(b))
		}
		s.State = ShardImportDone
		return nil
	}
	variants := 0
	err := eachField(b, func(key string, raw []byte) error {
		variants++
		switch key {
		case "InProgress":
			return s.readProgress(raw)
		case "Error":
			s.State = ShardImportFailed
			return value(raw, &s.Error)
		}
		return fmt.Errorf("unknown variant `%s`, expected one of `InProgress`, `Done`, `Error`",
			key)
	})
	if err == nil && variants != 1 {
		err = fmt.Errorf("expected one variant, have %d", variants)
	}
	return err
}

func (s *ShardImport) readProgress(b []byte) error {
	if isNull(b) {
		return nil
	}
	var v struct {
		V1 ImportProgress `json:"V1"`
	}
	err := onlyObject(b, &v, "V1")
	s.Progress = v.V1
	return err
}

// ImportStatusRequest is the body of GET /upcall/v1/timeline_import_status. It asks what
// the shard reported last.
type ImportStatusRequest struct {
	Shard      ShardID    `json:"tenant_shard_id"`
	Timeline   TimelineID `json:"timeline_id"`
	Generation Generation `json:"generation"`
}

// UnmarshalJSON insists on all fields.
func (r *ImportStatusRequest) UnmarshalJSON(b []byte) error {
	type plain ImportStatusRequest
	return object(b, (*plain)(r), "tenant_shard_id", "timeline_id", "generation")
}

// ImportStatusReport is the body of POST /upcall/v1/timeline_import_status.
type ImportStatusReport struct {
	Shard      ShardID     `json:"tenant_shard_id"`
	Timeline   TimelineID  `json:"timeline_id"`
	Status     ShardImport `json:"status"`
	Generation Generation  `json:"generation"`
}

// UnmarshalJSON insists on all fields.
func (r *ImportStatusReport) UnmarshalJSON(b []byte) error {
	type plain ImportStatusReport
	return object(b, (*plain)(r), "tenant_shard_id", "timeline_id", "status", "generation")
}

// ImportComplete is the body of PUT <control plane>/import_complete. Error is nil after
// a success. Otherwise it is a JSON object with a text for each shard, as NNCC.
type ImportComplete struct {
	Tenant   TenantID   `json:"tenant_id"`
	Timeline TimelineID `json:"timeline_id"`
	Error    *string    `json:"error"`
}

// activateCall bounds one call that makes an imported timeline usable. The pageserver
// may have to load the whole shard anew.
const activateCall = 5 * time.Second

// ActivateImported is the call that makes a timeline usable. Its import must have ended
// on all shards.
func ActivateImported(id TimelineID) ShardCall {
	return ShardCall{
		Label: "activate_post_import", Method: http.MethodPut,
		Path:    below(id, "activate_post_import") + "?timeline_activate_timeout_ms=128",
		Timeout: activateCall,
	}
}
