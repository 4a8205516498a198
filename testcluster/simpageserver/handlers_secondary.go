package simpageserver

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
)

// secondaryHandler answers what is about secondaries and their heatmaps.
type secondaryHandler struct{ *incarnation }

// progress is POST …/secondary/download?wait_ms and GET …/secondary/status.
func (h *secondaryHandler) progress(c *call) reply {
	q, err := url.ParseQuery(c.query)
	if err != nil {
		return failf(http.StatusBadRequest, "query: %v", err).reply()
	}
	wait := 24 * time.Hour
	if text := q.Get("wait_ms"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return failf(http.StatusBadRequest, "wait_ms: %v", err).reply()
		}
		wait = time.Duration(ms) * time.Millisecond
	}
	deadline := time.Now().Add(wait)
	for {
		var f *failure
		var d downloadProgress
		if !h.with(func(now time.Duration, core *core) {
			var s *slot
			if s, f = core.secondaryOf(c.shard); f == nil {
				d = core.heatmaps.progress(now, c.shard, s)
			}
		}) {
			return aborted
		}
		left := time.Until(deadline)
		switch {
		case f != nil:
			return f.reply()
		case c.route == RouteSecondaryStatus || d.complete():
			return answer(http.StatusOK, h.progressJSON(d))
		case left <= 0 || c.late():
			return answer(http.StatusAccepted, h.progressJSON(d))
		case !h.sleep(min(busyPoll, left)):
			return aborted
		}
	}
}

func (h *secondaryHandler) progressJSON(d downloadProgress) neon.SecondaryProgress {
	j := neon.SecondaryProgress{
		LayersDownloaded: d.layersDone, LayersTotal: d.layersTotal,
		BytesDownloaded: d.bytesDone, BytesTotal: d.bytesTotal,
	}
	if d.hasHeatmap {
		j.HeatmapMtime = &neon.Millis{Time: h.host.epoch.Add(d.mtime)}
	}
	return j
}

// uploadHeatmap is POST …/heatmap_upload.
func (h *secondaryHandler) uploadHeatmap(c *call) reply {
	return h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		core.heatmaps.upload(now, c.shard, s)
		return ok(jsonNull)
	})
}

// downloadHeatmapLayers is POST …/download_heatmap_layers, which only begins something.
func (h *secondaryHandler) downloadHeatmapLayers(c *call) reply {
	if _, err := url.ParseQuery(c.query); err != nil {
		return failf(http.StatusBadRequest, "query: %v", err).reply()
	}
	return h.onTimeline(c,
		func(time.Duration, *core, *slot, *timeline) reply { return ok(jsonNull) })
}
