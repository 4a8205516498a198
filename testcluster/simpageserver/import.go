package simpageserver

import (
	"net/http"
	"time"

	"quorate/api/neon"
)

// importing is the import of one timeline of one shard. While it goes on nothing but
// a deletion sees the timeline; it ends when the controller says so, and not before
// the task has ended.
type importing struct {
	going bool
	task  *importTask // nil: it has ended, or the shard is not active yet
}

// importTask is the work on an import in one attachment of a shard.
type importTask struct {
	*incarnation
	opt   NodeOptions
	shard neon.ShardID
	gen   neon.Generation
	id    neon.TimelineID
}

// importHandler runs the imports of the shards of one process.
type importHandler struct {
	*incarnation
	opt NodeOptions // says whom to ask
}

// startTasks starts the tasks of the imports of a shard that have none. The
// caller holds the core.
func (h *importHandler) startTasks(shard neon.ShardID, s *slot) {
	if s.tenant == nil {
		return
	}
	for _, tl := range s.tenant.timelines {
		if !tl.imports.going || tl.imports.task != nil || tl.deleting {
			continue
		}
		task := &importTask{
			incarnation: h.incarnation, opt: h.opt, shard: shard, gen: s.gen, id: tl.id,
		}
		if h.start(task.run) {
			tl.imports.task = task
		}
	}
}

// loaded tells the oracle what an attached shard has loaded, and goes on with its
// imports. The caller holds the core.
func (h *importHandler) loaded(shard neon.ShardID, s *slot) {
	h.startTasks(shard, s)
	ids := make([]neon.TimelineID, 0, len(s.tenant.timelines))
	for _, tl := range s.tenant.timelines {
		if !tl.deleting {
			ids = append(ids, tl.id)
		}
	}
	h.host.oracle.loaded(h.index, shard, s.gen, ids)
}

// look runs f on the timeline unless the task has lost it.
func (t *importTask) look(f func(now time.Duration, c *core, s *slot, tl *timeline)) (mine bool) {
	t.with(func(now time.Duration, c *core) {
		s := c.slots[t.shard]
		if s == nil || s.busy || !s.mode.attached() || s.gen != t.gen {
			return
		}
		tl := c.timelines.findAny(now, t.shard, s, t.id)
		if mine = tl != nil && !tl.deleting && tl.imports.task == t; mine {
			f(now, c, s, tl)
		}
	})
	return mine
}

// run asks the controller how far the import is, does the rest and reports it. A
// task whose shard has gone ends without a word.
func (t *importTask) run() {
	var wait, length time.Duration
	var fails string
	if !t.look(func(now time.Duration, c *core, s *slot, _ *timeline) {
		wait, length = s.since-now, c.behave.ImportTime
		if c.behave.ImportFails != nil {
			fails = c.behave.ImportFails(t.shard, t.id)
		}
	}) || !t.sleep(wait) {
		return
	}
	var status neon.ShardImport
	ask := neon.ImportStatusRequest{Shard: t.shard, Timeline: t.id, Generation: t.gen}
	if !t.upcall(http.MethodGet, ask, &status) {
		return
	}
	steps := []neon.ShardImport{
		{Progress: neon.ImportProgress{Jobs: 2, Completed: 1, PlanHash: 7, JobSize: 1 << 20}},
		{State: neon.ShardImportDone},
	}
	if fails != "" {
		steps[1] = neon.ShardImport{State: neon.ShardImportFailed, Error: fails}
	}
	for _, step := range steps {
		if status.Terminal() {
			break
		}
		var null any
		report := neon.ImportStatusReport{
			Shard: t.shard, Timeline: t.id, Generation: t.gen, Status: step,
		}
		if !t.sleep(length/2) || !t.upcall(http.MethodPost, report, &null) {
			return
		}
	}
	t.look(func(_ time.Duration, _ *core, _ *slot, tl *timeline) { tl.imports.task = nil })
}

// upcall repeats an upcall until it is answered; false means that the task has lost
// the timeline.
func (t *importTask) upcall(method string, in, out any) bool {
	u, closeIdle := newUpcaller(t.opt)
	defer closeIdle()
	for try := 0; ; try++ {
		if !t.look(func(time.Duration, *core, *slot, *timeline) {}) || !t.pass() {
			return false
		}
		err := u.send(t.ctx, upcall{method, "timeline_import_status"}, in, out)
		if err == nil {
			return true
		}
		t.host.log.Debug("upcall about an import not answered", "err", err, "try", try)
		if !t.sleep(backoff(try)) {
			return false
		}
	}
}

// activate is PUT …/activate_post_import.
func (h *importHandler) activate(c *call) reply {
	return h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		tl := core.timelines.findAny(now, c.shard, s, c.timeline)
		switch {
		case tl == nil || tl.deleting:
			return failf(http.StatusNotFound, "NotFound: Timeline %s/%s was not found", c.shard,
				c.timeline).reply()
		case tl.imports.task != nil:
			return fail(http.StatusServiceUnavailable, "Import task still running").reply()
		case tl.imports.going:
			tl.imports.going, tl.active = false, now
			core.timelines.putIndex(c.shard, s, tl)
		}
		return answer(http.StatusOK, core.timelines.describe(now, c.shard, tl))
	})
}
