package neon

import (
	"encoding/json"
	"fmt"
	"time"
)

// ShardParameters says how a tenant is cut into shards. Unknown fields are refused.
type ShardParameters struct {
	Count      ShardCount `json:"count"`
	StripeSize StripeSize `json:"stripe_size"`
}

// UnmarshalJSON insists on both fields, and refuses others.
func (p *ShardParameters) UnmarshalJSON(b []byte) error {
	type plain ShardParameters
	return onlyObject(b, (*plain)(p), "count", "stripe_size")
}

// TenantCreateRequest is the body of POST /v1/tenant. On the wire, the fields of Config
// are beside the others. Unknown fields are refused.
type TenantCreateRequest struct {
	Tenant          ShardID          // must be unsharded, which decoding does not check
	Generation      *Generation      // of an existing tenant that is taken over
	ShardParameters *ShardParameters // nil: one unsharded shard
	Placement       *Placement       // nil: attached without secondaries
	Config          TenantConfig
}

// MarshalJSON prints the wire form without the fields that are not set.
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
	var head struct {
		Tenant     ShardID                `json:"new_tenant_id"`
		Generation *Generation            `json:"generation"`
		Parameters given[ShardParameters] `json:"shard_parameters"`
		Placement  *Placement             `json:"placement_policy"`
	}
	conf, err := splitConfig(b, &head, "new_tenant_id")
	if err != nil {
		return err
	}
	*r = TenantCreateRequest{
		Tenant: head.Tenant, Generation: head.Generation, ShardParameters: head.Parameters.value,
		Placement: head.Placement,
	}
	r.Config, err = ParseTenantConfig(conf, RejectUnknown)
	return err
}

// given is a field that may be absent but not null.
type given[T any] struct{ value *T }

// UnmarshalJSON reads the value.
func (g *given[T]) UnmarshalJSON(b []byte) error {
	g.value = new(T)
	return value(b, g.value)
}

// TenantCreateResponse is the answer of POST /v1/tenant. It lists the attached shards.
type TenantCreateResponse struct {
	Shards List[CreatedShard] `json:"shards"`
}

// CreatedShard is one attached shard of a created tenant.
type CreatedShard struct {
	Shard      ShardID    `json:"shard_id"`
	Node       NodeID     `json:"node_id"`
	Generation Generation `json:"generation"`
}

// ConfigRequest is the body of PUT /v1/tenant/config, which replaces a configuration. On
// the wire, the fields of Config are beside the id. Unknown fields are refused.
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
	var head configHead
	conf, err := splitConfig(b, &head, "tenant_id")
	if err != nil {
		return err
	}
	r.Tenant = head.Tenant
	r.Config, err = ParseTenantConfig(conf, RejectUnknown)
	return err
}

// configHead is the field beside the fields of a configuration.
type configHead struct {
	Tenant TenantID `json:"tenant_id"`
}

// ConfigPatchRequest is the body of PATCH /v1/tenant/config. Patch is a JSON object of
// configuration fields for TenantConfig.Patch. Decoding the request has checked it.
type ConfigPatchRequest struct {
	Tenant TenantID
	Patch  json.RawMessage
}

// UnmarshalJSON reads the wire form.
func (r *ConfigPatchRequest) UnmarshalJSON(b []byte) error {
	var head configHead
	conf, err := splitConfig(b, &head, "tenant_id")
	if err != nil {
		return err
	}
	r.Tenant, r.Patch = head.Tenant, conf
	_, err = TenantConfig{}.Patch(conf)
	return err
}

// ConfigResponse is the answer of GET /v1/tenant/:tenant_id/config. The controller does
// not know the defaults, so both fields are the same.
type ConfigResponse struct {
	Overrides TenantConfig `json:"tenant_specific_overrides"`
	Effective TenantConfig `json:"effective_config"`
}

// PolicyRequest is the body of PUT /control/v1/tenant/:tenant_id/policy. Nil leaves a
// policy as it is.
type PolicyRequest struct {
	Placement  *Placement       `json:"placement"`
	Scheduling *ShardScheduling `json:"scheduling"`
}

// UnmarshalJSON requires no field.
func (r *PolicyRequest) UnmarshalJSON(b []byte) error {
	type plain PolicyRequest
	return object(b, (*plain)(r))
}

// MigrateRequest is the body of PUT /control/v1/tenant/:tenant_shard_id/migrate and of
// PUT …/migrate_secondary.
type MigrateRequest struct {
	Node   NodeID          `json:"node_id"`
	Origin *NodeID         `json:"origin_node_id"` // refused unless attached there
	Config MigrationConfig `json:"migration_config"`
}

// UnmarshalJSON insists on the node and fills in the defaults.
func (r *MigrateRequest) UnmarshalJSON(b []byte) error {
	type plain MigrateRequest
	*r = MigrateRequest{Config: DefaultMigrationConfig()}
	return object(b, (*plain)(r), "node_id")
}

// MigrationConfig says how a migration is carried out.
type MigrationConfig struct {
	OverrideScheduler bool      `json:"override_scheduler"` // also to a worse node
	Prewarm           bool      `json:"prewarm"`            // warm a secondary first
	WarmupTimeout     *Duration `json:"secondary_warmup_timeout"`
	DownloadTimeout   *Duration `json:"secondary_download_request_timeout"` // of one request
}

// DefaultMigrationConfig returns the settings when there is no migration_config: the
// destination is warmed up first.
func DefaultMigrationConfig() MigrationConfig { return MigrationConfig{Prewarm: true} }

// UnmarshalJSON fills in the defaults.
func (c *MigrationConfig) UnmarshalJSON(b []byte) error {
	type plain MigrationConfig
	*c = DefaultMigrationConfig()
	return object(b, (*plain)(c))
}

// TenantDescribe is the answer of GET /control/v1/tenant/:tenant_id, and one element of
// that of GET /control/v1/tenant.
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

// LocateShard says where one shard is attached.
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

// splitConfig decodes the fields of the struct at head. It returns the object of all
// others, which are those of the tenant configuration.
func splitConfig(b []byte, head any, required string) ([]byte, error) {
	rest := []byte{'{'}
	err := objectWith(b, head, func(key string, raw []byte) error {
		if len(rest) > 1 {
			rest = append(rest, ',')
		}
		quoted, err := json.Marshal(key)
		rest = append(append(append(rest, quoted...), ':'), raw...)
		return err
	}, required)
	return append(rest, '}'), err
}
