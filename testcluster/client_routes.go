package testcluster

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"quorate/api/neon"
)

// Ready is nil once the replica, or the leader behind it, has finished starting.
func (c *Client) Ready(ctx context.Context) error {
	return c.Call(ctx, http.MethodGet, "/ready", nil, nil)
}

// Status is nil when the replica answers at all.
func (c *Client) Status(ctx context.Context) error {
	return c.Call(ctx, http.MethodGet, "/status", nil, nil)
}

// Leader says which replica last took up its duties; nil when none ever did.
func (c *Client) Leader(ctx context.Context) (leader *neon.Leader, err error) {
	return leader, c.Call(ctx, http.MethodGet, "/control/v1/leader", nil, &leader)
}

// StepDown makes the addressed replica hand leadership over.
func (c *Client) StepDown(ctx context.Context) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/step_down", nil, nil)
}

// CreateTenant creates a tenant, or repeats where an existing one is.
func (c *Client) CreateTenant(
	ctx context.Context, req neon.TenantCreateRequest,
) (resp neon.TenantCreateResponse, err error) {
	t := req.Tenant.Tenant
	err = c.Call(ctx, http.MethodPost, "/v1/tenant", req, &resp)
	c.ledger.ack(t, err, func(e *entry) {
		if e.created {
			return // it was there, and stayed as it was
		}
		e.created, e.shards = true, 1
		if p := req.ShardParameters; p != nil {
			e.shards = p.Count.Shards()
		}
		e.away = req.Placement != nil && req.Placement.Kind == neon.PlaceDetached
		if len(e.configs) == 0 {
			e.configs = []neon.TenantConfig{req.Config}
		}
	})
	return resp, err
}

// DeleteTenant deletes a tenant with its data. Deleting one that is gone is a 404.
func (c *Client) DeleteTenant(ctx context.Context, t neon.TenantID) error {
	c.ledger.change(t, func(e *entry) { e.deletes++ })
	err := c.Call(ctx, http.MethodDelete, "/v1/tenant/"+t.String(), nil, nil)
	c.ledger.ack(t, err, func(e *entry) { e.deleted = true })
	return err
}

// Split cuts a tenant into more shards and returns them.
func (c *Client) Split(
	ctx context.Context, t neon.TenantID, req neon.ShardSplitRequest,
) (resp neon.ShardSplitResponse, err error) {
	c.ledger.change(t, func(e *entry) { e.splits = append(e.splits, int(req.Count)) })
	err = c.Call(ctx, http.MethodPut, "/control/v1/tenant/"+t.String()+"/shard_split", req, &resp)
	c.ledger.ack(t, err, func(e *entry) { e.shards = len(resp.Shards) })
	return resp, err
}

// Describe tells everything about one tenant.
func (c *Client) Describe(ctx context.Context, t neon.TenantID) (d neon.TenantDescribe, err error) {
	return d, c.Call(ctx, http.MethodGet, "/control/v1/tenant/"+t.String(), nil, &d)
}

// Tenants lists at most limit tenants after an id; the zero id starts at the
// beginning, limit 0 lists all.
func (c *Client) Tenants(
	ctx context.Context, after neon.TenantID, limit int,
) (list []neon.TenantDescribe, err error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if after != (neon.TenantID{}) {
		q.Set("start_after", after.String())
	}
	path := "/control/v1/tenant"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return list, c.Call(ctx, http.MethodGet, path, nil, &list)
}

// Locate tells where the shards of a tenant are attached.
func (c *Client) Locate(ctx context.Context, t neon.TenantID) (l neon.LocateResponse, err error) {
	return l, c.Call(ctx, http.MethodGet, "/debug/v1/tenant/"+t.String()+"/locate", nil, &l)
}

// Config is the tenant's own configuration.
func (c *Client) Config(ctx context.Context, t neon.TenantID) (neon.TenantConfig, error) {
	var resp neon.ConfigResponse
	err := c.Call(ctx, http.MethodGet, "/v1/tenant/"+t.String()+"/config", nil, &resp)
	return resp.Overrides, err
}

// PutConfig replaces the tenant's configuration.
func (c *Client) PutConfig(ctx context.Context, t neon.TenantID, conf neon.TenantConfig) error {
	c.ledger.change(t, func(e *entry) { e.configs = append(e.configs, conf); e.writers++ })
	err := c.Call(ctx, http.MethodPut, "/v1/tenant/config",
		neon.ConfigRequest{Tenant: t, Config: conf}, nil)
	c.ledger.change(t, func(e *entry) { e.writers-- })
	c.ledger.ack(t, err, func(e *entry) {
		if e.writers == 0 {
			e.configs = []neon.TenantConfig{conf}
		}
	})
	return err
}

// PatchConfig sets the fields that have a value and unsets those that are nil.
func (c *Client) PatchConfig(ctx context.Context, t neon.TenantID, fields map[string]any) error {
	body := map[string]any{"tenant_id": t}
	for k, v := range fields {
		body[k] = v
	}
	c.ledger.change(t, func(e *entry) { e.unsure = true })
	return c.Call(ctx, http.MethodPatch, "/v1/tenant/config", body, nil)
}

// LocationConfig sets a tenant's placement the way control planes do.
func (c *Client) LocationConfig(
	ctx context.Context, t neon.TenantID, conf neon.LocationConfig,
) (resp neon.LocationConfigResponse, err error) {
	c.ledger.change(t,
		func(e *entry) { e.unsure, e.away = true, e.away || conf.Mode == neon.Detached })
	return resp, c.Call(ctx, http.MethodPut, "/v1/tenant/"+t.String()+"/location_config", conf,
		&resp)
}

// Policy changes the tenant's policies.
func (c *Client) Policy(ctx context.Context, t neon.TenantID, req neon.PolicyRequest) error {
	if p := req.Placement; p != nil && p.Kind == neon.PlaceDetached {
		c.ledger.change(t, func(e *entry) { e.away = true })
	}
	return c.Call(ctx, http.MethodPut, "/control/v1/tenant/"+t.String()+"/policy", req, nil)
}

// Migrate moves the attached location of a shard.
func (c *Client) Migrate(ctx context.Context, s neon.ShardID, req neon.MigrateRequest) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/tenant/"+s.String()+"/migrate", req, nil)
}

// CreateTimeline creates a timeline on all shards of a tenant.
func (c *Client) CreateTimeline(
	ctx context.Context, t neon.TenantID, req neon.TimelineCreateRequest,
) (info neon.TimelineInfo, err error) {
	err = c.Call(ctx, http.MethodPost, "/v1/tenant/"+t.String()+"/timeline", req, &info)
	c.ledger.ack(t, err, func(e *entry) { e.timelines[req.Timeline] = true })
	return info, err
}

// Timelines lists the timelines of a tenant.
func (c *Client) Timelines(
	ctx context.Context, t neon.TenantID,
) (list []neon.TimelineInfo, err error) {
	return list, c.Call(ctx, http.MethodGet, "/v1/tenant/"+t.String()+"/timeline", nil, &list)
}

// AllTimelines lists the ids of the timelines of a tenant, offloaded ones included.
func (c *Client) AllTimelines(
	ctx context.Context, t neon.TenantID,
) (list []neon.TimelineID, err error) {
	type one struct {
		Timeline neon.TimelineID `json:"timeline_id"`
	}
	var all struct{ Timelines, Offloaded []one }
	err = c.Call(ctx, http.MethodGet, "/v1/tenant/"+t.String()+"/timeline_and_offloaded", nil, &all)
	for _, tl := range append(all.Timelines, all.Offloaded...) {
		list = append(list, tl.Timeline)
	}
	return list, err
}

// Timeline tells about one timeline.
func (c *Client) Timeline(
	ctx context.Context, t neon.TenantID, tl neon.TimelineID,
) (info neon.TimelineInfo, err error) {
	return info, c.Call(ctx, http.MethodGet, fmt.Sprintf("/v1/tenant/%s/timeline/%s", t, tl), nil,
		&info)
}

// DeleteTimeline deletes a timeline from all shards and its data.
func (c *Client) DeleteTimeline(ctx context.Context, t neon.TenantID, tl neon.TimelineID) error {
	c.ledger.change(t, func(e *entry) { e.timelines[tl] = false })
	return c.Call(ctx, http.MethodDelete, fmt.Sprintf("/v1/tenant/%s/timeline/%s", t, tl), nil, nil)
}

// RegisterNode makes a pageserver known.
func (c *Client) RegisterNode(ctx context.Context, req neon.NodeRegister) error {
	return c.Call(ctx, http.MethodPost, "/control/v1/node", req, nil)
}

// Nodes lists the pageservers by id.
func (c *Client) Nodes(ctx context.Context) (list []neon.NodeDescribe, err error) {
	return list, c.Call(ctx, http.MethodGet, "/control/v1/node", nil, &list)
}

// Node tells about one pageserver.
func (c *Client) Node(ctx context.Context, id neon.NodeID) (n neon.NodeDescribe, err error) {
	return n, c.Call(ctx, http.MethodGet, "/control/v1/node/"+id.String(), nil, &n)
}

// ConfigureNode changes a pageserver's availability or scheduling.
func (c *Client) ConfigureNode(ctx context.Context, req neon.NodeConfigure) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/node/"+req.ID.String()+"/config", req, nil)
}

// Drain begins to move what is attached on a pageserver away; CancelDrain ends that.
func (c *Client) Drain(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/node/"+id.String()+"/drain", nil, nil)
}

// DrainBesideOthers is Drain while other nodes may have operations too.
func (c *Client) DrainBesideOthers(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/node/"+id.String()+"/drain?concurrent=true",
		nil, nil)
}

// CancelDrain ends a drain.
func (c *Client) CancelDrain(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodDelete, "/control/v1/node/"+id.String()+"/drain", nil, nil)
}

// Fill begins to bring attached shards to a pageserver.
func (c *Client) Fill(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/node/"+id.String()+"/fill", nil, nil)
}

// CancelFill ends a fill.
func (c *Client) CancelFill(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodDelete, "/control/v1/node/"+id.String()+"/fill", nil, nil)
}

// DeleteNode begins to delete a pageserver gracefully.
func (c *Client) DeleteNode(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/node/"+id.String()+"/delete", nil, nil)
}

// ForceDeleteNode begins to delete a pageserver that is not waited for.
func (c *Client) ForceDeleteNode(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/node/"+id.String()+"/delete?force=true", nil,
		nil)
}

// CancelDeleteNode ends a deletion that has not come to its end.
func (c *Client) CancelDeleteNode(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodDelete, "/control/v1/node/"+id.String()+"/delete", nil, nil)
}

// DeleteNodeNow deletes a pageserver the older way, in one request.
func (c *Client) DeleteNodeNow(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodDelete, "/control/v1/node/"+id.String(), nil, nil)
}

// Failpoint sets what happens at a place of whichever controller answers.
func (c *Client) Failpoint(ctx context.Context, name, actions string) error {
	body := []map[string]string{{"name": name, "actions": actions}}
	return c.Call(ctx, http.MethodPut, "/debug/v1/failpoints", body, nil)
}

// Operations lists the operations on nodes that run.
func (c *Client) Operations(ctx context.Context) (list []struct {
	Node neon.NodeID `json:"node_id"`
	Kind string      `json:"operation"`
}, err error) {
	return list, c.Call(ctx, http.MethodGet, "/debug/v1/operation", nil, &list)
}

// Tombstones lists the deleted pageservers.
func (c *Client) Tombstones(ctx context.Context) (list []neon.NodeDescribe, err error) {
	return list, c.Call(ctx, http.MethodGet, "/debug/v1/tombstone", nil, &list)
}

// ReAttach is the upcall of a pageserver that started.
func (c *Client) ReAttach(
	ctx context.Context, req neon.ReAttachRequest,
) (resp neon.ReAttachResponse, err error) {
	return resp, c.Call(ctx, http.MethodPost, "/upcall/v1/re-attach", req, &resp)
}

// Validate is the upcall of a pageserver about to delete objects.
func (c *Client) Validate(
	ctx context.Context, req neon.ValidateRequest,
) (resp neon.ValidateResponse, err error) {
	return resp, c.Call(ctx, http.MethodPost, "/upcall/v1/validate", req, &resp)
}

// Dump lists every shard with all that the leader knows of it.
func (c *Client) Dump(ctx context.Context) (list []neon.ShardDump, err error) {
	return list, c.Call(ctx, http.MethodGet, "/debug/v1/tenant", nil, &list)
}

// ReconcileAll wakes every shard up and returns how many are not yet where they
// should be; 0 is at rest.
func (c *Client) ReconcileAll(ctx context.Context) (unclean int, err error) {
	return unclean, c.Call(ctx, http.MethodPost, "/debug/v1/reconcile_all", nil, &unclean)
}

// ConsistencyCheck is nil when the leader's state holds together.
func (c *Client) ConsistencyCheck(ctx context.Context) error {
	return c.Call(ctx, http.MethodPost, "/debug/v1/consistency_check", nil, nil)
}

// Membership is the cluster as one replica sees it.
type Membership struct {
	ID           string   `json:"cluster_id"`
	Server       string   `json:"server_id"` // the replica that answers
	Leader       string   `json:"leader_id"` // empty when none is known
	Term         uint64   `json:"term"`
	CommitIndex  uint64   `json:"commit_index"`
	AppliedIndex uint64   `json:"applied_index"`
	Level        uint64   `json:"feature_level"` // that all members know
	Members      []Member `json:"members"`
}

// Member is one replica of a Membership.
type Member struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
	HTTPAddr string `json:"http_addr"`
	Role     string `json:"role"` // leader, voter or learner
	Applied  uint64 `json:"applied_index"`
	Lag      uint64 `json:"lag"`
}

// Membership asks the replica how it sees the cluster.
func (c *Client) Membership(ctx context.Context) (m Membership, err error) {
	return m, c.Call(ctx, http.MethodGet, "/debug/v1/cluster", nil, &m)
}
