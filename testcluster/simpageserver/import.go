package simpageserver

import (
	"net/http"
	"time"

	"quorate/api/neon"
)

// importing is the import of one timeline of one shard. While it goes on nobody but
// a deletion sees the timeline; it ends when the controller says so, and not before
// the task has ended.
type importing struct {
	going bool
	task  *importTask // nil: it has ended, or the shard is not active yet
}

// importTask is the work on an import in one attachment of a shard.
type importTask struct {
	p     *process
	shard neon.ShardID
	gen   neon.Generation
	id    neon.TimelineID
}

// startImports starts the tasks of the imports of a shard that have none. The
// caller holds the core.
func (p *process) startImports(shard neon.ShardID, s *slot) {
	if s.tenant == nil {
		return
	}
	for _, tl := range s.tenant.timelines {
		if !tl.imports.going || tl.imports.task != nil || tl.deleting || !p.work.enter() {
			continue
		}
		task := &importTask{p: p, shard: shard, gen: s.gen, id: tl.id}
		tl.imports.task = task
		go func() {
			defer p.work.leave()
			task.run()
		}()
	}
}

// look runs f on the timeline unless the task has lost it.
func (t *importTask) look(f func(now time.Duration, c *core, s *slot, tl *timeline)) (mine bool) {
	t.p.with(func(now time.Duration, c *core) {
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
	}) || !t.p.sleep(wait) {
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
		if !t.p.sleep(length/2) || !t.upcall(http.MethodPost, report, &null) {
			return
		}
	}
	t.look(func(_ time.Duration, _ *core, _ *slot, tl *timeline) { tl.imports.task = nil })
}

// upcall repeats an upcall until it is answered; false means that the task has lost
// the timeline.
func (t *importTask) upcall(method string, in, out any) bool {
	u, closeIdle := t.p.node.newUpcaller()
	defer closeIdle()
	for try := 0; ; try++ {
		if !t.look(func(time.Duration, *core, *slot, *timeline) {}) || !t.p.gate.wait(t.p.ctx) {
			return false
		}
		err := u.send(t.p.ctx, upcall{method, "timeline_import_status"}, in, out)
		if err == nil {
			return true
		}
		t.p.node.log.Debug("upcall about an import not answered", "err", err, "try", try)
		if !t.p.sleep(backoff(try)) {
			return false
		}
	}
}

// activateImport is PUT …/activate_post_import.
func (p *process) activateImport(c *call) reply {
	return p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
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
