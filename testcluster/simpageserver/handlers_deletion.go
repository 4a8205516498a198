package simpageserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
)

// validateBatch is how many entries one validate upcall carries.
const validateBatch = 128

// deletionHandler works on the deletion queue.
type deletionHandler struct {
	*incarnation
	opt NodeOptions // says whom to ask
}

// flush is PUT /v1/deletion_queue/flush: it validates and executes.
func (h *deletionHandler) flush(*call) reply {
	if err := h.validateAndExecute(h.ctx); err != nil {
		return fail(http.StatusInternalServerError, fmt.Sprint(err)).reply()
	}
	return ok(jsonNull)
}

// validateAndExecute validates and executes the deletion queue.
func (h *deletionHandler) validateAndExecute(ctx context.Context) error {
	for {
		var lists []deletionList
		if !h.with(func(_ time.Duration, c *core) { lists = c.deletions.take(validateBatch) }) ||
			len(lists) == 0 {
			return nil
		}
		items, err := h.validate(ctx, lists)
		if err != nil {
			h.with(func(_ time.Duration, c *core) { c.deletions.putBack(lists) })
			return fmt.Errorf("deletion queue of node %s: %w", h.host.id, err)
		}
		h.with(func(_ time.Duration, c *core) {
			for i, d := range lists {
				if items[i].valid {
					h.execute(c, d)
				}
			}
		})
	}
}

// execute deletes the layers of one validated list, and is I14.
func (h *deletionHandler) execute(c *core, d deletionList) {
	oracle := h.host.oracle
	newest, known := oracle.newest(d.shard)
	if !known {
		newest = d.gen
	}
	for _, u := range d.layers {
		id := remoteID{d.shard, u.timeline}
		if index, bad := c.store.deleteLayer(id, u.layer, newest, oracle.reader); bad {
			oracle.lost(h.index, id, u.layer, index)
		}
	}
}

// validate asks the controller which lists may be executed. It asks once for a shard, with
// the newest generation of its lists: the controller answers by shard, and what an earlier
// generation has listed is dropped.
func (h *deletionHandler) validate(
	ctx context.Context, lists []deletionList,
) ([]validation, error) {
	items := make([]validation, len(lists))
	asked := make(map[neon.ShardID]neon.Generation, len(lists))
	for i, d := range lists {
		items[i] = validation{shard: d.shard, gen: d.gen}
		asked[d.shard] = max(asked[d.shard], d.gen)
	}
	var req neon.ValidateRequest
	for i, d := range lists {
		earlier := func(e deletionList) bool { return e.shard == d.shard }
		if !slices.ContainsFunc(lists[:i], earlier) {
			req.Tenants = append(req.Tenants,
				neon.ValidateTenant{Shard: d.shard, Gen: asked[d.shard]})
		}
	}
	oracle := h.host.oracle
	before := oracle.validating(items)
	u, closeIdle := newUpcaller(h.opt)
	defer closeIdle()
	var resp neon.ValidateResponse
	if err := u.once(ctx, "validate", req, &resp); err != nil {
		return nil, err
	}
	valid := make(map[neon.ShardID]bool, len(resp.Tenants))
	for _, t := range resp.Tenants {
		valid[t.Shard] = t.Valid
	}
	for i, it := range items {
		items[i].valid = valid[it.shard] && it.gen == asked[it.shard]
	}
	oracle.validated(h.index, items, before)
	return items, nil
}
