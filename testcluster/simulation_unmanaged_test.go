package testcluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// mostWild bounds the wild tenants of one worker.
const mostWild = 2

// wild is a tenant about which support and tests do what they like: they attach it
// themselves, put it away, forget it and import it again.
type wild struct {
	shard neon.ShardID
	last  neon.Generation // the last one that was answered for an unmanaged attachment
	here  neon.NodeID     // where it was attached unmanaged
}

// toWild does one thing with one of the worker's wild tenants.
func (w *worker) toWild(ctx context.Context, c *testcluster.Client) {
	if len(w.wild) < mostWild {
		t := &wild{shard: shardOf(w.number(), 0, 0)}
		w.Oracle().Wild(t.shard.Tenant)
		w.Oracle().PutAway(t.shard.Tenant) // compute is told by the client that attaches
		w.wild = append(w.wild, t)
	}
	t := w.wild[w.rng.IntN(len(w.wild))]
	id := t.shard.Tenant
	switch w.rng.IntN(16) {
	case 0:
		w.count(c.Tenants().SetPolicy(ctx, id,
			neon.PolicyRequest{Placement: ptr(neon.Attached(w.rng.IntN(2)))}))
	case 1:
		w.count(c.Tenants().SetPolicy(ctx, id,
			neon.PolicyRequest{Placement: ptr(neon.Placement{})}))
	case 2, 3, 4:
		mode := []neon.LocationMode{
			neon.AttachedSingle, neon.AttachedSingle, neon.Secondary, neon.Detached,
		}[w.rng.IntN(4)]
		_, err := c.Tenants().PutLocation(ctx, id, neon.LocationConfig{
			Mode: mode, TenantConf: conf(fmt.Sprintf(`{"gc_horizon":%d}`, w.number())),
		})
		w.count(err)
	case 5:
		w.count(c.Tenants().PatchConfig(ctx, id, map[string]any{"gc_horizon": w.number()}))
	case 6:
		w.count(c.Tenants().Drop(ctx, id))
	case 7, 8:
		_, err := c.Tenants().Import(ctx, id)
		w.count(err)
	case 9:
		at := time.Now().UTC().Format(time.RFC3339)
		path := "/v1/tenant/" + id.String() + "/time_travel_remote_storage?travel_to=" + at +
			"&done_if_after=" + at
		w.count(c.Call(ctx, http.MethodPut, path, map[string][]int{"shard_counts": {0}}, nil))
	case 10:
		w.wild = slices.DeleteFunc(w.wild, func(o *wild) bool { return o == t })
		w.Oracle().Deleting(id)
		if !w.count(c.Tenants().Delete(ctx, id)) {
			w.doomed = append(w.doomed, id) // it may not have begun
		}
	case 11:
		if len(w.Safekeepers().Nodes()) == 0 {
			_, err := c.Timelines().Create(ctx, id, neon.TimelineCreateRequest{
				Timeline:  timelineOf(w.number()),
				Bootstrap: &neon.TimelineBootstrap{PgVersion: ptr(neon.PgVersion(16))},
			})
			w.count(err)
		}
	case 12:
		w.attachUnmanaged(ctx, t, 0)
	default:
		nodes := w.Fleet().Nodes()
		w.attachUnmanaged(ctx, t, nodes[w.rng.IntN(len(nodes))].ID())
	}
}

// attachUnmanaged asks for a generation and attaches the shard itself; node 0 takes it
// away. Each answer has to be a number that no earlier one had. It is one request to
// one replica: a retry would be another attachment.
func (w *worker) attachUnmanaged(ctx context.Context, t *wild, node neon.NodeID) {
	req := neon.AttachHookRequest{Shard: t.shard}
	if node != 0 {
		req.Node = &node
	}
	g, err := w.ClientOf(w.rng.IntN(w.Controllers())).WithTryTimeout(answerTimeout).Shards().
		AttachHook(ctx, req)
	if !w.count(err) {
		return
	}
	if node == 0 {
		w.place(ctx, t.here, t.shard, neon.LocationConfig{Mode: neon.Detached})
		t.here = 0
		return
	}
	if g <= t.last {
		w.Errorf("seed %d: generation %s of shard %s was answered after %s", w.seed, g, t.shard,
			t.last)
	}
	t.last = g
	if w.rng.IntN(8) == 0 {
		return // they thought better of it
	}
	if t.here != 0 && t.here != node {
		w.place(ctx, t.here, t.shard, neon.LocationConfig{Mode: neon.Detached})
	}
	t.here = node
	w.place(ctx, node, t.shard, neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &g})
}

// place is a call to a pageserver behind the controllers' backs. It may fail.
func (w *worker) place(
	ctx context.Context, id neon.NodeID, shard neon.ShardID, conf neon.LocationConfig,
) {
	n := w.Fleet().Node(id)
	if n == nil {
		return
	}
	body, err := json.Marshal(conf)
	if err != nil {
		w.Errorf("seed %d: %v", w.seed, err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	defer func() { // it is dead, or dies
		if r := recover(); r != nil && r != http.ErrAbortHandler {
			panic(r)
		}
	}()
	req := httptest.NewRequestWithContext(ctx, http.MethodPut,
		"/v1/tenant/"+shard.String()+"/location_config", bytes.NewReader(body))
	n.Handler().ServeHTTP(httptest.NewRecorder(), req)
}

// travelLimit bounds how long a time travel keeps its tenant: its call hangs for five minutes,
// and may go on for six more.
const travelLimit = 15 * time.Minute

// tame gives the wild tenants of all workers into the controllers' care, once no time
// travel is in the way, and begins the deletions that may not have begun.
func (e *episode) tame(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), travelLimit)
	defer cancel()
	for _, w := range e.workers {
		for _, id := range w.doomed {
			e.persist(ctx, "delete a wild tenant",
				func(ctx context.Context, c *testcluster.Client) error {
					try, cancel := context.WithTimeout(ctx, answerTimeout)
					err := c.Tenants().Delete(try, id)
					cancel()
					if s, serr := e.newestState(ctx); serr == nil {
						if tenant, _ := s.Tenant(id); tenant.Deleting {
							return nil // the leader finishes it
						}
					}
					return err
				})
		}
		w.doomed = nil
		for _, t := range w.wild {
			id := t.shard.Tenant
			e.persist(ctx, "take a tenant back",
				func(ctx context.Context, c *testcluster.Client) error {
					s, err := e.newestState(ctx)
					if err != nil {
						return err
					}
					if _, travels := s.Travel(id); travels {
						return fmt.Errorf("tenant %s is put back in time", id)
					}
					return c.Tenants().SetPolicy(ctx, id, neon.PolicyRequest{
						Placement: ptr(neon.Attached(0)), Scheduling: ptr(neon.ShardActive),
					})
				})
			t.here = 0
		}
	}
}
