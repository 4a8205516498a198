package simpageserver

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
)

// tenantHandler answers what is about tenants as a whole.
type tenantHandler struct{ *incarnation }

// remove is DELETE /v1/tenant/{shard}: it drops the local shard, then all
// objects under the id's prefix, which for an unsharded id is the whole tenant.
func (h *tenantHandler) remove(c *call) reply {
	var f *failure
	alive := h.with(func(now time.Duration, core *core) {
		s := core.slots[c.shard]
		switch {
		case core.stopping:
			f = fail(http.StatusServiceUnavailable, "Shutting down")
			return
		case s != nil && s.busy:
			f = failf(http.StatusServiceUnavailable, "Tenant shard %s: operation in progress",
				c.shard)
			return
		}
		oracle := h.host.oracle
		if !oracle.prefixDeleted(h.index, c.shard, c.unseen()) {
			return
		}
		if s != nil {
			core.uncount(s)
			delete(core.slots, c.shard)
			oracle.moved(h.index, transition{shard: c.shard, from: s.mode, fromGen: s.gen},
				c.source())
		}
		core.store.deletePrefix(c.shard)
	})
	switch {
	case !alive:
		return aborted
	case f != nil:
		return f.reply()
	}
	return ok(jsonNull)
}

// travel is PUT …/time_travel_remote_storage. It works for as long as its caller waits.
// Objects have no versions here, so that nothing comes of it.
func (h *tenantHandler) travel(c *call) reply {
	var takes time.Duration
	var f *failure
	if !h.with(func(_ time.Duration, core *core) {
		takes = core.behave.Takes[RouteTimeTravel]
		if core.slots[c.shard] != nil {
			f = failf(http.StatusBadRequest, "tenant shard %s is on this pageserver", c.shard)
		}
	}) || c.late() {
		return aborted
	}
	if f != nil {
		return f.reply()
	}
	defer h.host.oracle.travels(h.index, c.shard)()
	ctx, cancel := context.WithCancel(c.caller)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	if !sleep(ctx, takes) {
		return aborted
	}
	return ok(jsonNull)
}

// tenantJSON is one entry of GET /v1/tenant.
type tenantJSON struct {
	ID           neon.ShardID    `json:"id"`
	State        slugJSON        `json:"state"`
	PhysicalSize *uint64         `json:"current_physical_size"`
	Attachment   slugJSON        `json:"attachment_status"`
	Generation   neon.Generation `json:"generation"`
}

type slugJSON struct {
	Slug string          `json:"slug"`
	Data json.RawMessage `json:"data,omitempty"`
}

func (s *slot) tenantJSON(now time.Duration, shard neon.ShardID) tenantJSON {
	t := tenantJSON{
		ID: shard, Generation: s.gen, State: slugJSON{Slug: string(s.state(now))},
		Attachment: slugJSON{Slug: "attached"},
	}
	switch s.state(now) {
	case Broken:
		t.State.Data = json.RawMessage(`{"reason":"simulated","backtrace":""}`)
		t.Attachment = slugJSON{Slug: "failed", Data: json.RawMessage(`{"reason":"simulated"}`)}
	case Attaching:
		t.Attachment.Slug = "maybe"
	}
	return t
}

// list is GET /v1/tenant.
func (h *tenantHandler) list(*call) reply {
	list := []tenantJSON{}
	if !h.with(func(now time.Duration, core *core) {
		for shard, s := range core.slots {
			if s.mode.attached() && !s.busy {
				list = append(list, s.tenantJSON(now, shard))
			}
		}
	}) {
		return aborted
	}
	slices.SortFunc(list, func(a, b tenantJSON) int { return a.ID.Compare(b.ID) })
	return answer(http.StatusOK, list)
}

// get is GET /v1/tenant/{shard}, without its wait for activation.
func (h *tenantHandler) get(c *call) reply {
	out := failf(http.StatusNotFound, "NotFound: tenant %s", c.shard).reply()
	alive := h.with(func(now time.Duration, core *core) {
		s := core.slots[c.shard]
		switch {
		case s != nil && s.busy:
			out = failf(http.StatusServiceUnavailable, "Tenant shard %s: operation in progress",
				c.shard).reply()
		case s != nil && s.mode.attached():
			out = answer(http.StatusOK, s.tenantJSON(now, c.shard))
		}
	})
	if !alive {
		return aborted
	}
	return out
}

// top is POST /v1/top_tenants.
func (h *tenantHandler) top(c *call) reply {
	var req neon.TopTenantsRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	metric := func(t neon.TopTenant) uint64 {
		switch req.Order {
		case neon.ByMaxLogicalSizePerShard:
			return t.MaxLogicalSizePerShard
		case neon.ByResidentSize:
			return t.ResidentSize
		}
		return t.MaxLogicalSize
	}
	all := []neon.TopTenant{}
	if !h.with(func(now time.Duration, core *core) {
		for id, s := range core.slots {
			if s.state(now) != Active ||
				req.ShardsLT != nil && id.Count.Shards() >= req.ShardsLT.Shards() {
				continue
			}
			t := neon.TopTenant{Shard: id, ResidentSize: core.store.ResidentSize(id.Tenant)}
			if id.Number == 0 {
				t.MaxLogicalSize = core.store.logicalSize(id.Tenant)
				n := uint64(id.Count.Shards())
				t.MaxLogicalSizePerShard = (t.MaxLogicalSize + n - 1) / n
			}
			if req.GT == nil || metric(t) > *req.GT {
				all = append(all, t)
			}
		}
	}) {
		return aborted
	}
	slices.SortFunc(all, func(a, b neon.TopTenant) int {
		return cmp.Or(cmp.Compare(metric(b), metric(a)), a.Shard.Compare(b.Shard))
	})
	return answer(http.StatusOK,
		neon.TopTenantsResponse{Shards: all[:min(len(all), max(0, req.Limit))]})
}

// scanRemote is GET /v1/tenant/{tenant}/scan_remote_storage.
func (h *tenantHandler) scanRemote(c *call) reply {
	scan := neon.RemoteScan{Shards: []neon.RemoteShard{}}
	if !h.with(func(
		_ time.Duration, core *core,
	) {
		scan.Shards = core.store.scan(c.shard.Tenant)
	}) {
		return aborted
	}
	return answer(http.StatusOK, scan)
}
