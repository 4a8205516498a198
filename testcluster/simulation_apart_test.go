package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

// once is a client whose requests are made once: a try that was given up may be carried out
// long after the answer to the next one.
func (w *worker) once() *testcluster.Client { return w.ClientOf(w.rng.IntN(w.Controllers())) }

// recreate deletes a tenant, by two requests at the same time, and creates it again under
// its id once both are answered. Nobody may remove its data from then on. Safekeepers may
// carry out the deletion of a tenant late, and would do so.
func (w *worker) recreate(ctx context.Context, t *simTenant) {
	if t.want != 0 || t.large || len(w.Safekeepers().Nodes()) > 0 {
		return
	}
	w.forget(t)
	w.Oracle().Deleting(t.id)
	var wg sync.WaitGroup
	var done [2]bool
	for i := range done {
		c, after := w.once(), time.Duration(w.rng.Int64N(int64(time.Second)))
		wg.Go(func() {
			<-time.After(after)
			err := c.Tenants().Delete(ctx, t.id)
			done[i] = err == nil || client.StatusOf(err) == http.StatusNotFound
		})
	}
	if w.rng.IntN(2) == 0 {
		w.deleteRemover(ctx, t)
	}
	wg.Wait()
	if !done[0] || !done[1] {
		w.count(fmt.Errorf("not known"))
		return // a request may be on its way
	}
	w.Oracle().Again(t.id)
	w.Ledger().Again(t.id)
	w.createAs(ctx, w.Client().WithTryTimeout(answerTimeout), t.id)
}

// deleteRemover deletes the pageserver that is asked to remove the data of a tenant, whose
// process goes on.
func (w *worker) deleteRemover(ctx context.Context, t *simTenant) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		s, err := w.newestState(ctx)
		if err != nil {
			continue
		}
		tenant, ok := s.Tenant(t.id)
		if n, removing := s.Removing(&tenant); ok && removing {
			if w.mayDelete(n.ID) {
				path := "/control/v1/node/" + n.ID.String() + "/delete?concurrent=true"
				w.count(w.Client().Call(ctx, http.MethodPut, path, nil, nil))
			}
			return
		}
	}
}

// cross creates and deletes a timeline at the same time. Safekeepers may carry out a deletion
// late, which takes a timeline away that was created again under its id.
func (w *worker) cross(ctx context.Context, t *simTenant) {
	if t.want != 0 || len(w.Safekeepers().Nodes()) > 0 {
		return
	}
	id := timelineOf(w.number())
	w.Oracle().Crossings.Add(id)
	var wg sync.WaitGroup
	var created, deleted error
	one, other := w.once(), w.once()
	after := time.Duration(w.rng.Int64N(int64(2 * time.Second)))
	wg.Go(func() {
		_, created = one.Client.Timelines().Create(ctx, t.id, neon.TimelineCreateRequest{
			Timeline: id, Bootstrap: &neon.TimelineBootstrap{PgVersion: ptr(neon.PgVersion(16))},
		})
	})
	wg.Go(func() {
		<-time.After(after)
		deleted = other.Client.Timelines().Delete(ctx, t.id, id)
		if client.StatusOf(deleted) == http.StatusNotFound {
			deleted = nil
		}
	})
	wg.Wait()
	if !w.count(created) || !w.count(deleted) {
		t.half = append(t.half, id)
		return
	}
	t.crossed = append(t.crossed, id)
}

// checkCrossed demands, when everything is at rest, that timelines whose creation and
// deletion were both acknowledged are on all shards of their tenant, or on none.
func (e *episode) checkCrossed() {
	ctx, cancel := context.WithTimeout(context.Background(), convergeLimit)
	defer cancel()
	want, err := testcluster.Shards(ctx, e.Client())
	if err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
		return
	}
	for _, t := range e.tenants {
		for _, id := range t.crossed {
			on, off := 0, 0
			for shard, node := range want {
				n := e.Fleet().Node(node)
				if shard.Tenant != t.id || n == nil {
					continue
				}
				answer := httptest.NewRecorder()
				n.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet,
					fmt.Sprintf("/v1/tenant/%s/timeline/%s", shard, id), nil))
				switch answer.Code {
				case http.StatusOK:
					on++
				case http.StatusNotFound:
					off++
				}
			}
			if on > 0 && off > 0 {
				e.Errorf("seed %d, round %d: timeline %s of tenant %s is on %d shards and not on %d",
					e.seed, e.tally.rounds, id, t.id, on, off)
			}
			e.persist(ctx, "delete a timeline that was crossed",
				func(ctx context.Context, c *testcluster.Client) error {
					return c.Client.Timelines().Delete(ctx, t.id, id)
				})
		}
		t.crossed = nil
	}
}

// travel puts a tenant away, has its data put back in time, and asks for it to be attached
// meanwhile. It is attached when the time travel has ended, if nobody repeats it.
func (w *worker) travel(ctx context.Context, c *testcluster.Client, t *simTenant) {
	if t.want != 0 || t.paused {
		return
	}
	place := func(p neon.Placement) bool {
		return w.count(c.Tenants().SetPolicy(ctx, t.id, neon.PolicyRequest{Placement: &p}))
	}
	w.Oracle().PutAway(t.id)
	defer func() {
		for !place(neon.Attached(1)) {
			if ctx.Err() != nil {
				w.forget(t) // it stays away
				return
			}
			<-time.After(time.Second)
		}
		w.Oracle().Serving(t.id)
	}()
	if !place(neon.Placement{}) {
		return
	}
	short, cancel := context.WithTimeout(ctx, time.Duration(w.rng.Int64N(int64(20*time.Second))))
	defer cancel()
	var wg sync.WaitGroup
	one, now := w.once(), time.Now()
	counts := []neon.ShardCount{w.shardsOf(t)[0].Count}
	wg.Go(func() { _ = one.Tenants().TravelRemoteStorage(short, t.id, now, now, counts...) })
	<-time.After(time.Duration(w.rng.Int64N(int64(5 * time.Second))))
	place(neon.Attached(1))
	wg.Wait()
}
