package neon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// ShardParameters is how a tenant is cut into shards.
type ShardParameters struct {
	Count      ShardCount `json:"count"`
	StripeSize StripeSize `json:"stripe_size"`
}

// UnmarshalJSON wants both fields and no other.
func (p *ShardParameters) UnmarshalJSON(b []byte) error {
	type plain ShardParameters
	if err := object(b, (*plain)(p), "count", "stripe_size"); err != nil {
		return err
	}
	return onlyFields(b, "count", "stripe_size")
}

// TenantCreateRequest is the body of POST /v1/tenant. On the wire the fields of
// Config stand beside the others; unknown fields are refused.
type TenantCreateRequest struct {
	Tenant          ShardID          // must be unsharded; the wire takes any
	Generation      *Generation      // of an existing tenant that is taken over
	ShardParameters *ShardParameters // nil: one unsharded shard
	Placement       *Placement       // nil: attached without secondaries
	Config          TenantConfig
}

// MarshalJSON prints the wire form, leaving out what is unset.
func (r TenantCreateRequest) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(struct {
		Tenant     ShardID          `json:"new_tenant_id"`
		Generation *Generation      `json:"generation,omitempty"`
		Parameters *ShardParameters `json:"shard_parameters,omitempty"`
		Placement  *Placement       `json:"placement_policy,omitempty"`
	}{r.Tenant, r.Generation, r.ShardParameters, r.Placement})
	return flatten(head, r.Config), err
}

// UnmarshalJSON reads the wire form.
func (r *TenantCreateRequest) UnmarshalJSON(b []byte) error {
	*r = TenantCreateRequest{}
	conf, err := splitConfig(b, map[string]any{
		"new_tenant_id":    &r.Tenant,
		"generation":       &r.Generation,
		"shard_parameters": &r.ShardParameters,
		"placement_policy": &r.Placement,
	}, "new_tenant_id")
	if err != nil {
		return err
	}
	r.Config, err = ParseTenantConfig(conf, RejectUnknown)
	return err
}

// TenantCreateResponse is the answer of POST /v1/tenant: the attached shards.
type TenantCreateResponse struct {
	Shards List[CreatedShard] `json:"shards"`
}

// CreatedShard is one attached shard of a created tenant.
type CreatedShard struct {
	Shard      ShardID    `json:"shard_id"`
	Node       NodeID     `json:"node_id"`
	Generation Generation `json:"generation"`
}

// ConfigRequest is the body of PUT /v1/tenant/config: the whole new
// configuration, its fields beside the tenant's id. Unknown fields are refused.
type ConfigRequest struct {
	Tenant TenantID
	Config TenantConfig
}

// MarshalJSON prints the wire form.
func (r ConfigRequest) MarshalJSON() ([]byte, error) {
	return flatten(fmt.Appendf(nil, `{"tenant_id":"%s"}`, r.Tenant), r.Config), nil
}

// UnmarshalJSON reads the wire form.
func (r *ConfigRequest) UnmarshalJSON(b []byte) error {
	conf, err := splitConfig(b, map[string]any{"tenant_id": &r.Tenant}, "tenant_id")
	if err != nil {
		return err
	}
	r.Config, err = ParseTenantConfig(conf, RejectUnknown)
	return err
}

// ConfigPatchRequest is the body of PATCH /v1/tenant/config. Patch is a JSON
// object of configuration fields to be handed to TenantConfig.Patch; it was
// checked when the request was decoded.
type ConfigPatchRequest struct {
	Tenant TenantID
	Patch  json.RawMessage
}

// UnmarshalJSON reads the wire form.
func (r *ConfigPatchRequest) UnmarshalJSON(b []byte) error {
	conf, err := splitConfig(b, map[string]any{"tenant_id": &r.Tenant}, "tenant_id")
	if err != nil {
		return err
	}
	r.Patch = conf
	_, err = TenantConfig{}.Patch(conf)
	return err
}

// ConfigResponse is the answer of GET /v1/tenant/:tenant_id/config. The
// controller knows no defaults, so that it sends the same twice.
type ConfigResponse struct {
	Overrides TenantConfig `json:"tenant_specific_overrides"`
	Effective TenantConfig `json:"effective_config"`
}

// PolicyRequest is the body of PUT /control/v1/tenant/:tenant_id/policy; nil
// leaves a policy as it is.
type PolicyRequest struct {
	Placement  *Placement       `json:"placement"`
	Scheduling *ShardScheduling `json:"scheduling"`
}

// MigrateRequest is the body of PUT /control/v1/tenant/:tenant_shard_id/migrate
// and …/migrate_secondary.
type MigrateRequest struct {
	Node   NodeID          `json:"node_id"`
	Origin *NodeID         `json:"origin_node_id"` // refuse unless attached there
	Config MigrationConfig `json:"migration_config"`
}

// UnmarshalJSON insists on the node and fills in the defaults.
func (r *MigrateRequest) UnmarshalJSON(b []byte) error {
	type plain MigrateRequest
	*r = MigrateRequest{Config: DefaultMigrationConfig()}
	return object(b, (*plain)(r), "node_id")
}

// MigrationConfig says how a migration is to go.
type MigrationConfig struct {
	OverrideScheduler bool      `json:"override_scheduler"` // also to a worse node
	Prewarm           bool      `json:"prewarm"`            // warm a secondary first
	WarmupTimeout     *Duration `json:"secondary_warmup_timeout"`
	DownloadTimeout   *Duration `json:"secondary_download_request_timeout"`
}

// DefaultMigrationConfig is the graceful migration that an absent
// migration_config asks for.
func DefaultMigrationConfig() MigrationConfig { return MigrationConfig{Prewarm: true} }

// UnmarshalJSON fills in the defaults.
func (c *MigrationConfig) UnmarshalJSON(b []byte) error {
	type plain MigrationConfig
	*c = DefaultMigrationConfig()
	return json.Unmarshal(b, (*plain)(c))
}

// TenantDescribe is the answer of GET /control/v1/tenant/:tenant_id.
type TenantDescribe struct {
	Tenant     TenantID            `json:"tenant_id"`
	Shards     List[ShardDescribe] `json:"shards"`
	StripeSize StripeSize          `json:"stripe_size"`
	Policy     Placement           `json:"policy"`
	Config     TenantConfig        `json:"config"`
}

// ShardDescribe is one shard of a TenantDescribe.
type ShardDescribe struct {
	Shard                      ShardID         `json:"tenant_shard_id"`
	Attached                   *NodeID         `json:"node_attached"`
	Secondary                  List[NodeID]    `json:"node_secondary"`
	LastError                  string          `json:"last_error"`
	Reconciling                bool            `json:"is_reconciling"`
	PendingComputeNotification bool            `json:"is_pending_compute_notification"`
	Splitting                  bool            `json:"is_splitting"`
	Importing                  bool            `json:"is_importing"`
	Scheduling                 ShardScheduling `json:"scheduling_policy"`
	PreferredAZ                AZ              `json:"preferred_az_id"`
}

// LocateResponse is the answer of GET /debug/v1/tenant/:tenant_id/locate.
type LocateResponse struct {
	Shards     List[LocateShard] `json:"shards"`
	Parameters ShardParameters   `json:"shard_params"`
}

// LocateShard is where one shard is attached.
type LocateShard struct {
	Shard     ShardID `json:"shard_id"`
	Node      NodeID  `json:"node_id"`
	PgAddr    string  `json:"listen_pg_addr"`
	PgPort    uint16  `json:"listen_pg_port"`
	GRPCAddr  *string `json:"listen_grpc_addr"`
	GRPCPort  *uint16 `json:"listen_grpc_port"`
	HTTPAddr  string  `json:"listen_http_addr"`
	HTTPPort  uint16  `json:"listen_http_port"`
	HTTPSPort *uint16 `json:"listen_https_port"`
}

// Leader is the answer of GET /control/v1/leader; null when there is none.
type Leader struct {
	Address   string    `json:"address"` // with a trailing slash
	StartedAt time.Time `json:"started_at"`
}

// flatten appends the fields of c to the JSON object head.
func flatten(head []byte, c TenantConfig) []byte {
	if c.IsZero() || len(head) == 0 {
		return head
	}
	head[len(head)-1] = ','
	return append(head, c.JSON()[1:]...)
}

// splitConfig decodes the named fields of the object b and returns the object of
// all the others, which is the flattened tenant configuration.
func splitConfig(b []byte, named map[string]any, required string) ([]byte, error) {
	var rest bytes.Buffer
	rest.WriteByte('{')
	seen := make(map[string]bool, len(named))
	err := eachField(b, func(key string, raw []byte) error {
		into, ok := named[key]
		if !ok {
			if rest.Len() > 1 {
				rest.WriteByte(',')
			}
			quoted, err := json.Marshal(key)
			rest.Write(quoted)
			rest.WriteByte(':')
			rest.Write(raw)
			return err
		}
		if seen[key] {
			return fmt.Errorf("duplicate field `%s`", key)
		}
		seen[key] = true
		if key == required && isNull(raw) {
			return fmt.Errorf("%s: must not be null", key)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	if err == nil && !seen[required] {
		err = fmt.Errorf("missing field `%s`", required)
	}
	rest.WriteByte('}')
	return rest.Bytes(), err
}

// onlyFields fails on the first field of the object b that is not named.
func onlyFields(b []byte, names ...string) error {
	return eachField(b, func(key string, _ []byte) error {
		for _, n := range names {
			if n == key {
				return nil
			}
		}
		return fmt.Errorf("unknown field `%s`", key)
	})
}
