package testcluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

// A scenario is a story told in steps. It has to end the same way for all that run
// it: one controller, three of them, and three of which the leader dies at any
// moment.
type scenario struct {
	name    string
	builder testcluster.Builder // Mode and Controllers are the variant's
	run     func(s *script)

	// atLeast is how many controllers the story needs.
	atLeast int

	// alone is why the story is not told beside a pageserver that it does not know;
	// "": it is.
	alone string
}

// variant is a way to run a scenario.
type variant struct {
	name        string
	mode        testcluster.Mode
	controllers int
	kill        moment
	beside      ailment // of a pageserver, with each kill
}

// moment says when the leader is killed.
type moment uint8

const (
	never    moment = iota
	between         // at the beginning of every step
	within_         // at a random moment after the beginning of every step
	together        // at the beginning of every step, and again soon after it
)

// variants are the ways to run a story; the first usual ones are run every time.
var variants = []variant{
	{name: "one", controllers: 1},
	{name: "three", controllers: 3},
	{name: "three killed at each step", controllers: 3, kill: between},
	{name: "three killed within each step", controllers: 3, kill: within_},
	{name: "three killed again and again", controllers: 3, kill: together},
	{name: "one killed at each step", controllers: 1, kill: between},
	{name: "one killed within each step", controllers: 1, kill: within_},
	{name: "a pageserver dead", controllers: 3, kill: between, beside: dead},
	{name: "a pageserver hanging", controllers: 3, kill: between, beside: hanging},
	{name: "a pageserver answering slowly", controllers: 3, kill: between, beside: slow},
}

const usual = 3

var everyVariant = flag.Bool("scenarios.all", false,
	"run every story in every variant, not only in the usual ones")

// variants are those that a story is run in.
func (sc scenario) variants() (list []variant) {
	for i, v := range variants {
		if v.controllers >= sc.atLeast && (i < usual || *everyVariant) &&
			(v.beside == none || sc.alone == "") {
			list = append(list, v)
		}
	}
	return list
}

// maxMoment bounds the random moment after the beginning of a step; the longest
// reactions, verdicts on pageservers, take a second.
const maxMoment = 1500 * time.Millisecond

// restLimit bounds the time until everything is at rest after a story.
const restLimit = 3 * time.Minute

// script is one run of a scenario.
type script struct {
	*testing.T
	*testcluster.Cluster
	kill moment
	rng  *rand.Rand

	step_ string

	// noConflict is for stories in which nobody but the client asks for anything: 409 is a
	// fault there.
	noConflict bool

	deleted []neon.TenantID
	killer  sync.WaitGroup
	beside  *companions // nil: the story is told alone
	mu      sync.Mutex
	dead    []int // controllers that the runner has killed
}

// TestScenarios runs every story in virtual time in several variants, and demands
// the same end state of all.
func TestScenarios(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			var want string
			for _, v := range sc.variants() {
				v.mode = testcluster.Virtual
				t.Run(v.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { play(t, sc, v, &want) })
				})
			}
		})
	}
}

// TestScenariosOnSockets runs a few of the stories with real sockets, files and time.
func TestScenariosOnSockets(t *testing.T) {
	few := map[string]bool{
		"create": true, "live migrate": true, "leader and pageserver killed together": true,
	}
	for _, sc := range scenarios() {
		if !few[sc.name] {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			var want string
			for _, v := range []variant{variants[0], variants[2]} {
				v.mode = testcluster.InProcess
				t.Run(v.name, func(t *testing.T) { play(t, sc, v, &want) })
			}
		})
	}
}

// play runs one story and compares its end with want, which the first run sets.
func play(t *testing.T, sc scenario, v variant, want *string) {
	b := sc.builder
	b.Mode, b.Controllers, b.Hook = v.mode, v.controllers, true
	b.Seed = 1
	if v.beside != none {
		b.MaxOffline = besideOffline
	}
	b = paced(t, b)
	s := &script{
		T: t, kill: v.kill, rng: rand.New(rand.NewPCG(b.Seed, 42)), Cluster: testcluster.Run(t, b),
	}
	t.Cleanup(s.killer.Wait)
	s.accompany(v.beside)
	t.Cleanup(s.beside.settled)
	sc.run(s)
	s.end()
	if t.Failed() {
		return
	}
	got := s.normalised()
	if *want == "" {
		*want = got
		return
	}
	if got != *want {
		t.Errorf("ended differently\n--- first run\n%s\n--- this run\n%s", *want, got)
	}
}

// step marks the beginning of a step of the story: here the leader dies.
func (s *script) step(name string) {
	s.Helper()
	s.revive()
	s.beside.recover()
	s.step_ = name
	s.beside.fallIll()
	switch s.kill {
	case between:
		s.killLeader()
		s.beside.demand()
	case within_:
		s.killSoon()
	case together:
		s.killLeader()
		s.killSoon()
	}
}

// killSoon kills the leader at a random moment. With three controllers of which
// one is dead already, that one is brought back first.
func (s *script) killSoon() {
	wait := time.Duration(s.rng.Int64N(int64(maxMoment)))
	s.killer.Go(func() {
		<-time.After(wait)
		s.restartDead()
		s.killLeader()
	})
}

func (s *script) killLeader() {
	ctx, cancel := context.WithTimeout(context.Background(), restLimit)
	defer cancel()
	i, err := s.KillLeader(ctx)
	if err != nil {
		s.Errorf("step %q: kill the leader: %v", s.step_, err)
		return
	}
	s.mu.Lock()
	s.dead = append(s.dead, i)
	s.mu.Unlock()
	if s.Controllers() == 1 {
		s.restartDead()
	}
}

// restartDead starts the controllers that were killed.
func (s *script) restartDead() {
	s.mu.Lock()
	dead := s.dead
	s.dead = nil
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), restLimit)
	defer cancel()
	for _, i := range dead {
		if s.Running(i) {
			continue
		}
		if err := s.Restart(ctx, i); err != nil {
			s.Errorf("step %q: restart controller %d: %v", s.step_, i, err)
		}
	}
}

// revive waits for a kill that is still to come, and for what is demanded after one, and
// starts what is dead.
func (s *script) revive() {
	s.killer.Wait()
	s.beside.settled()
	s.restartDead()
}

// within bounds one action of a story.
func (s *script) within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), restLimit)
	s.Cleanup(cancel)
	return ctx
}

// do repeats an action until it succeeds: an answer that is not 2xx leaves the
// outcome open or says that nothing happened, and a retry is always safe.
func (s *script) do(what string, f func(ctx context.Context, c *testcluster.Client) error) {
	s.Helper()
	ctx := s.within()
	for {
		err := f(ctx, s.Client())
		if err == nil {
			return
		}
		status := client.StatusOf(err)
		final := status == http.StatusBadRequest || s.noConflict && status == http.StatusConflict
		if o := s.Oracle().Err(); final || ctx.Err() != nil || o != nil {
			s.Fatalf("step %q: %s: %v", s.step_, what, errors.Join(o, err))
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			s.Fatalf("step %q: %s: %v", s.step_, what, errors.Join(err, ctx.Err()))
		}
	}
}

// eventually waits for a condition, which says what is missing.
func (s *script) eventually(what string, f func(ctx context.Context) error) {
	s.Helper()
	ctx := s.within()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		if o := s.Oracle().Err(); o != nil {
			s.Fatalf("step %q: %s: %v", s.step_, what, errors.Join(o, err))
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			s.Fatalf("step %q: %s: %v", s.step_, what, err)
		}
	}
}

// rest waits until nothing is left to do.
func (s *script) rest() {
	s.Helper()
	if err := s.WaitQuiescent(s.within()); err != nil {
		s.Fatalf("step %q: %v", s.step_, err)
	}
}

// pass lets time go by.
func (s *script) pass(d time.Duration) { <-time.After(d) }

// verdicts waits until the controllers see which pageservers run.
func (s *script) verdicts() {
	s.Helper()
	if err := s.WaitNodes(s.within(), s.besides()...); err != nil {
		s.Fatalf("step %q: %v", s.step_, err)
	}
}

// pageserver starts a pageserver.
func (s *script) pageserver(id neon.NodeID) {
	s.Helper()
	if err := s.Fleet().Node(id).Start(s.within()); err != nil {
		s.Fatalf("step %q: %v", s.step_, err)
	}
}

// end brings everything back and checks what must hold at rest.
func (s *script) end() {
	s.Helper()
	s.revive()
	s.beside.recover()
	s.step_ = "end"
	s.verdicts()
	s.rest()
	s.eventually("all is as it should be",
		func(ctx context.Context) error { return checkEverything(ctx, s.Cluster) })
	s.nothingStored()
}

// nothingStored demands that no tenant that was deleted has left anything in remote
// storage, under the name of any of its shards.
func (s *script) nothingStored() {
	s.Helper()
	for _, id := range s.deleted {
		if keys := s.Fleet().Store().Keys(id); len(keys) > 0 {
			s.Errorf("step %q: of the deleted tenant %s there is left: %v", s.step_, id, keys)
		}
	}
}

// leads is the node that a shard should be attached to.
func (s *script) home(id neon.ShardID) neon.NodeID {
	s.Helper()
	var node neon.NodeID
	s.do("where is "+id.String(), func(ctx context.Context, c *testcluster.Client) error {
		d, err := c.Tenants().Describe(ctx, id.Tenant)
		if err != nil {
			return err
		}
		for _, sh := range d.Shards {
			if sh.Shard == id && sh.Attached != nil {
				node = *sh.Attached
				return nil
			}
		}
		return fmt.Errorf("shard %s is placed nowhere", id)
	})
	return node
}
