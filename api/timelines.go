package api

import (
	"net/http"

	"quorate/api/internal/forward"
	"quorate/api/neon"
	"quorate/internal/controller"
	"quorate/internal/deletion"
	"quorate/internal/membership"
)

// timelineHandler answers requests about timelines, on pageservers and on
// safekeepers.
type timelineHandler struct {
	timelines  *controller.Timelines
	deletions  *deletion.Timelines
	migrations *membership.Migrator
}

func (h timelineHandler) create(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.TimelineCreateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.timelines.Create(c.ctx, id, req)
	return replyWith(http.StatusCreated, resp, err)
}

func (h timelineHandler) delete(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	stage, err := h.deletions.Delete(c.ctx, ref.Tenant, ref.Timeline)
	switch {
	case err != nil:
		return answer{}, err
	case stage == deletion.Done:
		return done(nil)
	}
	return answer{status: http.StatusConflict, body: null}, nil
}

func (h timelineHandler) describe(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	resp, err := h.timelines.Describe(c.ctx, ref.Tenant, ref.Timeline)
	return reply(resp, err)
}

func (h timelineHandler) archive(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var req neon.ArchivalRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.timelines.Archive(c.ctx, ref.Tenant, ref.Timeline, req))
}

func (h timelineHandler) detachAncestor(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var behavior neon.DetachBehavior
	text, ok, err := c.query("detach_behavior")
	if ok && err == nil {
		behavior, err = neon.ParseDetachBehavior(text)
	}
	if err != nil {
		return answer{}, err
	}
	resp, err := h.timelines.DetachAncestor(c.ctx, ref.Tenant, ref.Timeline, behavior)
	return reply(resp, err)
}

func (h timelineHandler) blockGC(c *call) (answer, error) { return h.changeGC(c, neon.BlockGC) }

func (h timelineHandler) unblockGC(c *call) (answer, error) { return h.changeGC(c, neon.UnblockGC) }

func (h timelineHandler) changeGC(c *call, verb neon.GCVerb) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	return done(h.timelines.ChangeGC(c.ctx, ref.Tenant, ref.Timeline, verb))
}

func (h timelineHandler) leaseLSN(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var req neon.LeaseRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.timelines.LeaseLSN(c.ctx, ref.Tenant, ref.Timeline, req))
}

func (h timelineHandler) downloadHeatmapLayers(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	timeline, err := c.timeline()
	if err != nil {
		return answer{}, err
	}
	var d neon.HeatmapDownload
	concurrency, ok, err := c.queryUint("concurrency")
	if err != nil {
		return answer{}, err
	}
	if ok {
		d.Concurrency = &concurrency
	}
	if d.Recurse, _, err = c.queryBool("recurse"); err != nil {
		return answer{}, err
	}
	return done(h.timelines.DownloadHeatmapLayers(c.ctx, id, timeline, d))
}

func (h timelineHandler) passthrough(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	target := c.request.URL.EscapedPath()
	if q := c.request.URL.RawQuery; q != "" {
		target += "?" + q
	}
	a, err := h.timelines.Passthrough(c.ctx, id, c.request.Method, target)
	if err != nil {
		return answer{}, err
	}
	header := forward.EndToEnd(a.Header)
	header.Del("Content-Length") // may have been that of an encoded body
	return answer{status: a.Status, header: header, body: a.Body}, nil
}
