package simpageserver

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"quorate/api/neon"
)

// locationHandler answers what is about locations.
type locationHandler struct {
	*incarnation
	imports *importHandler
}

// put is PUT /v1/tenant/{shard}/location_config.
func (h *locationHandler) put(c *call) reply {
	ch := c.change
	if f := ch.validate(); f != nil {
		return f.reply()
	}
	var f *failure
	var done bool
	var busy time.Duration
	alive := h.with(func(now time.Duration, core *core) {
		var t transition
		if t, done, f = core.begin(now, ch); f != nil {
			return
		}
		if busy = core.behave.SlotBusy; !done && busy <= 0 {
			t, done = core.finish(now, ch), true
		}
		if done {
			h.moved(now, core, c, t)
		}
	})
	switch {
	case !alive:
		return aborted
	case f != nil:
		return f.reply()
	case done:
		return h.reply(ch)
	}
	if !h.sleep(busy) || !h.pass() {
		return aborted
	}
	if !h.with(func(
		now time.Duration, core *core,
	) {
		h.moved(now, core, c, core.finish(now, ch))
	}) {
		return aborted
	}
	return h.reply(ch)
}

// moved reports a change to the oracle and does what flush_ms asks for.
func (h *locationHandler) moved(now time.Duration, core *core, c *call, t transition) {
	h.host.changes.Add(1)
	oracle := h.host.oracle
	oracle.moved(h.index, t, c.source())
	s := core.slots[t.shard]
	if s == nil {
		return
	}
	if t.attaches() && s.tenant != nil {
		h.imports.loaded(t.shard, s)
	}
	if c.flush && t.from.attached() && t.to.attached() && t.gen == t.fromGen {
		if t.to == modeStale && t.from != modeStale {
			core.timelines.uploadAll(now, t.shard, s)
		}
		core.heatmaps.upload(now, t.shard, s)
	}
}

func (h *locationHandler) reply(ch *locationChange) reply {
	if ch.mode == modeNone {
		return ok(jsonNull)
	}
	b := make([]byte, 0, 128)
	b = append(b, `{"shards":[`...)
	if ch.mode.attached() {
		b = append(b, `{"shard_id":"`...)
		b = appendShard(b, ch.shard)
		b = append(b, `","node_id":`...)
		b = strconv.AppendUint(b, uint64(h.host.id), 10)
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

// get is GET /v1/location_config/{shard}.
func (h *locationHandler) get(c *call) reply {
	var l *listed
	if !h.with(func(_ time.Duration, core *core) {
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

// list is GET /v1/location_config.
func (h *locationHandler) list(*call) reply {
	var all []listed
	if !h.with(func(_ time.Duration, core *core) {
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
