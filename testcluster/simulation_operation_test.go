package testcluster_test

import (
	"context"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// mostDeleted is how many pageservers may be gone, or on their way, at a time.
const mostDeleted = 1

// operate gives a random order about a long operation on a random pageserver.
func (w *worker) operate(ctx context.Context, c *testcluster.Client) {
	nodes := w.Fleet().Nodes()
	id := nodes[w.rng.IntN(len(nodes))].ID()
	method, what := http.MethodPut, []string{"drain", "drain", "fill", "delete"}[w.rng.IntN(4)]
	if w.rng.IntN(4) == 0 {
		method = http.MethodDelete
	} else if what == "delete" && !w.mayDelete(id) {
		return
	}
	query := []string{"", "?concurrent=true"}[w.rng.IntN(2)]
	if what == "delete" && method == http.MethodPut && w.rng.IntN(2) == 0 {
		query = []string{"?force=true", "?force=true&concurrent=true"}[w.rng.IntN(2)]
	}
	path := "/control/v1/node/" + id.String() + "/" + what + query
	// at once, or only forgotten
	if what == "delete" && method == http.MethodPut && w.rng.IntN(4) == 0 {
		method, path = http.MethodDelete, "/control/v1/node/"+id.String()
		if w.rng.IntN(2) == 0 {
			method, path = http.MethodPost, "/debug/v1/node/"+id.String()+"/drop"
		}
	}
	if w.count(c.Call(ctx, method, path, nil, nil)) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tally.orders++
	}
}

// mayDelete keeps enough pageservers, and excuses what one does of which nobody
// knows any more: who deletes a tenant does not wait for it.
func (w *worker) mayDelete(id neon.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, again := w.deleted[id]; !again && len(w.deleted) >= mostDeleted {
		return false
	}
	if w.deleted[id] == nil {
		w.deleted[id] = w.suspectLocked(id)
	}
	return true
}

// endOperations cancels what still runs and brings the deleted pageservers back,
// with empty disks, as new ones. The one that is to stay dead is not started.
func (e *episode) endOperations(ctx context.Context) {
	e.persist(ctx, "end the operations", func(ctx context.Context, c *testcluster.Client) error {
		for n := 0; ; n++ {
			list, err := c.Nodes().Operations(ctx)
			if err != nil || len(list) == 0 {
				return err
			}
			if n%60 == 59 {
				e.Logf("seed %d, round %d: slow, operations still run: %+v", e.seed, e.tally.rounds,
					list)
			}
			for _, op := range list {
				// it may have ended
				_ = c.Call(ctx, http.MethodDelete, "/control/v1/node/"+op.Node.String()+"/"+op.Kind,
					nil, nil)
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	var tombstones []neon.NodeDescribe
	e.persist(ctx, "list the tombstones",
		func(ctx context.Context, c *testcluster.Client) (err error) {
			tombstones, err = c.Nodes().Tombstones(ctx)
			return err
		})
	for _, t := range tombstones {
		n := e.Fleet().Node(t.ID)
		ran := n.Running()
		n.WipeDisk()
		e.persist(ctx, "forget a tombstone",
			func(ctx context.Context, c *testcluster.Client) error {
				return c.Call(ctx, http.MethodDelete, "/debug/v1/tombstone/"+t.ID.String(), nil,
					nil)
			})
		if ran {
			if err := n.Start(ctx); err != nil {
				e.Errorf("seed %d: %v", e.seed, err)
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, ended := range e.deleted {
		ended()
		delete(e.deleted, id)
	}
}
