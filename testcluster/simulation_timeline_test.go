package testcluster_test

import (
	"context"
	"encoding/json"
	"fmt"

	"quorate/api/neon"
	"quorate/testcluster"
)

// archive archives a timeline or brings it back. Pageservers offload what is archived
// by themselves, and may carry out what a client has given up; that nothing is
// stranded is checked at rest.
func (w *worker) archive(ctx context.Context, c *testcluster.Client, t *simTenant) {
	if len(t.timelines) == 0 {
		return
	}
	req := neon.ArchivalRequest{State: neon.Archived}
	if w.rng.IntN(2) == 0 {
		req.State = neon.Unarchived
	}
	path := fmt.Sprintf("/v1/tenant/%s/timeline/%s/archival_config", t.id,
		t.timelines[w.rng.IntN(len(t.timelines))])
	var null any
	w.count(c.Call(ctx, "PUT", path, req, &null))
}

// importTimeline begins an import, which any leader takes to its end.
func (w *worker) importTimeline(ctx context.Context, c *testcluster.Client, t *simTenant) {
	id := timelineOf(w.number())
	_, err := c.Timelines().Create(ctx, t.id, neon.TimelineCreateRequest{Timeline: id,
		Import: &neon.TimelineImport{
			Location:       json.RawMessage(`{"LocalFs":{"path":"/bucket"}}`),
			IdempotencyKey: id.String(),
		}})
	w.count(err)
}
