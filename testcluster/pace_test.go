package testcluster_test

import (
	"context"
	"testing"

	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
	"quorate/testcluster"
)

// paced makes a test fail when a controller proposes without a pause. What a client
// asks for is not counted: a story may ask as often as it likes in no time.
func paced(t *testing.T, b testcluster.Builder) testcluster.Builder {
	if b.Mode != testcluster.Virtual {
		return b
	}
	p := &fsmtest.Pace{}
	b.Proposing = func(ctx context.Context, c fsm.Command) {
		if decide.Named(ctx) {
			return
		}
		if err := p.Note(c); err != nil {
			t.Error(err)
		}
	}
	b.Calling = func(what string) {
		if err := p.Call(what); err != nil {
			t.Error(err)
		}
	}
	return b
}

// proposing counts what the controllers of an episode propose, for their clients too. The
// size of the fleet bounds it.
func (e *episode) proposing(ctx context.Context, c fsm.Command) {
	if err := e.pace.Note(c); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
	e.trap.pass(ctx, c)
}

// calling counts what the controllers of an episode call.
func (e *episode) calling(what string) {
	if err := e.pace.Call(what); err != nil {
		e.Errorf("seed %d: %v", e.seed, err)
	}
}

// things is how many shards, timelines, nodes and safekeepers there may be at most. What
// strains have made, and what workers have forgotten, is nobody's: the state tells of it.
func (e *episode) things() int {
	shards := e.moves.shards()
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.servers + len(e.workers)*mostWild + shards
	return n + len(e.tenants)*mostOfTenant
}

// mostOfTenant is how many shards and timelines a tenant may have. What it has is its
// worker's own.
const mostOfTenant = 32
