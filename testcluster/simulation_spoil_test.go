package testcluster_test

import (
	"context"
	"net/http"
	"time"

	"quorate/api/client"
	"quorate/testcluster/spoil"
)

const (
	// unnoticed bounds how long a spoiled state may answer under load. Two replicas that
	// are busy have few indexes in common.
	unnoticed = 4 * time.Second

	// inStep bounds how long a simulation waits for a moment without a lagging replica.
	inStep = 5 * time.Second
)

// spoil alters the state of a controller while a majority can say that it is wrong, and
// demands that it is found and replaced. A majority that gets its state from the spoiled
// one, or is not there, could not know.
func (n *nemesis) spoil(ctx context.Context, i int) {
	if n.Controllers() < 3 {
		return
	}
	n.whole <- struct{}{}
	defer func() { <-n.whole }()
	for began := time.Now(); !n.allInStep(ctx); {
		if time.Since(began) > inStep || !n.pause(ctx, 100*time.Millisecond) {
			return
		}
	}
	n.mu.Lock()
	n.spoilt = time.Now()
	n.tally.spoils++
	n.mu.Unlock()
	n.check(n.SpoilState(i))
	began := time.Now()
	for !n.right(i) {
		if time.Since(began) > 2*unnoticed {
			n.Errorf("seed %d: the spoiled controller %d was not mended", n.seed, i)
			return
		}
		<-time.After(50 * time.Millisecond)
	}
}

// allInStep reports whether all controllers have nearly all of the log, and equal states.
func (n *nemesis) allInStep(ctx context.Context) bool {
	leader, ok := n.Leader(ctx)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	view, err := n.ClientOf(leader).Cluster().Members(ctx)
	for _, m := range view.Members {
		if m.Equality != "equal" || m.Lag > 16 {
			return false
		}
	}
	return err == nil && view.Leader == view.Server
}

// right reports whether a controller answers from a state that is as it should be.
func (n *nemesis) right(i int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := n.State(ctx, i)
	if err != nil {
		return false
	}
	_, wrong := s.Node(spoil.Node)
	return !wrong
}

// askForTheSpoiled asks any one replica for what only a spoiled state has.
func (w *worker) askForTheSpoiled() {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	spoilt := w.lastSpoilt()
	noticed := time.Since(spoilt) > unnoticed
	i := w.rng.IntN(w.Controllers())
	_, err := w.ClientOf(i).Nodes().Get(ctx, spoil.Node)
	if client.StatusOf(err) == http.StatusNotFound {
		w.read()
	}
	if err == nil && noticed && w.lastSpoilt().Equal(spoilt) {
		w.Errorf("seed %d: controller %d answers from a spoiled state", w.seed, i)
	}
}

// lastSpoilt is when a state was spoiled last.
func (w *worker) lastSpoilt() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spoilt
}
