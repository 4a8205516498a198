package testcluster_test

import (
	"context"
	"fmt"

	"quorate/api/client"
	"quorate/testcluster"
)

// mostPast is how many requests a worker remembers to make them again.
const mostPast = 16

// past is a request that was acknowledged under a key.
type past struct {
	key  string
	call func(context.Context, *testcluster.Client) error
}

// trace gives the requests of every other worker one request id, as clients do that follow
// a task of theirs through the logs.
func (w *worker) trace(ctx context.Context) context.Context {
	if len(w.mine)%2 == 0 {
		return ctx
	}
	return client.WithRequestID(ctx, "trace")
}

// named makes a request under a key of its own, and remembers it once it is acknowledged.
func (w *worker) named(
	ctx context.Context, c *testcluster.Client,
	call func(context.Context, *testcluster.Client) error,
) bool {
	p := past{key: fmt.Sprintf("%d/%d", w.seed, w.number()), call: call}
	if !w.count(call(client.WithIdempotencyKey(ctx, p.key), c)) {
		return false
	}
	if len(w.past) < mostPast {
		w.past = append(w.past, p)
	} else {
		w.past[w.rng.IntN(mostPast)] = p
	}
	return true
}

// repeat makes a request again that was acknowledged long ago, whatever has been acknowledged
// since. It must not change anything, so nothing is written down.
func (w *worker) repeat(ctx context.Context, c *testcluster.Client) {
	if len(w.past) == 0 {
		return
	}
	p := w.past[w.rng.IntN(len(w.past))]
	err := p.call(client.WithIdempotencyKey(ctx, p.key), &testcluster.Client{Client: c.Client})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tally.repeated++; err != nil {
		w.tally.refused++
	}
}
