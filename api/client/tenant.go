package client

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
)

// Tenants are the calls about whole tenants.
type Tenants struct{ c caller }

// Create creates a tenant. When the tenant is there, nothing is changed, and the
// answer says where it is.
func (t Tenants) Create(
	ctx context.Context, req neon.TenantCreateRequest,
) (resp neon.TenantCreateResponse, err error) {
	return resp, t.c.Call(ctx, http.MethodPost, "/v1/tenant", req, &resp)
}

// Delete deletes a tenant with its data. Deleting one that is gone is a 404.
func (t Tenants) Delete(ctx context.Context, id neon.TenantID) error {
	return t.c.Call(ctx, http.MethodDelete, "/v1/tenant/"+id.String(), nil, nil)
}

// Describe returns a tenant with all its shards.
func (t Tenants) Describe(
	ctx context.Context, id neon.TenantID,
) (d neon.TenantDescribe, err error) {
	return d, t.c.Call(ctx, http.MethodGet, "/control/v1/tenant/"+id.String(), nil, &d)
}

// List lists at most limit tenants in the order of their ids, from the first one
// after the given id. The zero id begins at the first tenant, limit 0 lists all.
func (t Tenants) List(
	ctx context.Context, after neon.TenantID, limit int,
) (list []neon.TenantDescribe, err error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if after != (neon.TenantID{}) {
		q.Set("start_after", after.String())
	}
	return list, t.c.Call(ctx, http.MethodGet, withQuery("/control/v1/tenant", q), nil, &list)
}

// errNoPages is met when the controller ignores start_after.
var errNoPages = errors.New("the list of tenants does not go on behind start_after")

// All goes through all tenants in the order of their ids, and asks for so many at a
// time. It ends after the first error.
func (t Tenants) All(
	ctx context.Context, page int,
) iter.Seq2[neon.TenantDescribe, error] {
	return func(yield func(neon.TenantDescribe, error) bool) {
		var last neon.TenantID
		for first := true; ; first = false {
			list, err := t.List(ctx, last, page)
			for i := range list {
				if !first && bytes.Compare(list[i].Tenant[:], last[:]) <= 0 {
					yield(neon.TenantDescribe{}, errNoPages)
					return
				}
				if !yield(list[i], nil) {
					return
				}
			}
			if err != nil {
				yield(neon.TenantDescribe{}, err)
				return
			}
			if len(list) == 0 || page <= 0 {
				return
			}
			last = list[len(list)-1].Tenant
		}
	}
}

// Locate returns where the shards of a tenant are attached.
func (t Tenants) Locate(
	ctx context.Context, id neon.TenantID,
) (l neon.LocateResponse, err error) {
	return l, t.c.Call(ctx, http.MethodGet, "/debug/v1/tenant/"+id.String()+"/locate", nil, &l)
}

// Config returns the tenant's own configuration.
func (t Tenants) Config(ctx context.Context, id neon.TenantID) (neon.TenantConfig, error) {
	var resp neon.ConfigResponse
	err := t.c.Call(ctx, http.MethodGet, "/v1/tenant/"+id.String()+"/config", nil, &resp)
	return resp.Overrides, err
}

// PutConfig replaces the tenant's configuration.
func (t Tenants) PutConfig(
	ctx context.Context, id neon.TenantID, conf neon.TenantConfig,
) error {
	req := neon.ConfigRequest{Tenant: id, Config: conf}
	return t.c.Call(ctx, http.MethodPut, "/v1/tenant/config", req, nil)
}

// PatchConfig sets the fields of the configuration that have a value and unsets
// those that are nil. Fields without a key stay.
func (t Tenants) PatchConfig(
	ctx context.Context, id neon.TenantID, fields map[string]any,
) error {
	body := map[string]any{"tenant_id": id}
	for k, v := range fields {
		body[k] = v
	}
	return t.c.Call(ctx, http.MethodPatch, "/v1/tenant/config", body, nil)
}

// PutLocation sets the placement of a tenant the way control planes do.
func (t Tenants) PutLocation(
	ctx context.Context, id neon.TenantID, conf neon.LocationConfig,
) (resp neon.LocationConfigResponse, err error) {
	path := "/v1/tenant/" + id.String() + "/location_config"
	return resp, t.c.Call(ctx, http.MethodPut, path, conf, &resp)
}

// SetPolicy changes the policies that the request names.
func (t Tenants) SetPolicy(
	ctx context.Context, id neon.TenantID, req neon.PolicyRequest,
) error {
	return t.c.Call(ctx, http.MethodPut, "/control/v1/tenant/"+id.String()+"/policy", req, nil)
}

// Split cuts a tenant into more shards and returns them. It returns when the split
// is done, which may take minutes.
func (t Tenants) Split(
	ctx context.Context, id neon.TenantID, req neon.ShardSplitRequest,
) (resp neon.ShardSplitResponse, err error) {
	path := "/control/v1/tenant/" + id.String() + "/shard_split"
	return resp, t.c.Call(ctx, http.MethodPut, path, req, &resp)
}

// TravelRemoteStorage puts the remote data of a detached tenant back to a moment in
// the past. counts are all numbers of shards that the tenant ever had.
func (t Tenants) TravelRemoteStorage(
	ctx context.Context, id neon.TenantID, to, doneIfAfter time.Time, counts ...neon.ShardCount,
) error {
	q := url.Values{
		"travel_to":     {to.UTC().Format(time.RFC3339Nano)},
		"done_if_after": {doneIfAfter.UTC().Format(time.RFC3339Nano)},
	}
	path := withQuery("/v1/tenant/"+id.String()+"/time_travel_remote_storage", q)
	return t.c.Call(ctx, http.MethodPut, path, neon.TimeTravelRequest{Counts: counts}, nil)
}

// Import takes over a tenant of which only the data in remote storage is known.
func (t Tenants) Import(
	ctx context.Context, id neon.TenantID,
) (resp neon.TenantCreateResponse, err error) {
	path := "/debug/v1/tenant/" + id.String() + "/import"
	return resp, t.c.Call(ctx, http.MethodPost, path, nil, &resp)
}

// Drop makes the controller forget a tenant. Pageservers are not told.
func (t Tenants) Drop(ctx context.Context, id neon.TenantID) error {
	return t.c.Call(ctx, http.MethodPost, "/debug/v1/tenant/"+id.String()+"/drop", nil, nil)
}

func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
