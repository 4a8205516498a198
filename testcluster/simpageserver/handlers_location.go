package simpageserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"quorate/api/neon"
)

// perform does the work of one call.
func (p *process) perform(c *call) reply {
	switch c.route {
	case RouteLocationPut:
		return p.putLocation(c)
	case RouteLocationGet:
		return p.location(c)
	case RouteLocationList:
		return p.locations()
	case RouteTenantDelete:
		return p.deleteTenant(c)
	case RouteTenantList:
		return p.tenants()
	case RouteTenantGet:
		return p.tenantState(c)
	case RouteTimelineCreate:
		return p.createTimeline(c)
	case RouteTimelineList, RouteTimelineGet:
		return p.timelines(c)
	case RouteTimelineDelete:
		return p.deleteTimeline(c)
	case RouteCheckpoint:
		return p.checkpoint(c)
	case RouteArchival:
		return p.archiveTimeline(c)
	case RouteOffload:
		return p.offloadTimeline(c)
	case RouteTimelinesOffloaded:
		return p.timelinesOffloaded(c)
	case RouteBlockGC, RouteUnblockGC, RouteMarkInvisible:
		return p.markTimeline(c)
	case RouteActivateImport:
		return p.activateImport(c)
	case RouteDetachAncestor:
		return p.detachAncestor(c)
	case RouteLease:
		return p.leaseLsn(c)
	case RouteHeatmapLayers:
		return p.heatmapLayers(c)
	case RouteScanRemote:
		return p.scanRemote(c)
	case RouteWaitLsn:
		return p.waitLsn(c)
	case RouteSecondaryDownload, RouteSecondaryStatus:
		return p.secondary(c)
	case RouteHeatmapUpload:
		return p.heatmapUpload(c)
	case RouteShardSplit:
		return p.splitShard(c)
	case RouteTopTenants:
		return p.topTenants(c)
	case RouteUtilization:
		return p.utilization()
	case RouteDeletionFlush:
		return p.flushDeletions()
	case RouteStatus:
		return answer(http.StatusOK, map[string]neon.NodeID{"id": p.node.opt.ID})
	}
	return fail(http.StatusNotFound, "page not found").reply()
}

// putLocation is PUT /v1/tenant/{shard}/location_config.
func (p *process) putLocation(c *call) reply {
	ch := c.change
	if f := ch.validate(); f != nil {
		return f.reply()
	}
	var f *failure
	var done bool
	var busy time.Duration
	alive := p.with(func(now time.Duration, core *core) {
		var t transition
		if t, done, f = core.begin(now, ch); f != nil {
			return
		}
		if busy = core.behave.SlotBusy; !done && busy <= 0 {
			t, done = core.finish(now, ch), true
		}
		if done {
			p.moved(now, core, c, t)
		}
	})
	switch {
	case !alive:
		return aborted
	case f != nil:
		return f.reply()
	case done:
		return p.locationReply(ch)
	}
	if !p.sleep(busy) || !p.gate.wait(p.ctx) {
		return aborted
	}
	if !p.with(func(
		now time.Duration, core *core,
	) {
		p.moved(now, core, c, core.finish(now, ch))
	}) {
		return aborted
	}
	return p.locationReply(ch)
}

// moved reports a change to the oracle and does what flush_ms asks for.
func (p *process) moved(now time.Duration, core *core, c *call, t transition) {
	p.node.changes.Add(1)
	oracle := p.node.fleet.opt.Oracle
	oracle.moved(p.index, t, c.source())
	s := core.slots[t.shard]
	if s == nil {
		return
	}
	if t.attaches() && s.tenant != nil {
		p.loaded(t.shard, s)
	}
	if c.flush && t.from.attached() && t.to.attached() && t.gen == t.fromGen {
		if t.to == modeStale && t.from != modeStale {
			core.timelines.uploadAll(now, t.shard, s)
		}
		core.heatmaps.upload(now, t.shard, s)
	}
}

func (p *process) loaded(shard neon.ShardID, s *slot) {
	p.startImports(shard, s)
	ids := make([]neon.TimelineID, 0, len(s.tenant.timelines))
	for _, tl := range s.tenant.timelines {
		if !tl.deleting {
			ids = append(ids, tl.id)
		}
	}
	p.node.fleet.opt.Oracle.loaded(p.index, shard, s.gen, ids)
}

func (p *process) locationReply(ch *locationChange) reply {
	if ch.mode == modeNone {
		return ok(jsonNull)
	}
	b := make([]byte, 0, 128)
	b = append(b, `{"shards":[`...)
	if ch.mode.attached() {
		b = append(b, `{"shard_id":"`...)
		b = appendShard(b, ch.shard)
		b = append(b, `","node_id":`...)
		b = strconv.AppendUint(b, uint64(p.node.opt.ID), 10)
		b = append(b, '}')
	}
	b = append(b, ']')
	if ch.count > 1 {
		b = append(b, `,"stripe_size":`...)
		b = strconv.AppendUint(b, uint64(ch.stripe), 10)
	}
	return ok(append(b, '}'))
}

func appendShard(b []byte, shard neon.ShardID) []byte {
	text, err := shard.MarshalText()
	if err != nil {
		panic(err) // it never fails
	}
	return append(b, text...)
}

// listed is what the location routes show of a slot.
type listed struct {
	shard  neon.ShardID
	conf   neon.TenantConfig
	gen    neon.Generation
	stripe neon.StripeSize
	mode   mode
	warm   bool
	busy   bool
}

func (s *slot) listed(shard neon.ShardID) listed {
	return listed{
		shard: shard, conf: s.conf, gen: s.gen, stripe: s.stripe, mode: s.mode, warm: s.warm,
		busy: s.busy,
	}
}

// append prints the location as a LocationConfig, null while it is in progress.
func (l *listed) append(b []byte) []byte {
	if l.busy {
		return append(b, "null"...)
	}
	b = append(b, `{"mode":"`...)
	b = append(b, l.mode.wire()...)
	b = append(b, `","generation":`...)
	if l.mode.attached() {
		b = strconv.AppendUint(b, uint64(l.gen), 10)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"secondary_conf":`...)
	if l.mode == modeSecondary {
		b = append(append(append(b, `{"warm":`...), strconv.FormatBool(l.warm)...), '}')
	} else {
		b = append(b, "null"...)
	}
	b = appendField(b, `,"shard_number":`, uint64(l.shard.Number))
	b = appendField(b, `,"shard_count":`, uint64(l.shard.Count))
	b = appendField(b, `,"shard_stripe_size":`, uint64(l.stripe))
	return append(append(append(b, `,"tenant_conf":`...), l.conf.JSON()...), '}')
}

func appendField(b []byte, key string, n uint64) []byte {
	return strconv.AppendUint(append(b, key...), n, 10)
}

// location is GET /v1/location_config/{shard}.
func (p *process) location(c *call) reply {
	var l *listed
	if !p.with(func(_ time.Duration, core *core) {
		if s := core.slots[c.shard]; s != nil {
			found := s.listed(c.shard)
			l = &found
		}
	}) {
		return aborted
	}
	if l == nil {
		return failf(http.StatusNotFound, "NotFound: tenant %s", c.shard).reply()
	}
	return ok(l.append(nil))
}

// locations is GET /v1/location_config.
func (p *process) locations() reply {
	var all []listed
	if !p.with(func(_ time.Duration, core *core) {
		all = make([]listed, 0, len(core.slots))
		for shard, s := range core.slots {
			all = append(all, s.listed(shard))
		}
	}) {
		return aborted
	}
	slices.SortFunc(all, func(a, b listed) int { return a.shard.Compare(b.shard) })
	b := make([]byte, 0, 64+len(all)*220)
	b = append(b, `{"tenant_shards":[`...)
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[', '"')
		b = appendShard(b, all[i].shard)
		b = append(b, '"', ',')
		b = append(all[i].append(b), ']')
	}
	return ok(append(b, ']', '}'))
}

// deleteTenant is DELETE /v1/tenant/{shard}: it drops the local shard, then all
// objects under the id's prefix, which for an unsharded id is the whole tenant.
func (p *process) deleteTenant(c *call) reply {
	var f *failure
	alive := p.with(func(now time.Duration, core *core) {
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
		oracle := p.node.fleet.opt.Oracle
		oracle.prefixDeleted(p.index, c.shard)
		if s != nil {
			core.uncount(s)
			delete(core.slots, c.shard)
			oracle.moved(p.index, transition{shard: c.shard, from: s.mode, fromGen: s.gen},
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

// tenants is GET /v1/tenant.
func (p *process) tenants() reply {
	list := []tenantJSON{}
	if !p.with(func(now time.Duration, core *core) {
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

// tenantState is GET /v1/tenant/{shard}, without its wait for activation.
func (p *process) tenantState(c *call) reply {
	out := failf(http.StatusNotFound, "NotFound: tenant %s", c.shard).reply()
	alive := p.with(func(now time.Duration, core *core) {
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
